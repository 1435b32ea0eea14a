"""The demo's sample Services, as manifests that the user may edit."""

from __future__ import annotations

from collections.abc import Mapping

_HEAD = """\
# The demo's Services. Edit and save: the proxy follows at once.
# Every web-N answers with its name on port 8080, every dns-N on UDP port 5353;
# nothing listens on port 8080 of the pod "broken".
"""

_SERVICE = """\
---
# {comment}
apiVersion: v1
kind: Service
metadata:
  namespace: shop
  name: {name}{metadata}
spec:
  clusterIP: {ip}{extra}
  ports: [{{port: {port}, protocol: {protocol}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: shop, name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {target}, protocol: {protocol}}}]
endpoints:
{endpoints}
"""

_AFFINITY = """
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}"""

_LEAST = """
  annotations: {userspace-proxy.io/balance: least-connections}"""

WEB_PODS = ("web-1", "web-2", "web-3")
DNS_PODS = ("dns-1", "dns-2")

# Name, comment, address, protocol, pods, more metadata, more spec, requests per second.
_SERVICES = (
    ("web", "Round robin over three pods.", "10.96.0.10", "TCP", WEB_PODS, "", "", 12),
    ("cart", "A client stays with its pod.", "10.96.0.20", "TCP", WEB_PODS[:2], "", _AFFINITY, 5),
    ("flaky", "One of two pods is dead.", "10.96.0.30", "TCP", ("broken", "web-3"), "", "", 4),
    ("api", "A slow pod gets fewer connections.", "10.96.0.40", "TCP", WEB_PODS, _LEAST, "", 8),
    ("dns", "UDP.", "10.96.0.53", "UDP", DNS_PODS, "", "", 6),
)


def manifests_for(pods: Mapping[str, str]) -> str:
    """Return the manifests as YAML, given the pods' addresses by name."""
    parts = [_HEAD]
    for name, comment, ip, protocol, names, metadata, extra, _ in _SERVICES:
        is_tcp = protocol == "TCP"
        parts.append(
            _SERVICE.format(
                name=name,
                comment=comment,
                ip=ip,
                protocol=protocol,
                metadata=metadata,
                extra=extra,
                port=80 if is_tcp else 53,
                target=8080 if is_tcp else 5353,
                endpoints="\n".join(
                    f"- {{addresses: [{pods[n]}], nodeName: node-1}}  # {n}" for n in names
                ),
            )
        )
    return "".join(parts)


def sample_traffic() -> tuple[str, ...]:
    """Return the targets of ``sandbox.traffic`` for the sample Services."""
    return tuple(
        f"http://{ip}/={rate}" if protocol == "TCP" else f"udp://{ip}:53={rate}"
        for _, _, ip, protocol, *_, rate in _SERVICES
    )
