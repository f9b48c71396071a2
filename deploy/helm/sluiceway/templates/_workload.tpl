{{/*
A Deployment. Takes {root, stage, variant, replicas}; stage is one of "sluiceway.components", variant is empty for the main
one of a stage.
All the variants of a stage stand behind its one headless Service.
*/}}
{{- define "sluiceway.workload" -}}
{{- $root := .root -}}
{{- $stage := .stage -}}
{{- $component := $stage.component -}}
{{- $values := $stage.values -}}
{{- $variant := default dict .variant -}}
{{- $track := default "main" $variant.name -}}
{{- $name := printf "%s-%s" (include "sluiceway.fullname" $root) $component -}}
{{- if $variant }}{{ $name = printf "%s-%s" $name $track }}{{ end -}}
{{- $ports := include "sluiceway.ports" $stage.kind | fromJson -}}
{{- $selector := include "sluiceway.selector" (dict "root" $root "component" $component) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels:
    {{- include "sluiceway.labels" (dict "root" $root "component" $component) | nindent 4 }}
    sluiceway.dev/variant: {{ $track }}
spec:
  {{- if not (and $values.autoscaling.enabled (not $variant)) }}
  replicas: {{ .replicas }}
  {{- else }}
  {{- /* An autoscaler's number. Where it was the chart's until now, leaving it out would make it 1; it is kept as it is. */}}
  {{- $live := lookup "apps/v1" "Deployment" $root.Release.Namespace $name }}
  {{- if $live }}
  replicas: {{ int $live.spec.replicas }}
  {{- end }}
  {{- end }}
  # A new pod must have been found by name before an old one goes.
  minReadySeconds: 5
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
      sluiceway.dev/variant: {{ $track }}
  template:
    metadata:
      labels:
        {{- $selector | nindent 8 }}
        sluiceway.dev/variant: {{ $track }}
        {{- with merge dict (default dict $values.podLabels) $root.Values.commonLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ $root.Values.config | sha256sum }}
        {{- if $root.Values.monitoring.annotations }}
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ $ports.operations | quote }}
        prometheus.io/path: /metrics
        {{- end }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- $patches := (include "sluiceway.pod.patches" . | fromJson).patches }}
      {{- include "sluiceway.patched" (dict "text" (include "sluiceway.pod" .) "patches" $patches) | nindent 6 }}
{{- end }}
