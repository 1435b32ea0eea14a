{{/* Made from values.yaml: make docs. */}}
{{- define "userspace-proxy.defaults" -}}
image:
  repository: userspace-proxy
  tag: ''
  pullPolicy: ''
imagePullSecrets: []
apiServer:
  host: ''
  port: 6443
clusterCIDR: ''
steering: auto
path: userspace
socketLB: 'off'
socketLBHostOnly: false
extraFlags: []
canary:
  name: ''
  healthPort: 10356
  metricsPort: 10349
wake:
  namespaces: []
  createNamespace: true
view:
  create: false
allowEndpointNames: []
metrics:
  host: 127.0.0.1
  podMonitor:
    enabled: false
    interval: 30s
    labels: {}
updateStrategy:
  type: RollingUpdate
  rollingUpdate:
    maxSurge: 1
    maxUnavailable: 0
minReadySeconds: 10
tolerations:
- operator: Exists
affinity: {}
podAnnotations: {}
fullnameOverride: ''
serviceAccount:
  create: true
  name: ''
kubeadm:
  phase: ''
  daemonSet: ''
  standbyReadySeconds: 5
  standbyHealthPort: 10366
  standbyMetricsPort: 10369
  pauseImage: registry.k8s.io/pause:3.10.2
{{- end }}
