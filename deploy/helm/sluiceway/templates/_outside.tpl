{{/* What gateways and meshes are told about the gRPC port: HTTP/2 in the clear. With certificates they see TLS. */}}
{{- define "sluiceway.appProtocol" -}}
appProtocol: {{ ternary "https" "kubernetes.io/h2c" (not (empty .Values.security.tls.secretName)) }}
{{- end }}

{{/* The spec of the Service that clients call. */}}
{{- define "sluiceway.service" -}}
{{- $ports := include "sluiceway.ports" "orchestrator" | fromJson -}}
type: {{ .Values.orchestrator.service.type }}
selector:
  {{- include "sluiceway.selector" (dict "root" . "component" "orchestrator") | nindent 2 }}
ports:
  - name: grpc
    port: {{ $ports.grpc }}
    targetPort: grpc
    protocol: TCP
    {{- include "sluiceway.appProtocol" . | nindent 4 }}
  {{- if .Values.orchestrator.http.enabled }}
  - name: http
    port: {{ $ports.http }}
    targetPort: http
    protocol: TCP
  {{- end }}
{{- end }}

{{/* An Ingress to one port of that Service. Takes {root, name, port, values, annotations}. */}}
{{- define "sluiceway.ingress" -}}
{{- $fullname := include "sluiceway.fullname" .root -}}
{{- $port := .port -}}
{{- $own := .annotations -}}
{{- with .values }}
{{- if .enabled }}
---
# The public {{ $port }} port from outside the cluster.
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $fullname }}-{{ $.name }}
  labels:
    {{- include "sluiceway.labels" (dict "root" $.root "component" "orchestrator") | nindent 4 }}
  {{- with merge dict .annotations $own }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with .tlsSecretName }}
  tls:
    - secretName: {{ . }}
      hosts:
        {{- toYaml $.values.hosts | nindent 8 }}
  {{- end }}
  rules:
    {{- range .hosts }}
    - host: {{ . }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ $fullname }}-orchestrator
                port:
                  name: {{ $port }}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}
