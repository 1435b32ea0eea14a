"""Pods that serve many ports, and their Services, which have ranges of ports."""

import subprocess
import sys

# Answers each TCP connection and each datagram with its name and the port.
_SERVER = """\
import selectors, socket, sys
name, *ports = sys.argv[1:]
chosen = selectors.DefaultSelector()
for port in map(int, ports):
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(128)
            chosen.register(sock, selectors.EVENT_READ, f"{name} {port}".encode())
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        if key.fileobj.type == socket.SOCK_DGRAM:
            _, peer = key.fileobj.recvfrom(2048)
            key.fileobj.sendto(key.data, peer)
        else:
            with key.fileobj.accept()[0] as accepted:
                accepted.sendall(key.data)
"""


class RangePod:
    """A pod that answers on several ports with its name and the port."""

    def __init__(self, testbed, name, ports):
        self.host = testbed.sandbox.add_pod(name)
        self.process = self.host.popen(
            [sys.executable, "-IS", "-c", _SERVER, name, *map(str, ports)], stdout=subprocess.PIPE
        )
        with self.process.stdout as lines:
            assert lines.readline().strip() in ("ready", b"ready")

    def ip(self, version):
        return str(self.host.ip if version == 4 else self.host.ip6)

    def kill(self):
        self.process.kill()
        self.process.wait()


def service(name, ips, ports, annotations, *, pods=(), created="2026-01-01T00:00:00Z", **spec):
    """Yield a Service and its slices; ``ports`` are (name, protocol, port, target)."""
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": "shop",
            "name": name,
            "creationTimestamp": created,
            "annotations": {f"userspace-proxy.io/{k}": v for k, v in annotations.items()},
        },
        "spec": {
            "clusterIP": ips[0],
            "clusterIPs": list(ips),
            "ipFamilies": ["IPv6" if ":" in ip else "IPv4" for ip in ips],
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"name": n, "protocol": p, "port": at} for n, p, at, _ in ports],
            **spec,
        },
    }
    for version in {6 if ":" in ip else 4 for ip in ips}:
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop",
                "name": f"{name}-{version}",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": f"IPv{version}",
            "ports": [{"name": n, "protocol": p, "port": to} for n, p, _, to in ports],
            "endpoints": [{"addresses": [pod.ip(version)]} for pod in pods],
        }


def asks(client, address, protocol, *, is_served=True):
    """Return the answer at an address, or ``none`` if nothing serves there."""
    if protocol == "UDP":
        with client.new_udp(address[0]) as sock:
            # If nothing serves the address, a packet may leave the node and get no answer.
            sock.settimeout(20.0 if is_served else 0.5)
            try:
                sock.connect(address)
                sock.send(b"hello")
                return sock.recv(100).decode()
            except OSError:
                return "none"
    try:
        with client.tcp(address[0]) as sock:
            sock.connect(address)
            return sock.recv(100).decode()
    except OSError:
        return "none"
