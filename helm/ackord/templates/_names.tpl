{{/* Names, labels, addresses: what several objects must agree on. */}}

{{- define "ackord.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* 40 characters leave room for suffixes in names and labels of 63. */}}
{{- define "ackord.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $whole .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "ackord.selector" -}}
app.kubernetes.io/name: {{ include "ackord.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ackord.podSelector" -}}
{{ include "ackord.selector" . }}
app.kubernetes.io/component: broker
{{- end }}

{{- define "ackord.labels" -}}
{{ include "ackord.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Takes a list: the root, then dictionaries of annotations. */}}
{{- define "ackord.annotations" -}}
{{- $all := deepCopy (first .).Values.commonAnnotations }}
{{- range rest . }}{{ $all = mergeOverwrite $all (deepCopy (default dict .)) }}{{ end }}
{{- with $all }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ackord.headless" -}}{{ include "ackord.fullname" . }}-peers{{- end }}

{{- /* The domain of the pods: with it and their name they are reached. */}}
{{- define "ackord.podDomain" -}}
{{- $domain := printf "%s.%s.svc" (include "ackord.headless" .) .Release.Namespace }}
{{- with .Values.clusterDomain }}{{ $domain = printf "%s.%s" $domain . }}{{ end }}
{{- $domain }}
{{- end }}

{{- define "ackord.serviceDomain" -}}
{{- $domain := printf "%s.%s.svc" (include "ackord.fullname" .) .Release.Namespace }}
{{- with .Values.clusterDomain }}{{ $domain = printf "%s.%s" $domain . }}{{ end }}
{{- $domain }}
{{- end }}

{{- define "ackord.scheme" -}}{{ ternary "https" "http" .Values.tls.enabled }}{{- end }}

{{- define "ackord.adminPort" -}}
{{- ternary .Values.adminListener.port 4655 .Values.adminListener.enabled | int }}
{{- end }}

{{- define "ackord.adminPortName" -}}{{ ternary "admin" "http" .Values.adminListener.enabled }}{{- end }}

{{- define "ackord.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry }}
{{- $name := .Values.image.repository }}
{{- with $registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end }}
{{- if .Values.image.digest }}{{ $name }}@{{ .Values.image.digest }}
{{- else }}{{ $name }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "ackord.pullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.image.pullSecrets | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "ackord.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "ackord.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "ackord.adminSecret" -}}
{{- default (printf "%s-admin" (include "ackord.fullname" .)) .Values.adminToken.existingSecret }}
{{- end }}

{{- define "ackord.tlsSecret" -}}
{{- default (printf "%s-tls" (include "ackord.fullname" .)) .Values.tls.existingSecret }}
{{- end }}

{{- define "ackord.peerSecret" -}}
{{- default (printf "%s-peer-tls" (include "ackord.fullname" .)) .Values.peerTls.existingSecret }}
{{- end }}

{{- define "ackord.peerTlsGenerated" -}}
{{- if not (or .Values.peerTls.existingSecret .Values.peerTls.certManager.enabled) }}true{{ end }}
{{- end }}

{{- /* Names in the pods' certificates: theirs, that of all, and those of the services. */}}
{{- define "ackord.dnsNames" -}}
{{- $full := include "ackord.fullname" . }}
{{- $names := list }}
{{- range $service := list $full (printf "%s-admin" $full) (include "ackord.headless" .) }}
{{- $names = concat $names (list (printf "%s.%s.svc" $service $.Release.Namespace)) }}
{{- with $.Values.clusterDomain }}{{ $names = concat $names (list (printf "%s.%s.svc.%s" $service $.Release.Namespace .)) }}{{ end }}
{{- end }}
{{- $names = concat $names (list (printf "*.%s.%s.svc" (include "ackord.headless" .) .Release.Namespace)) }}
{{- with .Values.clusterDomain }}{{ $names = concat $names (list (printf "*.%s" (include "ackord.podDomain" $))) }}{{ end }}
{{- toYaml $names }}
{{- end }}
