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

{{/* What only one of the components is told. Takes {root, stage}. */}}
{{- define "sluiceway.role" -}}
{{- $stage := .stage -}}
{{- $values := $stage.values -}}
{{- if eq $stage.kind "orchestrator" -}}
{{- $fullname := include "sluiceway.fullname" .root -}}
{{- range $stage := (include "sluiceway.stages" .root | fromJson).stages }}
{{- if $stage.default }}
- name: {{ printf "SLUICEWAY_ORCHESTRATOR__%s" (upper $stage.name) }}
{{- else }}
- name: {{ printf "SLUICEWAY_%s__KIND" $stage.section | upper }}
  value: {{ $stage.kind }}
- name: {{ printf "SLUICEWAY_%s__TARGET" $stage.section | upper }}
{{- end }}
  value: dns:///{{ $fullname }}-{{ $stage.component }}.{{ $.root.Release.Namespace }}.svc:{{ (include "sluiceway.ports" $stage.kind | fromJson).grpc }}
{{- end }}
{{- if include "sluiceway.scaler" .root }}
{{- $port := (include "sluiceway.ports" "orchestrator" | fromJson).scaler }}
- name: SLUICEWAY_ORCHESTRATOR__SCALER__ENABLED
  value: "true"
- name: SLUICEWAY_ORCHESTRATOR__SCALER__HOST
  value: 0.0.0.0
- name: SLUICEWAY_ORCHESTRATOR__SCALER__PORT
  value: {{ $port | quote }}
- name: SLUICEWAY_ORCHESTRATOR__SCALER__PEERS
  value: dns:///{{ $fullname }}-orchestrator-headless.{{ .root.Release.Namespace }}.svc:{{ $port }}
{{- end }}
{{- with $values.http }}
- name: SLUICEWAY_ORCHESTRATOR__HTTP__ENABLED
  value: {{ .enabled | quote }}
{{- if .enabled }}
- name: SLUICEWAY_ORCHESTRATOR__HTTP__HOST
  value: 0.0.0.0
- name: SLUICEWAY_ORCHESTRATOR__HTTP__PORT
  value: {{ (include "sluiceway.ports" "orchestrator" | fromJson).http | quote }}
- name: SLUICEWAY_ORCHESTRATOR__HTTP__ALLOW_HOSTS
  value: {{ include "sluiceway.http.hosts" $.root | quote }}
- name: SLUICEWAY_ORCHESTRATOR__HTTP__ALLOW_ORIGINS
  value: {{ .allow_origins | toJson | quote }}
- name: SLUICEWAY_ORCHESTRATOR__HTTP__PAGE
  value: {{ .page | quote }}
{{- end }}
{{- end }}
{{- else -}}
{{- $prefix := printf "SLUICEWAY_%s__" (upper $stage.section) -}}
{{- if not $stage.default -}}
- name: {{ $prefix }}KIND
  value: {{ $stage.kind }}
{{ end -}}
- name: {{ $prefix }}DEVICE
  value: {{ $values.device | quote }}
- name: {{ $prefix }}GOAL
  value: {{ $values.goal | quote }}
{{- if ne (toString $values.workers) "auto" }}
- name: {{ $prefix }}WORKERS
  value: {{ $values.workers | quote }}
{{- end }}
{{- $resources := $values.resources }}
{{- $has := dict "limits" (hasKey (default dict $resources.limits) "cpu") "requests" (hasKey (default dict $resources.requests) "cpu") }}
{{- if or $has.limits $has.requests }}
# What the server plans its workers and threads for: the limit, or where there is none the share that is promised, and
# not all the cores of the node. Parts of a CPU are rounded up; the server sees the exact quota itself.
- name: {{ $prefix }}CPUS
  valueFrom:
    resourceFieldRef:
      containerName: server
      resource: {{ ternary "limits" "requests" $has.limits }}.cpu
      divisor: "1"
{{- end }}
{{- end }}
{{- end }}
