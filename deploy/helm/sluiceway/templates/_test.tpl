{{/* The pod of `helm test`, confined as the others are. Takes {root, command}. */}}
{{- define "sluiceway.test.pod" -}}
{{- $root := .root -}}
restartPolicy: Never
serviceAccountName: {{ include "sluiceway.serviceaccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: test
    image: {{ include "sluiceway.image" (dict "root" $root "kind" "orchestrator" "values" $root.Values.orchestrator) }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command: {{ toJson .command }}
    {{- with $root.Values.security.clients }}
    {{- $client := get . (first (keys . | sortAlpha)) }}
    env:
      - name: SLUICEWAY_TOKEN
        valueFrom:
          secretKeyRef:
            name: {{ $client.secretName }}
            key: {{ $client.key }}
    {{- end }}
    resources:
      requests: {cpu: 50m, memory: 128Mi}
      limits: {memory: 512Mi}
    {{- with $root.Values.containerSecurityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    volumeMounts:
      - {name: page, mountPath: /test, readOnly: true}
      {{- if $root.Values.security.tls.secretName }}
      - {name: certificates, mountPath: /run/certificates, readOnly: true}
      {{- end }}
volumes:
  - name: page
    configMap:
      name: {{ include "sluiceway.fullname" $root }}-test
  {{- with $root.Values.security.tls.secretName }}
  - name: certificates
    secret:
      secretName: {{ . }}
      # Not its key.
      items: [{key: ca.crt, path: ca.crt}]
  {{- end }}
{{- end }}
