{{/* 4 or 6 for the text of an address; nothing for any other text. */}}
{{- define "userspace-proxy.family" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" }}
{{- if regexMatch (printf "^(%s[.]){3}%s$" $byte $byte) . -}}
4
{{- else if regexMatch "^[0-9A-Fa-f:]+$" . }}
{{- $halves := splitList "::" . }}
{{- $groups := without (splitList ":" (join ":" $halves)) "" | len }}
{{- $is_whole := ternary (eq $groups 8) (and (eq (len $halves) 2) (lt $groups 8)) (eq (len $halves) 1) }}
{{- if and $is_whole (not (regexMatch ":::|^:[^:]|[^:]:$|[0-9A-Fa-f]{5}" .)) -}}
6
{{- end }}
{{- end }}
{{- end }}

{{/* What is wrong with the API server's host; nothing for one that nodes can dial. */}}
{{- define "userspace-proxy.hostRefusal" -}}
{{- $label := "[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?" }}
{{- $family := include "userspace-proxy.family" . }}
{{- if contains "/" . -}}
write the host alone, without https:// or a path
{{- else if regexMatch "^(\\[.*\\]|[^:]*):[0-9]*$" . -}}
write the host alone: its port is apiServer.port
{{- else if hasPrefix "[" . -}}
write the address without brackets
{{- else if regexMatch "^(0[.]0[.]0[.]0|255[.]255[.]255[.]255|::)$|^2(2[4-9]|3[0-9])[.]|^[fF]{2}[0-9A-Fa-f]{2}:" . -}}
no API server has this address: write the control plane's, or its load balancer's
{{- else if regexMatch "^kubernetes[.]default$|[.]svc$|[.]svc[.]cluster[.]local[.]?$" . -}}
Services' names work only once this proxy runs: write the control plane's own address, or its load balancer's
{{- else if and (not $family) (or (not (regexMatch (printf "^%s([.]%s)*[.]?$" $label $label) .)) (regexMatch "(^|[.])[0-9]+[.]?$" .)) -}}
it is neither an address nor a name
{{- end }}
{{- end }}

{{/* What is wrong with a network; nothing for one in the form ADDRESS/LENGTH. */}}
{{- define "userspace-proxy.networkRefusal" -}}
{{- $address := regexReplaceAll "/[0-9]+$" . "" }}
{{- $family := include "userspace-proxy.family" $address }}
{{- $longest := ternary 128 32 (eq $family "6") }}
{{- if or (eq $address .) (not $family) -}}
it isn't a network: write one as 10.244.0.0/16, and two joined by a comma
{{- else if gt (atoi (last (splitList "/" .))) $longest -}}
the prefix of a network of IPv{{ $family }} has at most {{ $longest }} bits
{{- end }}
{{- end }}
