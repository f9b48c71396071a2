{{/* The pod of a Deployment, before anything is merged into it. Takes what "sluiceway.workload" takes. */}}
{{- define "sluiceway.pod" -}}
{{- $root := .root -}}
{{- $stage := .stage -}}
{{- $component := $stage.component -}}
{{- $values := $stage.values -}}
{{- $variant := default dict .variant -}}
{{- $fullname := include "sluiceway.fullname" $root -}}
{{- $ports := include "sluiceway.ports" $stage.kind | fromJson -}}
{{- $selector := include "sluiceway.selector" (dict "root" $root "component" $component) -}}
{{- $drain := $root.Values.drain -}}
{{- $tls := $root.Values.security.tls.secretName -}}
{{- $gpus := 0 -}}
{{- with $values.gpu }}{{ $gpus = int .count }}{{ end -}}
{{- $http := false -}}
{{- with $values.http }}{{ $http = .enabled }}{{ end -}}
{{- /* On a GPU the models are compiled at the first start. */}}
{{- $startupSeconds := $root.Values.startupSeconds -}}
{{- if gt $gpus 0 }}{{ $startupSeconds = max $startupSeconds $values.gpu.startupSeconds }}{{ end -}}
serviceAccountName: {{ include "sluiceway.serviceaccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
# preStop, the drain, and a little for the workers to end.
terminationGracePeriodSeconds: {{ add $drain.preStopSeconds $drain.graceSeconds 10 }}
{{- with $root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: server
    image: {{ include "sluiceway.image" (dict "root" $root "kind" $stage.kind "values" $values "variant" $variant) }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    {{- $args := ternary (list) (list "--stage" $stage.name) $stage.default }}
    {{- if $root.Values.config }}{{ $args = concat $args (list "--config" "/etc/sluiceway/sluiceway.toml") }}{{ end }}
    {{- with $args }}
    args: [{{ range $number, $arg := . }}{{ if $number }}, {{ end }}{{ $arg | quote }}{{ end }}]
    {{- end }}
    env:
      {{- include "sluiceway.environment" (dict "section" $stage.section "config" (dict "host" "0.0.0.0" "port" (toString $ports.grpc) "operations_port" (toString $ports.operations) "drain_grace_s" (toString $drain.graceSeconds))) | trim | nindent 6 }}
      {{- include "sluiceway.role" (dict "root" $root "stage" $stage) | trim | nindent 6 }}
      {{- include "sluiceway.security" (dict "root" $root "component" $component) | nindent 6 }}
      {{- with merge dict (default dict $variant.config) $values.config }}
      {{- include "sluiceway.environment" (dict "section" $stage.section "config" .) | trim | nindent 6 }}
      {{- end }}
      {{- with $values.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $values.envFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - name: grpc
        containerPort: {{ $ports.grpc }}
        protocol: TCP
      - name: operations
        containerPort: {{ $ports.operations }}
        protocol: TCP
      {{- if and (eq $stage.kind "orchestrator") (include "sluiceway.scaler" $root) }}
      - name: scaler
        containerPort: {{ $ports.scaler }}
        protocol: TCP
      {{- end }}
      {{- if $http }}
      - name: http
        containerPort: {{ $ports.http }}
        protocol: TCP
      {{- end }}
    # Plain HTTP on the operations port: works with TLS on the other one, and on every version of Kubernetes.
    startupProbe:
      httpGet: {path: /readyz, port: operations}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: {{ div $startupSeconds 2 }}
    readinessProbe:
      httpGet: {path: /readyz, port: operations}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 2
    livenessProbe:
      httpGet: {path: /livez, port: operations}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    lifecycle:
      preStop:
        exec:
          command: ["/bin/sleep", {{ $drain.preStopSeconds | quote }}]
    resources:
      {{- $resources := deepCopy $values.resources }}
      {{- if gt $gpus 0 }}
      {{- $limits := default dict $resources.limits }}
      {{- $_ := set $limits $values.gpu.resource $gpus }}
      {{- $_ := set $resources "limits" $limits }}
      {{- end }}
      {{- toYaml $resources | nindent 6 }}
    {{- with $root.Values.containerSecurityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- if gt $gpus 0 }}
      - name: compiled
        mountPath: /opt/sluiceway/weights/gpu
      {{- end }}
      {{- if $root.Values.config }}
      - name: config
        mountPath: /etc/sluiceway
        readOnly: true
      {{- end }}
      {{- if $tls }}
      - name: certificates
        mountPath: /run/certificates
        readOnly: true
      {{- end }}
volumes:
  {{- if gt $gpus 0 }}
  # On the node's disk: compilers want more room.
  - name: tmp
    emptyDir:
      sizeLimit: 4Gi
  - name: compiled
    {{- with $values.gpu.cache.claimName }}
    persistentVolumeClaim:
      claimName: {{ . }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ $values.gpu.cache.sizeLimit }}
    {{- end }}
  {{- else }}
  - name: tmp
    emptyDir:
      medium: Memory
      sizeLimit: 64Mi
  {{- end }}
  {{- if $root.Values.config }}
  - name: config
    configMap:
      name: {{ $fullname }}
  {{- end }}
  {{- if $tls }}
  - name: certificates
    secret:
      secretName: {{ $tls }}
      # The group is the server's.
      defaultMode: 0440
  {{- end }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := $values.tolerations }}
{{- if gt $gpus 0 }}
# Nodes with GPUs usually keep other pods away.
{{- $tolerations = append $tolerations (dict "key" $values.gpu.resource "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
What the values of one component and of all merge into its pod, in order, as {patches: [...]}: its volumes and further
containers first, then the patches, the narrower ones last. Takes {root, stage}.
*/}}
{{- define "sluiceway.pod.patches" -}}
{{- $values := .stage.values -}}
{{- $server := dict -}}
{{- $volumes := default list $values.extraVolumes -}}
{{- $mounts := default list $values.volumeMounts -}}
{{- with $values.modelVolume -}}
{{- $volumes = append $volumes (merge (dict "name" "models") .) -}}
{{- $mounts = append $mounts (dict "name" "models" "mountPath" "/models" "readOnly" true) -}}
{{- end -}}
{{- with $volumes }}{{ $_ := set $server "volumes" . }}{{ end -}}
{{- with $values.initContainers }}{{ $_ := set $server "initContainers" . }}{{ end -}}
{{- $containers := list -}}
{{- with $mounts }}{{ $containers = append $containers (dict "name" "server" "volumeMounts" .) }}{{ end -}}
{{- with concat $containers (default list $values.sidecars) }}{{ $_ := set $server "containers" . }}{{ end -}}
{{- $patches := list $server -}}
{{- range list .root.Values $values -}}
{{- $patches = append $patches (default dict .podPatch) -}}
{{- with .containerPatch }}{{ $patches = append $patches (dict "containers" (list (merge (dict "name" "server") .))) }}{{ end -}}
{{- end -}}
{{ dict "patches" $patches | toJson }}
{{- end }}
