{{/* What the schema cannot say, since it is about several keys. Each message begins with the key to change. */}}
{{- define "sluiceway.validate" -}}
{{- $root := . -}}
{{- $faults := list -}}
{{- $deployments := list -}}
{{- range $item := (include "sluiceway.stages" $root | fromJson).stages -}}
{{- $stage := $item.key -}}
{{- $values := $item.values -}}
{{- $deployments = append $deployments $item.component -}}
{{- $gpus := int $values.gpu.count -}}
{{- if and (hasPrefix "cuda" $values.device) (eq $gpus 0) -}}
{{- $faults = append $faults (printf "%s.gpu.count: device %s needs the limit of at least 1 GPU" $stage $values.device) -}}
{{- end -}}
{{- if and (eq $values.device "cpu") (gt $gpus 0) -}}
{{- $faults = append $faults (printf "%s.device: cpu would leave the %d GPUs of %s.gpu.count idle; set cuda" $stage $gpus $stage) -}}
{{- end -}}
{{- if hasKey (default dict $values.resources.limits) $values.gpu.resource -}}
{{- $faults = append $faults (printf "%s.resources.limits: GPUs are set by %s.gpu.count" $stage $stage) -}}
{{- end -}}
{{- $shares := 0 -}}
{{- $names := list -}}
{{- range $variant := $values.variants -}}
{{- $shares = add $shares (int $variant.share) -}}
{{- if has $variant.name $names -}}
{{- $faults = append $faults (printf "%s.variants: two are called %s" $stage $variant.name) -}}
{{- end -}}
{{- $names = append $names $variant.name -}}
{{- $deployments = append $deployments (printf "%s-%s" $item.component $variant.name) -}}
{{- end -}}
{{- if gt $shares 90 -}}
{{- $faults = append $faults (printf "%s.variants: the shares add up to %d, and the main one keeps at least 10 percent" $stage $shares) -}}
{{- end -}}
{{- $scaling := $values.autoscaling -}}
{{- if and $values.variants $scaling.enabled -}}
{{- $faults = append $faults (printf "%s.autoscaling.enabled: shares of variants do not hold while the number of pods changes; switch it off, or the variants" $stage) -}}
{{- else if le $shares 90 -}}
{{- /* Of pods, so that few of them cannot give a small share. Half a share more or less is taken for the share. */ -}}
{{- range $variant := (include "sluiceway.variants" $values | fromJson).variants -}}
{{- $is := mul 100 $variant.pods -}}
{{- $asked := mul $variant.share $variant.of -}}
{{- if gt (mul 2 (max (sub $is $asked) (sub $asked $is))) $asked -}}
{{- $faults = append $faults (printf "%s.variants: %s would get %d of %d pods, which is not a share of %d; set %s.replicas to %d or more, or another share" $stage $variant.name (int $variant.pods) (int $variant.of) (int $variant.share) $stage (div (add (sub 100 $shares) (sub $variant.share 1)) $variant.share)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $scaling.enabled -}}
{{- $engine := include "sluiceway.engine" (dict "root" $root "values" $values) -}}
{{- if and (eq (int $scaling.minReplicas) 0) (ne $engine "keda") -}}
{{- $faults = append $faults (printf "%s.autoscaling.minReplicas: 0 needs keda, a HorizontalPodAutoscaler keeps at least 1" $stage) -}}
{{- end -}}
{{- if and (eq (int $scaling.minReplicas) 0) (not $scaling.queueTime.enabled) -}}
{{- $faults = append $faults (printf "%s.autoscaling.queueTime.enabled: nothing else can wake a stage from 0 replicas" $stage) -}}
{{- end -}}
{{- if and (eq (int $scaling.cpuPercent) 0) (not $scaling.queueTime.enabled) -}}
{{- $faults = append $faults (printf "%s.autoscaling: set cpuPercent or queueTime.enabled, or there is nothing to scale by" $stage) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $component := (include "sluiceway.components" $root | fromJson).components -}}
{{- $scaling := $component.values.autoscaling -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- $faults = append $faults (printf "%s.autoscaling.minReplicas: is above maxReplicas" $component.key) -}}
{{- end -}}
{{- end -}}
{{- range $name := $deployments | uniq -}}
{{- $same := 0 -}}
{{- range $other := $deployments }}{{ if eq $name $other }}{{ $same = add1 $same }}{{ end }}{{ end -}}
{{- if gt (int $same) 1 -}}
{{- $faults = append $faults (printf "stages: two Deployments would be called %s; rename the stage or the variant" $name) -}}
{{- end -}}
{{- end -}}
{{- $orchestrator := .Values.orchestrator -}}
{{- range $key := list "ingress" "grpcIngress" -}}
{{- $ingress := get $orchestrator $key -}}
{{- if and $ingress.enabled (not $ingress.hosts) -}}
{{- $faults = append $faults (printf "orchestrator.%s.hosts: name at least one, only requests to known names are answered" $key) -}}
{{- end -}}
{{- end -}}
{{- if and $orchestrator.ingress.enabled (not $orchestrator.http.enabled) -}}
{{- $faults = append $faults "orchestrator.http.enabled: the ingress leads to that port" -}}
{{- end -}}
{{- if and $orchestrator.grpcRoute.enabled (not $orchestrator.grpcRoute.parentRefs) -}}
{{- $faults = append $faults "orchestrator.grpcRoute.parentRefs: name the Gateway that it belongs to" -}}
{{- end -}}
{{- $ways := dict "ingress" $orchestrator.ingress.enabled "ingress for gRPC" $orchestrator.grpcIngress.enabled "gateway" $orchestrator.grpcRoute.enabled "service from outside" (ne $orchestrator.service.type "ClusterIP") -}}
{{- range $way, $there := $ways -}}
{{- if and $there (not (or $.Values.security.clients $.Values.security.allowUnauthenticated)) -}}
{{- $faults = append $faults (printf "security.clients: everybody who reaches the %s could call; name clients with tokens, or set security.allowUnauthenticated" $way) -}}
{{- end -}}
{{- end -}}
{{- $protected := or .Values.networkPolicy.enabled .Values.security.allowUnauthenticated -}}
{{- if and (not $protected) (not .Values.security.clients) -}}
{{- $faults = append $faults "security.clients: without network policies everybody could call; name clients with tokens, or set security.allowUnauthenticated" -}}
{{- end -}}
{{- if and (not $protected) (not .Values.security.tls.secretName) (not .Values.security.stageToken) -}}
{{- $faults = append $faults "security.stageToken: without network policies everybody could call the stages; set it or security.tls.secretName, or set security.allowUnauthenticated" -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n\n%s\n" (join "\n" $faults)) -}}
{{- end -}}
{{- end }}
