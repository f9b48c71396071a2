{{/* Label matchers of this release. */}}
{{- define "sluiceway.matchers" -}}
namespace="{{ .root.Release.Namespace }}",app_kubernetes_io_instance="{{ .root.Release.Name }}"
{{- with .root.Values.monitoring.prometheus.matchers }},{{ . }}{{ end }}
{{- end }}

{{/*
Seconds that new work waits for a worker of a stage: what stands in line at the orchestrators at the pace of the last
half minute, and how long the oldest has waited in the stage's own queues. Takes {root, stage}.
*/}}
{{- define "sluiceway.query.queue" -}}
{{- $stage := printf "stage=%q,%s" .stage (include "sluiceway.matchers" .) -}}
(sum(sluiceway_stage_backlog_items{ {{- $stage -}} }) or vector(0)) / clamp_min(sum(rate(sluiceway_worker_items_total{ {{- $stage -}} }[30s])) or vector(0), 0.1)
 + (avg(avg_over_time(sluiceway_pool_queue_seconds{ {{- $stage -}} }[30s])) or vector(0))
{{- end }}

{{/* Above 0 while there is work for a stage that may have no pod: a job runs, or items wait. Takes {root, stage}. */}}
{{- define "sluiceway.query.wake" -}}
(sum(sluiceway_stage_backlog_items{stage={{ .stage | quote }},{{ include "sluiceway.matchers" . }}}) or vector(0)) + (sum(sluiceway_jobs_running{ {{- include "sluiceway.matchers" . -}} }) or vector(0))
{{- end }}

{{/* What there is as soon as an orchestrator is there; without it an adapter has no metric. Takes {root, stage}. */}}
{{- define "sluiceway.query.series" -}}
sluiceway_stage_backlog_items{stage={{ .stage | quote }},{{ include "sluiceway.matchers" . }}}
{{- end }}
