{{- define "cluster-pool.selector" -}}
app.kubernetes.io/name: cluster-pool
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cluster-pool.labels" -}}
{{ include "cluster-pool.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
