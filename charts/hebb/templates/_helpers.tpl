{{- define "hebb.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}-operator
{{- end }}
{{- define "hebb.image" -}}
{{- with .Values.image.digest -}}
{{ $.Values.image.repository }}@{{ . }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}
{{- define "hebb.selector" -}}
app.kubernetes.io/name: hebb-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "hebb.labels" -}}
{{ include "hebb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- /* What only the API server is told. Made once for a render, and kept by an upgrade. */}}
{{- define "hebb.webhookToken" -}}
{{- if not .Values.webhook.token }}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (printf "%s-webhook-token" (include "hebb.name" .))).data | default dict }}
{{- $_ := set .Values.webhook "token" (index $kept "token" | default (randAlphaNum 40 | lower | b64enc) | b64dec) }}
{{- end }}
{{- .Values.webhook.token }}
{{- end }}
