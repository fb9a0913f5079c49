{{/* How metrics are fetched. Takes a list: the root, the values of the monitor. */}}
{{- define "ackord.scrape" -}}
{{- $root := first . }}
{{- $values := last . -}}
path: /metrics
scheme: {{ include "ackord.scheme" $root }}
interval: {{ $values.interval }}
scrapeTimeout: {{ $values.scrapeTimeout }}
{{- if $root.Values.tls.enabled }}
tlsConfig:
  serverName: {{ include "ackord.headless" $root }}.{{ $root.Release.Namespace }}.svc
  {{- with $root.Values.tls.authorityKey }}
  ca:
    secret:
      name: {{ include "ackord.tlsSecret" $root }}
      key: {{ . }}
  {{- end }}
{{- end }}
{{- if $values.sites }}
authorization:
  credentials:
    name: {{ include "ackord.adminSecret" $root }}
    key: {{ $root.Values.adminToken.key }}
{{- end }}
# A pod has another address after each restart; its name stays.
relabelings:
  - sourceLabels: [__meta_kubernetes_pod_name]
    targetLabel: instance
{{- with $values.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
