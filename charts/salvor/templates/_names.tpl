{{/* Name of the chart in labels. */}}
{{- define "salvor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
Name of the release's objects; short enough for the endings that are put to it: a CronJob may have 52
characters, "-certs-renewal" among them. Services take neither dots nor a digit at the beginning.
*/}}
{{- define "salvor.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if regexMatch "^[0-9]" $full -}}{{- $full = printf "salvor-%s" $full -}}{{- end -}}
{{- $full | replace "." "-" | trunc 38 | trimSuffix "-" -}}
{{- end -}}

{{- define "salvor.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* What tells this release's pods from others; never changes. */}}
{{- define "salvor.selectorLabels" -}}
app.kubernetes.io/name: {{ include "salvor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "salvor.labels" -}}
{{ include "salvor.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: (dict "root" $ "name" "…" "component" "…"). */}}
{{- define "salvor.metadata" -}}
name: {{ .name }}
namespace: {{ include "salvor.namespace" .root }}
labels:
  {{- include "salvor.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "salvor.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "salvor.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "salvor.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The registry that the image comes from, as image names mean it. */}}
{{- define "salvor.imageRegistry" -}}
{{- $parts := splitList "/" .Values.image.repository -}}
{{- $first := first $parts -}}
{{- if and (gt (len $parts) 1) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
{{- $first -}}
{{- else -}}
docker.io
{{- end -}}
{{- end -}}

{{/* The Secret with the identity of a role: (dict "root" $ "role" "agent"). */}}
{{- define "salvor.identitySecret" -}}
{{- $given := index .root.Values.tls.existingSecrets .role -}}
{{- default (printf "%s-%s-tls" (include "salvor.fullname" .root) .role) $given -}}
{{- end -}}

{{/* The Secret with what containerd shows on nodes that Salvor has not come to yet. */}}
{{- define "salvor.bootstrapSecret" -}}
{{- default (printf "%s-bootstrap-tls" (include "salvor.fullname" .)) .Values.bootstrap.secretName -}}
{{- end -}}

{{/* The repository of the image in full, as containerd has it. */}}
{{- define "salvor.imageRepository" -}}
{{- $registry := include "salvor.imageRegistry" . -}}
{{- $path := trimPrefix (printf "%s/" $registry) .Values.image.repository -}}
{{- if and (eq $registry "docker.io") (not (contains "/" $path)) -}}
{{- $path = printf "library/%s" $path -}}
{{- end -}}
{{- printf "%s/%s" $registry $path -}}
{{- end -}}

{{/* Where certificates come from: existing, cert-manager or issue. */}}
{{- define "salvor.identitySource" -}}
{{- $tls := .Values.tls -}}
{{- if and $tls.existingSecrets.agent $tls.existingSecrets.registry -}}
existing
{{- else if or $tls.existingSecrets.agent $tls.existingSecrets.registry -}}
{{- fail "tls.existingSecrets needs both agent and registry" -}}
{{- else if $tls.certManager.enabled -}}
cert-manager
{{- else if $tls.issue.enabled -}}
issue
{{- else -}}
{{- fail "tls: nodes need certificates; enable tls.issue or tls.certManager, or give tls.existingSecrets" -}}
{{- end -}}
{{- end -}}

{{/* "true" for an IP address, nothing for a name. */}}
{{- define "salvor.isAddress" -}}
{{- if or (regexMatch "^[0-9.]+$" .) (contains ":" .) -}}
true
{{- end -}}
{{- end -}}
