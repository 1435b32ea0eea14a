{{/*
Renders nothing: adds the defaults of values that aren't there. `helm upgrade --reuse-values` gives the values of the chart
before, which lack what was added since, and no default of this one.
*/}}
{{- define "userspace-proxy.withDefaults" -}}
{{- include "userspace-proxy.fill" (dict "values" .Values "defaults" (include "userspace-proxy.defaults" . | fromYaml)) }}
{{- end }}

{{- define "userspace-proxy.fill" -}}
{{- range $name, $default := .defaults }}
{{- $value := index $.values $name }}
{{- if kindIs "invalid" $value }}
{{- $_ := set $.values $name $default }}
{{- else if kindIs "map" $default }}
{{- include "userspace-proxy.fill" (dict "values" $value "defaults" $default) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "userspace-proxy.name" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "userspace-proxy.serviceAccountName" -}}
{{- if .Values.kubeadm.phase }}
{{- (include "userspace-proxy.kubeProxy" . | fromYaml).spec.template.spec.serviceAccountName }}
{{- else if .Values.serviceAccount.name }}
{{- .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}
{{- include "userspace-proxy.name" . }}
{{- else }}
{{- fail "serviceAccount.create is false: set serviceAccount.name to an account that exists" }}
{{- end }}
{{- end }}

{{- define "userspace-proxy.labels" -}}
{{ include "userspace-proxy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "userspace-proxy.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "userspace-proxy.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "userspace-proxy.healthPort" -}}
{{ ternary .Values.canary.healthPort 10256 (not (empty .Values.canary.name)) }}
{{- end }}

{{- define "userspace-proxy.metricsPort" -}}
{{ ternary .Values.canary.metricsPort 10249 (not (empty .Values.canary.name)) }}
{{- end }}

{{/* The container's fields that are the same in a DaemonSet of its own and in kubeadm's. */}}
{{- define "userspace-proxy.container" -}}
image: {{ include "userspace-proxy.image" . }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsUser: 0
  capabilities:
    drop: [ALL]
    add:
      - NET_ADMIN # rules, routes, connection tracking
      - NET_RAW # legacy tables are read and written through a raw socket; clients' addresses
      - SETUID # the workers run as user and group 65521
      - SETGID
      - KILL # the control process ends the workers
      {{- if eq .Values.steering "local" }}
      - NET_BIND_SERVICE # the frontends' own ports are bound
      {{- end }}
      {{- if include "userspace-proxy.socketLB" . }}
      - BPF # programs that translate connect()
      {{- end }}
{{/* The node's ports may be another process's: kube-proxy's, or the pod's before this one. This socket is its own. */}}
startupProbe:
  exec:
    command:
      - /opt/userspace-proxy/bin/python
      - -ISc
      - |
        import socket, sys
        probed = socket.socket(socket.AF_UNIX)
        if probed.connect_ex("{{ include "userspace-proxy.readySocket" . }}"):
            sys.exit("this pod serves no Service yet: its log says why")
        sys.exit(probed.makefile().read() or None)
  periodSeconds: 2
  timeoutSeconds: 5
  # A day, for which saved state is served without an API server; a restart would end that service.
  failureThreshold: 43200
livenessProbe:
  httpGet:
    path: /livez
    port: {{ include "userspace-proxy.healthPort" . }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /healthz
    port: {{ include "userspace-proxy.healthPort" . }}
  periodSeconds: 2
  timeoutSeconds: 5
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* In the pod's own /dev/shm, which is writable. */}}
{{- define "userspace-proxy.readySocket" -}}
/dev/shm/userspace-proxy.ready
{{- end }}

{{- define "userspace-proxy.updateStrategy" -}}
type: {{ .Values.updateStrategy.type }}
{{- if eq .Values.updateStrategy.type "RollingUpdate" }}
rollingUpdate:
  {{- toYaml .Values.updateStrategy.rollingUpdate | nindent 2 }}
{{- end }}
{{- end }}

{{/* The saved state, which is served after a restart until the API server has answered. */}}
{{- define "userspace-proxy.stateMount" -}}
name: state
mountPath: /var/lib/userspace-proxy
{{- end }}

{{- define "userspace-proxy.stateVolume" -}}
name: state
hostPath:
  path: /var/lib/userspace-proxy
  type: DirectoryOrCreate
{{- end }}

{{/* auto or required; nothing if it is off, which YAML reads as false unless it is quoted. */}}
{{- define "userspace-proxy.socketLB" -}}
{{- with .Values.socketLB }}
{{- if ne . "off" }}
{{- . }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The node's root of cgroup v2, and where what outlives a crash has its name. Not at their own places: /sys/fs/cgroup has
the container's memory limit, and AppArmor lets containers write nothing below /sys/fs/bpf.
*/}}
{{- define "userspace-proxy.socketLBMounts" -}}
{{- if include "userspace-proxy.socketLB" . }}
- name: cgroup
  mountPath: /host/sys/fs/cgroup
  readOnly: true
- name: bpf
  mountPath: /host/sys/fs/bpf
{{- end }}
{{- end }}

{{- define "userspace-proxy.socketLBVolumes" -}}
{{- if include "userspace-proxy.socketLB" . }}
- name: cgroup
  hostPath:
    path: /sys/fs/cgroup
    type: Directory
- name: bpf
  hostPath:
    path: /sys/fs/bpf
    type: Directory
{{- end }}
{{- end }}

{{- define "userspace-proxy.metricsFlag" -}}
{{- $host := .Values.metrics.host }}
{{- $shown := ternary (printf "[%s]" $host) $host (contains ":" $host) }}
{{- if or .Values.canary.name (ne $host "127.0.0.1") -}}
- --metrics-bind-address={{ $shown }}:{{ include "userspace-proxy.metricsPort" . }}
{{- end }}
{{- end }}
