{{/* One step of the test. Takes a list: the root, the step, the addresses of all pods. */}}
{{- define "ackord.testStep" -}}
{{- $root := index . 0 }}
{{- $step := index . 1 -}}
- name: {{ $step.name }}
  image: {{ include "ackord.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: [ackord]
  args:
    {{- toYaml $step.args | nindent 4 }}
  env:
    - name: ACKORD_URL
      value: {{ join "," (index . 2) }}
    {{- include "ackord.commandEnv" $root | nindent 4 }}
  resources:
    requests:
      cpu: 50m
      memory: 64Mi
    limits:
      memory: 256Mi
  securityContext:
    {{- toYaml $root.Values.securityContext | nindent 4 }}
  volumeMounts:
    - name: admin
      mountPath: /etc/ackord/admin
      readOnly: true
    {{- if $root.Values.tls.enabled }}
    - name: tls
      mountPath: /etc/ackord/tls
      readOnly: true
    {{- end }}
    - name: tmp
      mountPath: /tmp
{{- end }}
