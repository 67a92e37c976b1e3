{{/* What several templates say. Names are fixed: there is one Postern in a cluster, and roles, policies and the plugin know it by them. */}}

{{- define "postern.labels" -}}
app.kubernetes.io/part-of: postern
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Which namespaces are served, as the operator is told. */}}
{{- define "postern.namespaces" -}}
{{- if and .Values.namespaces .Values.onlyEnabled }}{{ fail "namespaces has to be empty where onlyEnabled is true" }}{{ end -}}
{{- if .Values.onlyEnabled }}enabled{{ else }}{{ join "," .Values.namespaces | default "all" }}{{ end -}}
{{- end }}

{{/* A list: all values, then an image. */}}
{{- define "postern.image" -}}
{{- $all := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := $image.repository -}}
{{- with $all.Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (default $all.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end }}

{{/* Where pods may run, what they are called besides. */}}
{{- define "postern.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "postern.restricted" -}}
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
