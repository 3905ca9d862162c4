{{/* What PodMonitor and ServiceMonitor say alike of an endpoint. */}}
{{- define "salvor.endpoint" -}}
path: /metrics
interval: {{ .monitor.interval }}
scrapeTimeout: {{ .monitor.scrapeTimeout }}
relabelings:
  {{- toYaml (prepend .monitor.relabelings .node) | nindent 2 }}
{{- with .monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An alert that is wanted: (dict "root" $ "name" "SalvorX" "expr" "…" "for" "2m" "severity" "warning" "summary" "…" "description" "…"). */}}
{{- define "salvor.alert" -}}
{{- if not (has .name .root.Values.prometheusRule.disabled) -}}
- alert: {{ .name }}
  expr: {{ .expr | quote }}
  for: {{ .for }}
  labels:
    severity: {{ .severity }}
    {{- with .root.Values.prometheusRule.alertLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    summary: {{ .summary | quote }}
    description: {{ .description | quote }}
    runbook_url: {{ printf "%s/%s.md" (trimSuffix "/" .root.Values.prometheusRule.runbookUrl) (.name | trimPrefix "Salvor" | kebabcase) }}
{{- end -}}
{{- end -}}
