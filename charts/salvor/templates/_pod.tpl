{{/* What a container may do at most: (dict "user" 0 "over" .Values.x.securityContext). */}}
{{- define "salvor.securityContext" -}}
{{- $context := dict
  "allowPrivilegeEscalation" false
  "readOnlyRootFilesystem" true
  "privileged" false
  "runAsNonRoot" (ne (int .user) 0)
  "runAsUser" (int .user)
  "runAsGroup" (int .user)
  "capabilities" (dict "drop" (list "ALL"))
  "seccompProfile" (dict "type" "RuntimeDefault")
-}}
{{- mergeOverwrite $context (deepCopy (default dict .over)) | toYaml -}}
{{- end -}}

{{/* What every pod of the release has alike. */}}
{{- define "salvor.podDefaults" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
# Variables of a Service named salvor would look like settings.
enableServiceLinks: false
{{- end -}}

{{/* On which nodes the node pods are. */}}
{{- define "salvor.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Program and image of a container of ours. */}}
{{- define "salvor.program" -}}
image: {{ include "salvor.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [salvor]
{{- end -}}

{{/* Where settings come from in every container. */}}
{{- define "salvor.baseEnv" -}}
- name: SALVOR_CONFIG
  value: /etc/salvor/config/config.yaml
- name: SALVOR_NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
# For salvor doctor: whether the node could start this again.
- name: SALVOR_NODE_IMAGE
  value: {{ include "salvor.image" . }}
- name: NODE_ADDRESS
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
{{- if include "salvor.adminOnNode" . }}
# Each container must know both: the agent asks the registry how pulls went, `salvor doctor` asks both.
- name: SALVOR_REGISTRY_ADMIN
  value: '[$(NODE_ADDRESS)]:{{ include "salvor.registryAdminPort" . }}'
- name: SALVOR_AGENT_ADMIN
  value: '[$(NODE_ADDRESS)]:{{ include "salvor.agentAdminPort" . }}'
{{- end }}
{{- end -}}

{{/* A probe of an admin page: (dict "root" $ "section" "agent" "port" "…" "path" "/healthz" "timing" .Values.x). */}}
{{- define "salvor.probe" -}}
httpGet:
  path: {{ .path }}
  port: {{ .port }}
  {{- if not (include "salvor.adminOnNode" .root) }}
  # The kubelet is on the node's network, as this pod is.
  host: {{ include "salvor.adminHost" . | quote }}
  {{- end }}
{{ toYaml .timing }}
{{- end -}}

{{/* Where an admin port on loopback is asked: (dict "root" $ "section" "agent"). */}}
{{- define "salvor.adminHost" -}}
{{- $host := dig .section "admin" "" .root.Values.config | regexFind "^.*:" | trimSuffix ":" | trimPrefix "[" | trimSuffix "]" -}}
{{- ternary "127.0.0.1" $host (has $host (list "" "0.0.0.0" "::")) -}}
{{- end -}}

{{- define "salvor.probes" -}}
startupProbe:
  {{- include "salvor.probe" (dict "root" .root "section" .section "port" .port "path" "/healthz" "timing" .root.Values.startupProbe) | nindent 2 }}
livenessProbe:
  {{- include "salvor.probe" (dict "root" .root "section" .section "port" .port "path" "/healthz" "timing" .root.Values.livenessProbe) | nindent 2 }}
readinessProbe:
  {{- include "salvor.probe" (dict "root" .root "section" .section "port" .port "path" "/readyz" "timing" .root.Values.readinessProbe) | nindent 2 }}
{{- end -}}

{{/* What a client of the API server needs, for the containers that are one. */}}
{{- define "salvor.tokenVolume" -}}
- name: api-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3607 }
      - configMap:
          name: kube-root-ca.crt
          items: [{ key: ca.crt, path: ca.crt }]
      - downwardAPI:
          items: [{ path: namespace, fieldRef: { apiVersion: v1, fieldPath: metadata.namespace } }]
{{- end -}}

{{- define "salvor.tokenMount" -}}
- name: api-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end -}}
