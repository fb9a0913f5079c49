{{/* What the chart refuses. Each message says what would happen and what to set instead. */}}

{{- define "ackord.unsafe" -}}
{{- $replicas := int .Values.replicas }}
{{- $factor := int .Values.replicationFactor }}
{{- $tolerated := div (sub $factor 1) 2 | int }}
{{- $budget := .Values.podDisruptionBudget }}
{{- $sessions := default dict (get .Values.config "sessions") }}
{{- $front := default dict (get .Values.config "front") }}
{{- $push := default dict (get .Values.config "push") }}
{{- $stopMs := add (get $sessions "shutdown_deadline_ms" | default 10000 | int64) (get $front "stop_deadline_ms" | default 10000 | int64) (hasKey $push "drain_ms" | ternary (get $push "drain_ms") 2000 | int64) }}
{{- $grace := add (div (add $stopMs 999) 1000) 10 (ternary (int .Values.preStop.seconds) 0 .Values.preStop.enabled) }}
{{- if eq $replicas 2 }}
- replicas is 2: two nodes cannot outvote each other, so the loss of either stops all writes. Set replicas to 1 or 3.
{{- end }}
{{- if lt $replicas $factor }}
- replicas ({{ $replicas }}) is below replicationFactor ({{ $factor }}): partitions would have fewer copies than they shall. Raise replicas or lower replicationFactor.
{{- end }}
{{- if and (gt $replicas 1) (not .Values.persistence.enabled) }}
- persistence.enabled is false with {{ $replicas }} replicas: a pod that is moved comes back without its memory, and a restart of most of them loses everything. Set persistence.enabled to true.
{{- end }}
{{- if and (gt $replicas 1) $budget.enabled (gt (int $budget.maxUnavailable) $tolerated) }}
- podDisruptionBudget.maxUnavailable ({{ $budget.maxUnavailable }}) would let a replica group of {{ $factor }} lose its majority. Set it to {{ $tolerated }} at most.
{{- end }}
{{- if lt (int64 .Values.terminationGracePeriodSeconds) $grace }}
- terminationGracePeriodSeconds ({{ .Values.terminationGracePeriodSeconds }}) is shorter than the drain: a stop may take {{ $grace }} s, and is killed in the middle. Set it to {{ $grace }} at least.
{{- end }}
{{- if and (eq .Values.persistence.retention.whenScaled "Delete") (not .Values.preStop.enabled) }}
- persistence.retention.whenScaled is Delete without preStop.enabled: a scale-in would delete the disk of a node that still votes. Set it to Retain.
{{- end }}
{{- $founders := include "ackord.foundingReplicas" . | int }}
{{- if and (gt $founders $replicas) (not .Values.founded) (not (lookup "apps/v1" "StatefulSet" .Release.Namespace (include "ackord.fullname" .))) }}
- foundingReplicas ({{ $founders }}) is above replicas ({{ $replicas }}): the cluster would wait for pods that are never started. Set it to {{ $replicas }} at most.
{{- end }}
{{- if and (eq $founders 1) (gt $replicas 1) (not .Values.founded) }}
- foundingReplicas is 1 with {{ $replicas }} replicas: the first pod would found a second cluster, should it lose its disk. Set founded to true once it has founded the first; for a new cluster set foundingReplicas to null.
{{- end }}
{{- if eq $founders 2 }}
- foundingReplicas is 2: two nodes cannot outvote each other. Set it to 1 or 3.
{{- end }}
{{- end }}

{{- define "ackord.impossible" -}}
{{- if .Values.tls.enabled }}
{{- if and .Values.tls.existingSecret .Values.tls.certManager.enabled }}
- tls has existingSecret and certManager: give one of them.
{{- end }}
{{- if not (or .Values.tls.existingSecret .Values.tls.certManager.enabled) }}
- tls.enabled needs a certificate: set tls.existingSecret or tls.certManager.enabled.
{{- end }}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) }}
- tls.certManager.enabled needs tls.certManager.issuerRef.name.
{{- end }}
{{- end }}
{{- if and .Values.peerTls.existingSecret .Values.peerTls.certManager.enabled }}
- peerTls has existingSecret and certManager: give one of them.
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
- ingress.enabled needs ingress.hosts.
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
- httpRoute.enabled needs httpRoute.parentRefs.
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
- serviceMonitor and podMonitor are both enabled: everything would be counted twice. Enable one of them.
{{- end }}
{{- if and .Values.adminListener.enabled (has (int .Values.adminListener.port) (list 4655 4656)) }}
- adminListener.port {{ .Values.adminListener.port }} is taken: endpoints use 4655, other pods 4656.
{{- end }}
{{- end }}

{{- define "ackord.validate" -}}
{{- with include "ackord.impossible" . | trim }}
{{- fail (printf "\n\nthese values do not fit together:\n%s\n" .) }}
{{- end }}
{{- if not .Values.allowUnsafe }}
{{- with include "ackord.unsafe" . | trim }}
{{- fail (printf "\n\nthese values are refused as unsafe (allowUnsafe: true takes them):\n%s\n" .) }}
{{- end }}
{{- end }}
{{- end }}
