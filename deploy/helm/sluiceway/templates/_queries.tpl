{{/* Label matchers of this release. */}}
{{- define "sluiceway.matchers" -}}
namespace="{{ .root.Release.Namespace }}",app_kubernetes_io_instance="{{ .root.Release.Name }}"
{{- with .root.Values.monitoring.prometheus.matchers }},{{ . }}{{ end }}
{{- end }}

{{/* Seconds that work waits for a stage, smoothed by the orchestrator where it waits the longest. Takes {root, stage}. */}}
{{- define "sluiceway.query.queue" -}}
max({{ include "sluiceway.query.series" . }}) or vector(0)
{{- end }}

{{/* What is there as soon as an orchestrator is. Takes {root, stage}. */}}
{{- define "sluiceway.query.series" -}}
sluiceway_stage_pressure_seconds{stage={{ .stage | quote }},{{ include "sluiceway.matchers" . }}}
{{- end }}

{{/* Above 0 while there is work for a stage that may have no pod: a job runs, or items wait. Takes {root, stage}. */}}
{{- define "sluiceway.query.wake" -}}
(sum(sluiceway_stage_backlog_items{stage={{ .stage | quote }},{{ include "sluiceway.matchers" . }}}) or vector(0)) + (sum(sluiceway_jobs_running{ {{- include "sluiceway.matchers" . -}} }) or vector(0))
{{- end }}
