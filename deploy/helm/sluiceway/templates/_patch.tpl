{{/*
YAML text of a table with tables merged into it, one after the other; as it is written where there is nothing to merge.
Takes {text, patches}.
*/}}
{{- define "sluiceway.patched" -}}
{{- $patches := compact .patches -}}
{{- if $patches -}}
{{- $whole := fromYaml .text -}}
{{- range $patch := $patches }}{{ $whole = include "sluiceway.merged" (dict "base" $whole "patch" $patch) | fromJson }}{{ end -}}
{{ toYaml $whole }}
{{- else -}}
{{ .text }}
{{- end -}}
{{- end }}

{{/*
Two tables as one, in JSON. Tables are merged key by key and null takes a key away. Lists of things with names are merged
by name, mounts by where they are mounted; every other list is replaced. Takes {base, patch}.
*/}}
{{- define "sluiceway.merged" -}}
{{- $result := deepCopy .base -}}
{{- range $key, $value := .patch -}}
{{- $present := get $result $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $result $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" $present) -}}
{{- $_ := set $result $key (include "sluiceway.merged" (dict "base" $present "patch" $value) | fromJson) -}}
{{- else if and (kindIs "slice" $value) (kindIs "slice" $present) -}}
{{- $_ := set $result $key (include "sluiceway.merged.lists" (dict "base" $present "patch" $value "by" (ternary "mountPath" "name" (eq $key "volumeMounts"))) | fromJson).items -}}
{{- else -}}
{{- $_ := set $result $key $value -}}
{{- end -}}
{{- end -}}
{{ toJson $result }}
{{- end }}

{{/* Two lists as {items: [...]}. Takes {base, patch, by}: the key that tells whether two items are the same thing. */}}
{{- define "sluiceway.merged.lists" -}}
{{- $by := .by -}}
{{- $named := true -}}
{{- range concat .base .patch }}{{ if not (kindIs "map" .) }}{{ $named = false }}{{ else if not (hasKey . $by) }}{{ $named = false }}{{ end }}{{ end -}}
{{- if not $named -}}
{{ dict "items" .patch | toJson }}
{{- else -}}
{{- $patch := .patch -}}
{{- $items := list -}}
{{- $seen := list -}}
{{- range $item := .base -}}
{{- $name := get $item $by -}}
{{- $seen = append $seen $name -}}
{{- range $patch }}{{ if eq (get . $by) $name }}{{ $item = include "sluiceway.merged" (dict "base" $item "patch" .) | fromJson }}{{ end }}{{ end -}}
{{- $items = append $items $item -}}
{{- end -}}
{{- range $patch }}{{ if not (has (get . $by) $seen) }}{{ $items = append $items . }}{{ end }}{{ end -}}
{{ dict "items" $items | toJson }}
{{- end -}}
{{- end }}
