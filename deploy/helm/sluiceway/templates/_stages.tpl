{{/*
Every stage as {stages: [...]}, the default ones first: {name, component, kind, section, key, values}. `component` is its
name in objects and DNS, which have no underscore; `section` begins its variables; `key` leads to its values.
*/}}
{{- define "sluiceway.stages" -}}
{{- $root := . -}}
{{- $stages := list -}}
{{- range $kind := list "detection" "recognition" -}}
{{- $stages = append $stages (dict "name" $kind "component" $kind "kind" $kind "section" $kind "key" $kind "default" true "values" (get $root.Values $kind)) -}}
{{- end -}}
{{- range $name, $own := .Values.stages -}}
{{- $values := mergeOverwrite (deepCopy (get $root.Values.stageDefaults $own.kind)) (deepCopy (omit $own "kind")) -}}
{{- $values = include "sluiceway.without.nulls" $values | fromJson -}}
{{- /* Two stages cannot be scaled by one metric. */ -}}
{{- if not (dig "autoscaling" "queueTime" "externalMetric" "" $own) -}}
{{- $_ := set $values.autoscaling.queueTime "externalMetric" (printf "sluiceway_%s_queue_seconds" $name) -}}
{{- end -}}
{{- $stages = append $stages (dict "name" $name "component" (replace "_" "-" $name) "kind" $own.kind "section" (printf "stages__%s" $name) "key" (printf "stages.%s" $name) "default" false "values" $values) -}}
{{- end -}}
{{ dict "stages" $stages | toJson }}
{{- end }}

{{/* The orchestrator and every stage, as {components: [...]} with the same keys. */}}
{{- define "sluiceway.components" -}}
{{- $orchestrator := dict "name" "orchestrator" "component" "orchestrator" "kind" "orchestrator" "section" "orchestrator" "key" "orchestrator" "default" true "values" .Values.orchestrator -}}
{{ dict "components" (prepend (include "sluiceway.stages" . | fromJson).stages $orchestrator) | toJson }}
{{- end }}

{{/* A table without the keys that were set to null, which takes a default away as everywhere in helm. */}}
{{- define "sluiceway.without.nulls" -}}
{{- $left := dict -}}
{{- range $key, $value := . -}}
{{- if has $key (list "podPatch" "containerPatch") -}}
{{- /* There null is an instruction. */ -}}
{{- $_ := set $left $key $value -}}
{{- else if kindIs "map" $value -}}
{{- $_ := set $left $key (include "sluiceway.without.nulls" $value | fromJson) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $left $key $value -}}
{{- end -}}
{{- end -}}
{{ $left | toJson }}
{{- end }}

{{/*
Variants of a stage as {variants: [{name, share, pods, of}]}: `pods` of `of`, all that the stage has. Takes the stage's values.
*/}}
{{- define "sluiceway.variants" -}}
{{- $values := . -}}
{{- $main := 100 -}}
{{- range $values.variants }}{{ $main = sub $main (int .share) }}{{ end -}}
{{- $of := int $values.replicas -}}
{{- $found := list -}}
{{- range $values.variants -}}
{{- $pods := max 1 (div (add (mul $values.replicas (int .share)) (div $main 2)) (max 1 $main)) -}}
{{- $of = add $of $pods -}}
{{- $found = append $found (dict "name" .name "share" (int .share) "pods" $pods) -}}
{{- end -}}
{{- range $found }}{{ $_ := set . "of" $of }}{{ end -}}
{{ dict "variants" $found | toJson }}
{{- end }}
