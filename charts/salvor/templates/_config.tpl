{{/* Where the distribution has containerd's things; what is given in containerd is stronger. */}}
{{- define "salvor.containerd" -}}
{{- $known := fromYaml (.Files.Get "files/distributions.yaml") -}}
{{- $paths := index $known .Values.distribution | deepCopy -}}
{{- range $key, $value := .Values.containerd -}}
{{- if $value -}}{{- $_ := set $paths $key $value -}}{{- end -}}
{{- end -}}
{{- $store := dig "agent" "store" "containerd" dict .Values.config -}}
{{- if $store.socket -}}{{- $_ := set $paths "socket" $store.socket -}}{{- end -}}
{{- if $store.namespace -}}{{- $_ := set $paths "namespace" $store.namespace -}}{{- end -}}
{{- if $store.contentPath -}}{{- $_ := set $paths "contentDirectory" $store.contentPath -}}{{- end -}}
{{- toYaml $paths -}}
{{- end -}}

{{/*
The configuration file: what follows from other values, with .Values.config over it. What differs
from node to node is in the environment, which is stronger than the file.
*/}}
{{- define "salvor.config" -}}
{{- $paths := include "salvor.containerd" . | fromYaml -}}
{{- $store := dict "socket" $paths.socket "namespace" $paths.namespace "contentPath" $paths.contentDirectory -}}
{{- $service := dict "namespace" (include "salvor.namespace" .) "service" (printf "%s-agents" (include "salvor.fullname" .)) -}}
{{- $members := dict "source" "kubernetes" "kubernetes" $service -}}
{{- $computed := dict
  "node" (dict "stateDirectory" "/var/lib/salvor")
  "registry" (dict "hostsFile" "/run/salvor-hosts/hosts.json")
  "agent" (dict "members" $members "store" (dict "containerd" $store))
  "tls" (dict "ca" "/etc/salvor/tls/ca.crt" "certificate" "/etc/salvor/tls/tls.crt" "key" "/etc/salvor/tls/tls.key")
-}}
{{- if and .Values.hosts.enabled (ne (int .Values.hosts.sharePercent) 100) -}}
{{- /* For hosts, which wires, and agents, which say what is not wired. */ -}}
{{- $_ := set $computed.node "wiredPercent" (int .Values.hosts.sharePercent) -}}
{{- end -}}
{{- if .Values.rollout.pauseDuringOutage -}}
{{- $known := keys (dig "registry" "upstreams" dict .Values.config) | sortAlpha -}}
{{- $_ := set $computed.registry "readyAfter" (prepend $known (include "salvor.imageRegistry" .) | uniq) -}}
{{- end -}}
{{- if .Values.bootstrap.enabled -}}
{{- $own := include "salvor.imageRepository" . -}}
{{- $_ := set $computed.agent "bootstrap" (dict "repositories" (prepend .Values.bootstrap.repositories $own | uniq)) -}}
{{- end -}}
{{- mergeOverwrite $computed (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/*
What a change of the configuration must restart pods for: all but the settings that running
processes take over.
*/}}
{{- define "salvor.configChecksum" -}}
{{- $config := include "salvor.config" . | fromYaml -}}
{{- range (fromYaml (.Files.Get "files/reloadable.yaml")).keys -}}
{{- $parts := splitList "." . -}}
{{- $section := $config -}}
{{- range initial $parts -}}
{{- $section = get $section . | default dict -}}
{{- end -}}
{{- $_ := unset $section (last $parts) -}}
{{- end -}}
{{- toYaml $config | sha256sum -}}
{{- end -}}

{{/* A port of the configuration: (dict "root" $ "section" "agent" "key" "listen" "default" 7490). */}}
{{- define "salvor.port" -}}
{{- $address := dig .section .key (printf ":%d" (int .default)) .root.Values.config -}}
{{- if not $address -}}
{{- fail (printf "config.%s.%s must not be empty: probes and nodes ask there" .section .key) -}}
{{- end -}}
{{- regexFind "[0-9]+$" $address -}}
{{- end -}}

{{- define "salvor.registryPort" -}}
{{- include "salvor.port" (dict "root" . "section" "registry" "key" "listen" "default" 7480) -}}
{{- end -}}
{{- define "salvor.registryAdminPort" -}}
{{- include "salvor.port" (dict "root" . "section" "registry" "key" "admin" "default" 7481) -}}
{{- end -}}
{{- define "salvor.agentPort" -}}
{{- include "salvor.port" (dict "root" . "section" "agent" "key" "listen" "default" 7490) -}}
{{- end -}}
{{- define "salvor.agentAdminPort" -}}
{{- include "salvor.port" (dict "root" . "section" "agent" "key" "admin" "default" 7491) -}}
{{- end -}}

{{/* "true" where /metrics is on the node's address; empty on loopback. */}}
{{- define "salvor.adminOnNode" -}}
{{- $listen := .Values.metrics.listen -}}
{{- if or (eq $listen "node") (and (eq $listen "auto") (or .Values.podMonitor.enabled .Values.serviceMonitor.enabled)) -}}
true
{{- end -}}
{{- end -}}
