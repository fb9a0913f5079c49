{{/* Parts of services. */}}

{{- define "ackord.families" -}}
{{- with .Values.service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What only services have that are reached from outside. Takes a list: the values, the type. */}}
{{- define "ackord.exposure" -}}
{{- $values := first . }}
{{- $type := last . }}
{{- if ne $type "ClusterIP" }}
{{- with $values.externalTrafficPolicy }}
externalTrafficPolicy: {{ . }}
{{- end }}
{{- end }}
{{- if eq $type "LoadBalancer" }}
{{- with $values.loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with $values.loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
