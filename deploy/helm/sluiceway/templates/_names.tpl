{{- define "sluiceway.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "sluiceway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "sluiceway.name" .) .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "sluiceway.name" .) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Selects pods. Takes {root, component}; without component every pod of the release. */}}
{{- define "sluiceway.selector" -}}
app.kubernetes.io/name: {{ include "sluiceway.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "sluiceway.labels" -}}
{{ include "sluiceway.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: sluiceway
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sluiceway.serviceaccount" -}}
{{ default (ternary (include "sluiceway.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* Ports by kind of server; a test compares them with the configuration models. */}}
{{- define "sluiceway.ports" -}}
{{- $ports := dict "orchestrator" (dict "grpc" 50051 "operations" 9051 "http" 8080 "scaler" 9061) "detection" (dict "grpc" 50052 "operations" 9052) "recognition" (dict "grpc" 50053 "operations" 9053) -}}
{{ get $ports . | toJson }}
{{- end }}

{{/* Takes {root, kind, values, variant}. */}}
{{- define "sluiceway.image" -}}
{{- $variant := default dict .variant -}}
{{- $image := default .values.image $variant.image -}}
{{- if not $image -}}
{{- $onCpus := dict "detection" "sluiceway/detection" "recognition" "sluiceway/recognition-cpu" -}}
{{- $image = ternary (printf "sluiceway/%s-gpu" .kind) (get $onCpus .kind) (gt (int .values.gpu.count) 0) -}}
{{- end -}}
{{- $tag := default .root.Chart.AppVersion (default .root.Values.image.tag $variant.tag) -}}
{{- /* What a variant says of its image is all of it: the digest of the main one is another image's. */ -}}
{{- $digest := ternary $variant.digest .values.digest (or (hasKey $variant "image") (hasKey $variant "tag") (hasKey $variant "digest")) -}}
{{ with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image }}:{{ $tag }}{{ with $digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Names by which the public HTTP port may be called, as a JSON list: those of the Service, of the Ingress, and what is set. */}}
{{- define "sluiceway.http.hosts" -}}
{{- $service := printf "%s-orchestrator" (include "sluiceway.fullname" .) -}}
{{- $hosts := list $service -}}
{{- range $suffix := list "" ".svc" ".svc.cluster.local" -}}
{{- $hosts = append $hosts (printf "%s.%s%s" $service $.Release.Namespace $suffix) -}}
{{- end -}}
{{- with .Values.orchestrator.ingress }}{{ if .enabled }}{{ $hosts = concat $hosts .hosts }}{{ end }}{{ end -}}
{{ concat $hosts .Values.orchestrator.http.allow_hosts | uniq | toJson }}
{{- end }}

{{- define "sluiceway.api.autoscaling" -}}
{{- if and (.Capabilities.APIVersions.Has "autoscaling/v2") (semverCompare ">=1.23-0" .Capabilities.KubeVersion.Version) -}}
autoscaling/v2
{{- else -}}
autoscaling/v2beta2
{{- end -}}
{{- end }}

{{- define "sluiceway.api.policy" -}}
{{- if and (.Capabilities.APIVersions.Has "policy/v1") (semverCompare ">=1.21-0" .Capabilities.KubeVersion.Version) -}}
policy/v1
{{- else -}}
policy/v1beta1
{{- end -}}
{{- end }}

{{/* keda or hpa. Takes {root, values}. */}}
{{- define "sluiceway.engine" -}}
{{- $engine := default "hpa" .values.autoscaling.engine -}}
{{- if ne $engine "auto" -}}
{{ $engine }}
{{- else if .root.Capabilities.APIVersions.Has "keda.sh/v1alpha1" -}}
keda
{{- else -}}
hpa
{{- end -}}
{{- end }}

{{/* "true" where some stage is scaled by what the orchestrators tell KEDA. */}}
{{- define "sluiceway.scaler" -}}
{{- $wanted := false -}}
{{- range $stage := (include "sluiceway.stages" . | fromJson).stages -}}
{{- $scaling := $stage.values.autoscaling -}}
{{- if and $scaling.enabled $scaling.queueTime.enabled (eq $scaling.queueTime.source "orchestrator") (eq (include "sluiceway.engine" (dict "root" $ "values" $stage.values)) "keda") -}}
{{- $wanted = true -}}
{{- end -}}
{{- end -}}
{{ ternary "true" "" $wanted }}
{{- end }}
