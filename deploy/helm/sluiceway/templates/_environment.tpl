{{/* Configuration as environment variables, which win over the file. Takes {section, config}. */}}
{{- define "sluiceway.environment" -}}
{{- $section := .section -}}
{{- range $key, $value := .config }}
- name: {{ printf "SLUICEWAY_%s__%s" $section $key | upper }}
  value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* Who may call whom. Takes {root, component}. */}}
{{- define "sluiceway.security" -}}
{{- $security := .root.Values.security -}}
{{- $tls := $security.tls.secretName -}}
{{- $checked := or $tls $security.stageToken -}}
{{- if eq .component "orchestrator" }}{{ $checked = $security.clients }}{{ end -}}
- name: SLUICEWAY_SECURITY__ALLOW_UNAUTHENTICATED
  value: {{ ternary "false" "true" (not (empty $checked)) | quote }}
{{- if $tls }}
- name: SLUICEWAY_SECURITY__CERTIFICATE
  value: /run/certificates/tls.crt
- name: SLUICEWAY_SECURITY__KEY
  value: /run/certificates/tls.key
- name: SLUICEWAY_SECURITY__CA
  value: /run/certificates/ca.crt
{{- end }}
{{- if eq .component "orchestrator" }}
{{- range $name, $client := $security.clients }}
- name: {{ printf "SLUICEWAY_TOKEN_%s" (upper $name) }}
  valueFrom:
    secretKeyRef:
      name: {{ $client.secretName }}
      key: {{ $client.key }}
- name: {{ printf "SLUICEWAY_SECURITY__CLIENTS__%s__TOKEN_ENV" (upper $name) }}
  value: {{ printf "SLUICEWAY_TOKEN_%s" (upper $name) }}
{{- range $limit := list "rate_per_s" "max_concurrent" }}
{{- if hasKey $client $limit }}
- name: {{ printf "SLUICEWAY_SECURITY__CLIENTS__%s__%s" $name $limit | upper }}
  value: {{ get $client $limit | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with $security.stageToken }}
- name: SLUICEWAY_STAGE_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- if eq $.component "orchestrator" }}
- name: SLUICEWAY_SECURITY__STAGE_TOKEN_ENV
  value: SLUICEWAY_STAGE_TOKEN
{{- else }}
- name: SLUICEWAY_SECURITY__CLIENTS__ORCHESTRATOR__TOKEN_ENV
  value: SLUICEWAY_STAGE_TOKEN
{{- end }}
{{- end }}
{{- end }}

{{/* What only one of the components is told. Takes {root, component, values}. */}}
{{- define "sluiceway.role" -}}
{{- if eq .component "orchestrator" -}}
{{- $fullname := include "sluiceway.fullname" .root -}}
{{- range $stage := list "detection" "recognition" }}
- name: {{ printf "SLUICEWAY_ORCHESTRATOR__%s" (upper $stage) }}
  value: dns:///{{ $fullname }}-{{ $stage }}.{{ $.root.Release.Namespace }}.svc:{{ (include "sluiceway.ports" $stage | fromJson).grpc }}
{{- end }}
{{- else -}}
{{- $prefix := printf "SLUICEWAY_%s__" (upper .component) -}}
- name: {{ $prefix }}DEVICE
  value: {{ .values.device | quote }}
- name: {{ $prefix }}GOAL
  value: {{ .values.goal | quote }}
{{- $limits := default dict .values.resources.limits }}
{{- if ne (toString .values.workers) "auto" }}
- name: {{ $prefix }}WORKERS
  value: {{ .values.workers | quote }}
{{- else if and (eq .values.goal "throughput") (eq .values.device "cpu") (hasKey $limits "cpu") }}
# A worker for each CPU of the limit, parts of one rounded up.
- name: {{ $prefix }}WORKERS
  valueFrom:
    resourceFieldRef:
      containerName: server
      resource: limits.cpu
      divisor: "1"
{{- end }}
{{- end }}
{{- end }}
