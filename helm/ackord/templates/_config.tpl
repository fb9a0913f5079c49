{{/* The broker's configuration: YAML to TOML, and who founds the cluster. */}}

{{- /* Numbers of values arrive as floats, which toToml would write with a point and the broker refuse. */}}
{{- define "ackord.tomlValue" -}}
{{- if kindIs "bool" . }}{{ . }}
{{- else if kindIs "string" . }}{{ toJson . }}
{{- else if kindIs "slice" . }}[
{{- range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "ackord.tomlValue" $item }}{{ end }}]
{{- else if kindIs "map" . }}{
{{- $first := true }}
{{- range $key, $value := . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ $key }} = {{ include "ackord.tomlValue" $value }}{{ end }}}
{{- else }}{{ int64 . }}
{{- end }}
{{- end }}

{{- define "ackord.toml" -}}
{{- range $key, $value := . }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ include "ackord.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := . }}
{{- if kindIs "map" $value }}
[{{ $key }}]
{{- range $name, $inner := $value }}
{{- if not (kindIs "invalid" $inner) }}
{{ $name }} = {{ include "ackord.tomlValue" $inner }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ackord.checksum" -}}
{{- include "ackord.toml" .Values.config | sha256sum }}
{{- end }}

{{- define "ackord.foundingAnnotation" -}}ackord/founding-replicas{{- end }}

{{- /* As many as were there at the first install, which the StatefulSet remembers. */}}
{{- define "ackord.foundingReplicas" -}}
{{- $kept := "" }}
{{- $set := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "ackord.fullname" .) }}
{{- if $set }}{{ $kept = dig "metadata" "annotations" (include "ackord.foundingAnnotation" .) "" $set }}{{ end }}
{{- if not (kindIs "invalid" .Values.foundingReplicas) }}{{ int .Values.foundingReplicas }}
{{- else if $kept }}{{ int $kept }}
{{- else }}{{ int .Values.replicas }}
{{- end }}
{{- end }}

{{- /* The file of one pod. Takes a list: the root, the pod's ordinal, how many found the cluster. */}}
{{- define "ackord.podConfig" -}}
{{- $root := first . }}
{{- $ordinal := index . 1 | int }}
{{- $founders := last . | int }}
{{- $initial := list }}
{{- $join := list }}
{{- range $index := until (max $founders 3 | int) }}
{{- $address := printf "%s-%d.%s:4656" (include "ackord.fullname" $root) $index (include "ackord.podDomain" $root) }}
{{- if lt $index $founders }}{{ $initial = append $initial $address }}{{ end }}
{{- if ne $index $ordinal }}{{ $join = append $join $address }}{{ end }}
{{- end }}
{{- $config := deepCopy $root.Values.config }}
{{- $cluster := default dict (get $config "cluster") }}
{{- $_ := set $cluster "join" $join }}
{{- if not (or $root.Values.founded (ge $ordinal $founders)) }}
{{- /* With both it founds a cluster where there is none, and joins the one that is there. */}}
{{- $_ := set $cluster "initial" $initial }}
{{- end }}
{{- $_ := set $config "cluster" $cluster }}
{{- include "ackord.toml" $config | trim }}
{{- end }}
