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
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $fullname }}-{{ $component }}{{ if $variant }}-{{ $track }}{{ end }}
  labels:
    {{- include "sluiceway.labels" (dict "root" $root "component" $component) | nindent 4 }}
    sluiceway.dev/variant: {{ $track }}
spec:
  {{- if not (and $values.autoscaling.enabled (not $variant)) }}
  replicas: {{ .replicas }}
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
      serviceAccountName: {{ $fullname }}
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
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile:
          type: RuntimeDefault
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
            {{- include "sluiceway.environment" (dict "section" $stage.section "config" (dict "host" "0.0.0.0" "port" (toString $ports.grpc) "operations_port" (toString $ports.operations) "drain_grace_s" (toString $drain.graceSeconds))) | trim | nindent 12 }}
            {{- include "sluiceway.role" (dict "root" $root "stage" $stage) | trim | nindent 12 }}
            {{- include "sluiceway.security" (dict "root" $root "component" $component) | nindent 12 }}
            {{- with merge dict (default dict $variant.config) $values.config }}
            {{- include "sluiceway.environment" (dict "section" $stage.section "config" .) | trim | nindent 12 }}
            {{- end }}
            {{- with $values.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with $values.envFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - name: grpc
              containerPort: {{ $ports.grpc }}
              protocol: TCP
            - name: operations
              containerPort: {{ $ports.operations }}
              protocol: TCP
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
            {{- toYaml $resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
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
              {{- $selector | nindent 14 }}
        {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $tolerations := $values.tolerations }}
      {{- if gt $gpus 0 }}
      # Nodes with GPUs usually keep other pods away.
      {{- $tolerations = append $tolerations (dict "key" $values.gpu.resource "operator" "Exists" "effect" "NoSchedule") }}
      {{- end }}
      {{- with $tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
