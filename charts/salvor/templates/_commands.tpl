{{/* Arguments of `salvor`, in one place. */}}

{{- define "salvor.hostsWriteArguments" -}}
{{- $paths := include "salvor.containerd" . | fromYaml -}}
- hosts
- write
- --wait={{ .Values.hosts.waitTimeout }}
- --config-path={{ $paths.certsDirectory }}
# The registry reads what is found of CA files, keys and headers; it must be its own.
- --owner=65532:65532
{{- with .Values.hosts.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "salvor.hostsRestoreArguments" -}}
- hosts
- restore
{{- end -}}

{{/* What `salvor hosts` needs to keep owners and modes of files as they were. */}}
{{- define "salvor.hostsSecurityContext" -}}
{{- $capabilities := dict "drop" (list "ALL") "add" (list "CHOWN" "DAC_OVERRIDE" "FOWNER") -}}
{{- $over := mergeOverwrite (dict "capabilities" $capabilities) (deepCopy .Values.hosts.securityContext) -}}
{{- include "salvor.securityContext" (dict "user" 0 "over" $over) -}}
{{- end -}}

{{- define "salvor.certsIssueArguments" -}}
- certs
- issue
- --namespace={{ include "salvor.namespace" . }}
- --agent-secret={{ include "salvor.identitySecret" (dict "root" . "role" "agent") }}
- --registry-secret={{ include "salvor.identitySecret" (dict "root" . "role" "registry") }}
- --authority-secret={{ include "salvor.fullname" . }}-ca
{{- if .Values.bootstrap.enabled }}
- --bootstrap-secret={{ include "salvor.bootstrapSecret" . }}
{{- range .Values.bootstrap.addresses }}
- --address={{ . }}
{{- end }}
{{- else }}
# A replacement of the authority need not wait for what was issued while it was enabled.
- --forget=Secret {{ include "salvor.bootstrapSecret" . }}
{{- end }}
{{- with .Values.tls.issue.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets that nobody but the hooks knows of, with commas. */}}
{{- define "salvor.issuedSecrets" -}}
{{- if and .Values.uninstall.removeState (eq (include "salvor.identitySource" .) "issue") -}}
{{- $agent := include "salvor.identitySecret" (dict "root" . "role" "agent") -}}
{{- $registry := include "salvor.identitySecret" (dict "root" . "role" "registry") -}}
{{- $secrets := list $agent $registry (printf "%s-ca" (include "salvor.fullname" .)) -}}
{{- if .Values.bootstrap.enabled -}}
{{- $secrets = append $secrets (include "salvor.bootstrapSecret" .) -}}
{{- end -}}
{{- join ", " $secrets -}}
{{- end -}}
{{- end -}}

{{- define "salvor.uninstallAwaitArguments" -}}
- uninstall
- await
- --namespace={{ include "salvor.namespace" . }}
- --daemon-set={{ include "salvor.fullname" . }}-uninstall
- --timeout={{ .Values.uninstall.timeout }}
{{- range splitList ", " (include "salvor.issuedSecrets" .) }}
{{- if . }}
- --secret={{ . }}
{{- end }}
{{- end }}
{{- end -}}
