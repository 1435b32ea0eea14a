{{/* kube-proxy's DaemonSet as it was, without what the API server adds. */}}
{{- define "userspace-proxy.kubeProxy" -}}
{{- $given := fromYaml .Values.kubeadm.daemonSet }}
{{- if ne (toString $given.kind) "DaemonSet" }}
{{- fail "set kubeadm.daemonSet, by --set-file, to what this command prints: kubectl -n kube-system get daemonset kube-proxy -o yaml" }}
{{- end }}
{{- range $given.spec.template.spec.volumes }}
{{- if eq .name "state" }}
{{- fail "kubeadm.daemonSet is the DaemonSet after the take-over: give the one from before" }}
{{- end }}
{{- end }}
{{- $metadata := pick $given.metadata "name" "namespace" "labels" }}
{{- $_ := unset $given.spec.template.metadata "creationTimestamp" }}
{{- toYaml (dict "apiVersion" "apps/v1" "kind" "DaemonSet" "metadata" $metadata "spec" $given.spec) }}
{{- end }}

{{/*
That DaemonSet with userspace-proxy's image and way to update; its ConfigMap and ServiceAccount stay as they are. A new
agent starts beside kube-proxy, or beside the old agent, and takes over from it.
*/}}
{{- define "userspace-proxy.takeOver" -}}
{{- $daemonSet := include "userspace-proxy.kubeProxy" . | fromYaml }}
{{- $pod := $daemonSet.spec.template.spec }}
{{- $container := first $pod.containers }}
{{- $flags := list "--take-over" (printf "--ready-socket=%s" (include "userspace-proxy.readySocket" .)) }}
{{- range $name, $default := pick (include "userspace-proxy.defaults" . | fromYaml) "steering" "path" }}
{{- $value := get $.Values $name }}
{{- if ne $value $default }}
{{- $flags = append $flags (printf "--%s=%s" $name $value) }}
{{- end }}
{{- end }}
{{- with include "userspace-proxy.socketLB" . }}
{{- $flags = append $flags (printf "--socket-lb=%s" .) }}
{{- end }}
{{- if .Values.socketLBHostOnly }}
{{- $flags = append $flags "--socket-lb-host-only" }}
{{- end }}
{{- if .Values.wake.namespaces }}
{{- $flags = append $flags "--allow-wake" }}
{{- end }}
{{- with .Values.allowEndpointNames }}
{{- $flags = append $flags (printf "--allow-endpoint-names=%s" (join "," .)) }}
{{- end }}
{{- $flags = concat $flags (include "userspace-proxy.metricsFlag" . | fromYamlArray) .Values.extraFlags }}
{{- $ours := include "userspace-proxy.container" . | fromYaml }}
{{- $_ := set $container "command" (concat $container.command $flags) }}
{{- $mounts := include "userspace-proxy.socketLBMounts" . | fromYamlArray }}
{{- $_ := set $container "volumeMounts" (concat (append $container.volumeMounts (include "userspace-proxy.stateMount" . | fromYaml)) $mounts) }}
{{- $_ := set $pod "containers" (prepend (rest $pod.containers) (mergeOverwrite $container $ours)) }}
{{- $_ := set $daemonSet.spec "updateStrategy" (include "userspace-proxy.updateStrategy" . | fromYaml) }}
{{- $_ := set $daemonSet.spec "minReadySeconds" .Values.minReadySeconds }}
{{- $volumes := include "userspace-proxy.socketLBVolumes" . | fromYamlArray }}
{{- $_ := set $pod "volumes" (concat (append $pod.volumes (include "userspace-proxy.stateVolume" . | fromYaml)) $volumes) }}
{{- $_ := set $pod "securityContext" (dict "seccompProfile" (dict "type" "RuntimeDefault")) }}
{{- with .Values.imagePullSecrets }}
{{- $_ := set $pod "imagePullSecrets" . }}
{{- end }}
{{- toYaml $daemonSet }}
{{- end }}

{{/*
A second kube-proxy beside the first. Its metrics have a port of their own, so a container beside it can tell whether it
has written its rules, which depends on the API server.
*/}}
{{- define "userspace-proxy.standby" -}}
{{- $daemonSet := include "userspace-proxy.kubeProxy" . | fromYaml }}
{{- $pod := $daemonSet.spec.template.spec }}
{{- $container := first $pod.containers }}
{{- $config := "" }}
{{- $command := list }}
{{- range concat (default list $container.command) (default list $container.args) }}
{{- if hasPrefix "--config=" . }}
{{- $config = trimPrefix "--config=" . }}
{{- $command = append $command "--config=/standby/config.conf" }}
{{- else }}
{{- $command = append $command . }}
{{- end }}
{{- end }}
{{- if not $config }}
{{- fail "kubeadm.daemonSet's first container has no --config=FILE" }}
{{- end }}
{{- $mounts := append $container.volumeMounts (dict "name" "standby" "mountPath" "/standby") }}
{{- $_ := set $container "command" $command }}
{{- $_ := unset $container "args" }}
{{- $_ := set $container "volumeMounts" $mounts }}
{{- $_ := set $pod "volumes" (append $pod.volumes (dict "name" "standby" "emptyDir" dict)) }}
{{- $ports := printf "healthzBindAddress: 127.0.0.1:%v\nmetricsBindAddress: 127.0.0.1:%v" .Values.kubeadm.standbyHealthPort .Values.kubeadm.standbyMetricsPort }}
{{- $own := dict "image" (include "userspace-proxy.image" .) "securityContext" (include "userspace-proxy.unprivileged" . | fromYaml) }}
{{- $copy := printf "{ sed -E '/^(healthz|metrics)BindAddress:/d' %s; printf '\n%%s\n' '%s'; } >/standby/config.conf" $config $ports }}
{{- $init := mustMerge (dict "name" "own-ports" "command" (list "sh" "-c" $copy) "volumeMounts" $mounts) $own }}
{{- $_ := set $pod "initContainers" (append (default list $pod.initContainers) $init) }}
{{- $synced := printf "wget -qO- http://127.0.0.1:%v/metrics | grep -Eq '^kubeproxy_sync_proxy_rules_last_timestamp_seconds([{].*[}])? [1-9]'" .Values.kubeadm.standbyMetricsPort }}
{{- $probe := dict "exec" (dict "command" (list "sh" "-c" $synced)) "periodSeconds" 2 "timeoutSeconds" 5 "failureThreshold" 1800 }}
{{- $asks := mustMerge (dict "name" "has-written-rules" "command" (list "sh" "-c" "trap exit TERM; sleep 2147483647 & wait") "startupProbe" $probe) $own }}
{{- $_ := set $pod "containers" (append $pod.containers $asks) }}
{{- with .Values.imagePullSecrets }}
{{- $_ := set $pod "imagePullSecrets" . }}
{{- end }}
{{- $label := printf "%s-standby" (index $daemonSet.spec.selector.matchLabels "k8s-app") }}
{{- $_ := set $daemonSet.metadata "name" (printf "%s-standby" $daemonSet.metadata.name) }}
{{- $_ := set $daemonSet.spec.selector.matchLabels "k8s-app" $label }}
{{- $_ := set $daemonSet.spec.template.metadata.labels "k8s-app" $label }}
{{- $_ := set $daemonSet.spec "minReadySeconds" .Values.kubeadm.standbyReadySeconds }}
{{- toYaml $daemonSet }}
{{- end }}

{{/*
On each node, once userspace-proxy is healthy there, the old kube-proxy removes the rules that it left. Until then these
rules carry the node's connections.
*/}}
{{- define "userspace-proxy.cleanup" -}}
{{- $daemonSet := include "userspace-proxy.kubeProxy" . | fromYaml }}
{{- $name := printf "%s-cleanup" $daemonSet.metadata.name }}
{{- $metrics := .Values.metrics.host | replace "0.0.0.0" "127.0.0.1" }}
{{- $metrics = ternary "[::1]" $metrics (eq "::" $metrics) -}}
# Delete this DaemonSet when it is ready on all nodes.
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ $name }}
  namespace: {{ $daemonSet.metadata.namespace }}
spec:
  selector:
    matchLabels:
      k8s-app: {{ $name }}
  updateStrategy:
    rollingUpdate:
      maxUnavailable: 100%
  template:
    metadata:
      labels:
        k8s-app: {{ $name }}
    spec:
      hostNetwork: true
      automountServiceAccountToken: false
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $daemonSet.spec.template.spec.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $daemonSet.spec.template.spec.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      initContainers:
        - name: wait-for-userspace-proxy
          image: {{ include "userspace-proxy.image" . }}
          command:
            - /opt/userspace-proxy/bin/python
            - -c
            - |
              import time, urllib.request

              def get(url):
                  try:
                      with urllib.request.urlopen(url, timeout=5) as answer:
                          return answer.read()
                  except OSError:
                      return b""

              while get("http://{{ $metrics }}:10249/proxyMode") != b"userspace" or not get(
                  "http://127.0.0.1:10256/healthz"
              ):
                  time.sleep(1)
          securityContext:
            {{- include "userspace-proxy.unprivileged" . | nindent 12 }}
        - name: remove-kube-proxys-rules
          image: {{ (first $daemonSet.spec.template.spec.containers).image }}
          command: [/usr/local/bin/kube-proxy, --cleanup]
          securityContext:
            privileged: true
          volumeMounts:
            - mountPath: /run/xtables.lock
              name: xtables-lock
            - mountPath: /lib/modules
              name: lib-modules
              readOnly: true
      containers:
        - name: done
          image: {{ .Values.kubeadm.pauseImage }}
          securityContext:
            {{- include "userspace-proxy.unprivileged" . | nindent 12 }}
      volumes:
        - name: xtables-lock
          hostPath:
            path: /run/xtables.lock
            type: FileOrCreate
        - name: lib-modules
          hostPath:
            path: /lib/modules
{{- end }}

{{- define "userspace-proxy.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 65534
capabilities:
  drop: [ALL]
{{- end }}
