{{/* Parts of the broker's pod, and of the test's where they are the same. */}}

{{- define "ackord.env" -}}
{{- $domain := include "ackord.podDomain" . }}
{{- $scheme := include "ackord.scheme" . }}
{{- $plain := ternary "" "true" .Values.tls.enabled }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: ACKORD_DATA
  value: /var/lib/ackord/data
- name: ACKORD_LISTEN
  value: {{ printf "%s:4655" .Values.listenAddress | quote }}
- name: ACKORD_LISTEN_PLAIN
  value: {{ $plain | quote }}
{{- if .Values.adminListener.enabled }}
- name: ACKORD_ADMIN__LISTEN
  value: {{ printf "%s:%d" .Values.listenAddress (int .Values.adminListener.port) | quote }}
- name: ACKORD_ADMIN__LISTEN_PLAIN
  value: {{ $plain | quote }}
{{- end }}
- name: ACKORD_ADMIN_TOKEN_FILE
  value: /etc/ackord/admin/{{ .Values.adminToken.key }}
{{- if .Values.tls.enabled }}
- name: ACKORD_TLS__CERTIFICATE
  value: /etc/ackord/tls/tls.crt
- name: ACKORD_TLS__KEY
  value: /etc/ackord/tls/tls.key
{{- end }}
- name: ACKORD_CLUSTER__LISTEN
  value: {{ printf "%s:4656" .Values.listenAddress | quote }}
- name: ACKORD_CLUSTER__ADVERTISE
  value: $(POD_NAME).{{ $domain }}:4656
- name: ACKORD_CLUSTER__URLS
  {{- /* The inner address stays the first: the commands of the cluster ask the nodes there. */}}
  value: {{ prepend (compact (list .Values.nodeUrl)) (printf "%s://$(POD_NAME).%s:4655" $scheme $domain) | join "," | quote }}
- name: ACKORD_CLUSTER__REPLICATION
  value: {{ .Values.replicationFactor | quote }}
{{- if .Values.zone.enabled }}
- name: ACKORD_CLUSTER__ZONE
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['{{ .Values.zone.label }}']
{{- end }}
- name: ACKORD_CLUSTER__TLS__AUTHORITY
  value: /etc/ackord/peer-tls/ca.crt
- name: ACKORD_CLUSTER__TLS__CERTIFICATE
  value: /etc/ackord/peer-tls/tls.crt
- name: ACKORD_CLUSTER__TLS__KEY
  value: /etc/ackord/peer-tls/tls.key
- name: ACKORD_CLUSTER__TLS__NAME
  value: {{ include "ackord.headless" . }}.{{ .Release.Namespace }}.svc
{{- if .Values.preStop.enabled }}
- name: ACKORD_POD_NAME
  value: $(POD_NAME)
- name: ACKORD_POD_NAMESPACE
  value: {{ .Release.Namespace }}
- name: ACKORD_STATEFULSET
  value: {{ include "ackord.fullname" . }}
{{- end }}
- name: ACKORD_URL
  value: {{ $scheme }}://$(POD_NAME).{{ $domain }}:{{ include "ackord.adminPort" . }}
{{ include "ackord.commandEnv" . }}
{{- end }}

{{- /* What the commands of the binary take besides addresses. */}}
{{- define "ackord.commandEnv" -}}
- name: ACKORD_TOKEN_FILE
  value: /etc/ackord/admin/{{ .Values.adminToken.key }}
{{- if and .Values.tls.enabled .Values.tls.authorityKey }}
- name: ACKORD_CA
  value: /etc/ackord/tls/{{ .Values.tls.authorityKey }}
{{- end }}
{{- end }}

{{- define "ackord.secretVolumes" -}}
- name: admin
  secret:
    secretName: {{ include "ackord.adminSecret" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.adminToken.key }}
        path: {{ .Values.adminToken.key }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "ackord.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- define "ackord.affinity" -}}
{{- $affinity := deepCopy .Values.affinity }}
{{- if and (ne .Values.spread.nodes "none") (not (hasKey $affinity "podAntiAffinity")) }}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "ackord.podSelector" . | fromYaml)) }}
{{- if eq .Values.spread.nodes "hard" }}
{{- $_ := set $affinity "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) }}
{{- else }}
{{- $_ := set $affinity "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term))) }}
{{- end }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ackord.spread" -}}
{{- $all := .Values.topologySpreadConstraints }}
{{- if ne .Values.spread.zones "none" }}
{{- $when := ternary "DoNotSchedule" "ScheduleAnyway" (eq .Values.spread.zones "hard") }}
{{- $selector := dict "matchLabels" (include "ackord.podSelector" . | fromYaml) }}
{{- $all = prepend $all (dict "maxSkew" 1 "topologyKey" .Values.zone.label "whenUnsatisfiable" $when "labelSelector" $selector) }}
{{- end }}
{{- with $all }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
