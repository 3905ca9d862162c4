{{/* Annotations of a hook, none without events: (dict "events" "pre-install" "weight" "0"). */}}
{{- define "salvor.hook" -}}
{{- if .events -}}
annotations:
  helm.sh/hook: {{ .events }}
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
{{- end -}}

{{/* spec of a Job with one container that talks to the API server and ends. */}}
{{- define "salvor.apiJob" -}}
backoffLimit: {{ .backoffLimit }}
activeDeadlineSeconds: {{ .deadlineSeconds }}
template:
  metadata:
    labels:
      {{- include "salvor.labels" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .name }}
  spec:
    {{- include "salvor.podDefaults" .root | nindent 4 }}
    {{- with .root.Values.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .root.Values.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    serviceAccountName: {{ .account }}
    restartPolicy: Never
    securityContext:
      fsGroup: 65532
      seccompProfile: { type: RuntimeDefault }
    containers:
      - name: {{ .name }}
        {{- include "salvor.program" .root | nindent 8 }}
        args:
          {{- .arguments | nindent 10 }}
        resources:
          {{- toYaml .resources | nindent 10 }}
        securityContext:
          {{- include "salvor.securityContext" (dict "user" 65532) | nindent 10 }}
        volumeMounts:
          {{- include "salvor.tokenMount" .root | nindent 10 }}
    volumes:
      {{- include "salvor.tokenVolume" .root | nindent 6 }}
{{- end -}}

{{/* spec of a Job that issues certificates: (dict "root" $ "account" "…"). */}}
{{- define "salvor.certsJob" -}}
{{- $arguments := include "salvor.certsIssueArguments" .root -}}
{{- include "salvor.apiJob" (dict "root" .root "account" .account "name" "certs" "arguments" $arguments "resources" .root.Values.tls.issue.resources "backoffLimit" 4 "deadlineSeconds" 300) -}}
{{- end -}}
