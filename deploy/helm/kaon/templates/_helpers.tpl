{{- define "kaon.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains "kaon" .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-kaon" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kaon.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- /* kaon.selector: what an object's pods are told apart by. Takes a list of the context and the component. */}}
{{- define "kaon.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: kaon
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* kaon.labels of an object: as kaon.selector, and those that change. */}}
{{- define "kaon.labels" -}}
{{- $context := index . 0 -}}
{{ include "kaon.selector" . }}
app.kubernetes.io/part-of: kaon
app.kubernetes.io/version: {{ $context.Values.image.tag | default $context.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
{{- with $context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* kaon.wanted: "true" if a value that may be auto is true, or auto and the cluster has the kind. Takes context, value and kind. */}}
{{- define "kaon.wanted" -}}
{{- $context := index . 0 }}{{ $value := index . 1 }}
{{- if or (eq (toString $value) "true") (and (eq (toString $value) "auto") ($context.Capabilities.APIVersions.Has (index . 2))) -}}
true
{{- end }}
{{- end }}

{{- define "kaon.webConfig" -}}
{{- if or .Values.web.tlsSecretName .Values.web.basicAuthUsers -}}
true
{{- end }}
{{- end }}

{{- define "kaon.scheme" -}}
{{ ternary "https" "http" (not (empty .Values.web.tlsSecretName)) }}
{{- end }}

{{- /* kaon.config is kaon.yaml. */}}
{{- define "kaon.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if include "kaon.webConfig" . }}
{{- $config = mustMergeOverwrite $config (dict "web" (dict "configFile" "/etc/kaon-web/web.yaml")) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- /* kaon.probe takes the context and the path. */}}
{{- define "kaon.probe" -}}
{{- $context := index . 0 -}}
{{- if $context.Values.web.basicAuthUsers -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: metrics
  scheme: {{ include "kaon.scheme" $context | upper }}
{{- end }}
{{- end }}

{{- /* kaon.histograms says which histograms are scraped. Takes the context and the kind's plural. */}}
{{- define "kaon.histograms" -}}
{{- $context := index . 0 }}
{{- $monitor := $context.Values.podMonitor }}
{{- $native := eq (toString $monitor.nativeHistograms) "true" }}
{{- if eq (toString $monitor.nativeHistograms) "auto" }}
{{- /* An operator that does not know the field makes the API server refuse it. */}}
{{- range (dig "spec" "versions" list (lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" (printf "%s.monitoring.coreos.com" (index . 1)))) }}
{{- if hasKey (dig "schema" "openAPIV3Schema" "properties" "spec" "properties" dict .) "scrapeNativeHistograms" }}
{{- $native = true }}
{{- end }}
{{- end }}
{{- end }}
{{- if $native -}}
scrapeNativeHistograms: true
{{ end -}}
scrapeClassicHistograms: {{ $monitor.classicHistograms }}
{{- end }}

{{- /* kaon.endpoint is how agents are scraped, for PodMonitor and ServiceMonitor. */}}
{{- define "kaon.endpoint" -}}
port: metrics
path: /metrics
scheme: {{ include "kaon.scheme" . }}
{{- with .Values.podMonitor.interval }}
interval: {{ . }}
{{- end }}
{{- with .Values.podMonitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- if .Values.web.tlsSecretName }}
tlsConfig:
  {{- toYaml (.Values.podMonitor.tlsConfig | default (dict "insecureSkipVerify" true)) | nindent 2 }}
{{- end }}
{{- with .Values.podMonitor.basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
# pod, namespace and container are those of the pod that was measured.
honorLabels: true
{{ include "kaon.relabelings" . }}
{{- with .Values.podMonitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "kaon.relabelings" -}}
relabelings:
  # What is about no pod must not look as if it were about the agent's.
  - action: labeldrop
    regex: namespace|pod|container|service|endpoint
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: node
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: instance
  {{- with .Values.podMonitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
