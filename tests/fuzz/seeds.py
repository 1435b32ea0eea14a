"""Writes the seeds of the corpus, from real examples: ``python -m tests.fuzz.seeds`` (root).

Files are examples of this repository; messages and listings are the kernel's, in a network
namespace with interfaces, routes and rules of many kinds. Crashes in the corpus stay.
"""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import msgspec
import yaml

from tests import loopback
from tests.cluster.test_kube_proxy_configuration import HEAD, TEXTS
from userspace_proxy.cluster.encoding import encode_state
from userspace_proxy.config.settings import Settings
from userspace_proxy.config.writing import render_config
from userspace_proxy.facts import EndpointCounters, GroupCounters, StreakPart
from userspace_proxy.kernel import ctnetlink
from userspace_proxy.kernel.netlink import Requests, rtnetlink
from userspace_proxy.kernel.netlink.sockets import NETLINK_NETFILTER, NETLINK_ROUTE
from userspace_proxy.kernel.nf_tables import reader
from userspace_proxy.model import Failure, ProxyProtocol, SocketAddress
from userspace_proxy.model.proxy_protocol import write_header
from userspace_proxy.plane.messages import (
    Counted,
    Drain,
    Drained,
    DurationReport,
    Ejected,
    EndpointReport,
    FromWorker,
    GroupReport,
    HandOver,
    Keep,
    ListenerClosed,
    Logged,
    Prefer,
    Proved,
    Returned,
    Running,
    Status,
)
from userspace_proxy.status.stream import Changes
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

from .targets.api import Cluster
from .targets.channel import write_step
from .targets.dns import QUERY
from .targets.state import OWNER

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
SEED = "seed-"
Object = Mapping[str, Any]

KERNEL = """
ip link add br0 type bridge
ip link add veth0 type veth peer name veth1
ip link set veth0 master br0
ip link set veth0 type bridge_slave isolated on
ip link set br0 up
ip link set veth1 up
ip link set veth0 up
ip addr add 192.0.2.10/24 dev br0
ip addr add 198.51.100.1 peer 198.51.100.2 dev veth1
ip addr add 2001:db8::10/64 dev br0 nodad
ip route add 10.244.1.0/24 via 192.0.2.11
ip route add 10.244.2.0/24 nexthop via 192.0.2.12 nexthop via 192.0.2.13
ip route add 2001:db8:1::/64 via 2001:db8::11 metric 7
ip route add blackhole 10.99.0.0/16
ip route add local 10.96.0.0/24 dev lo table 77 src 192.0.2.10 proto 117
ip rule add to 10.96.7.1 ipproto tcp dport 80 table 77 protocol 117
ip rule add fwmark 0x40/0x40 iif br0 goto 32766 protocol 118
ip rule add from all prohibit priority 500
"""
NFTABLES = """
table inet shop {
  set states { typeof ct state; elements = { established, related } }
  map frontends {
    type ipv4_addr . inet_proto . inet_service : inet_service
    elements = { 10.96.7.1 . tcp . 80 : 17001, 10.96.7.2 . udp . 53 : 17002 }
  }
  chain others { tcp dport 22 accept; ip6 daddr fd00::/8 drop; return; }
  chain in {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    ct state invalid drop
    ct status dnat accept
    ct state vmap { established : accept, invalid : drop }
    ip daddr 10.0.0.0/8 tcp dport 1000-2000 jump others
    meta l4proto udp udp dport 53 reject
    socket transparent 1 accept
    fib daddr type local goto others
    limit rate over 10/second counter drop
  }
  chain pre {
    type nat hook prerouting priority dstnat;
    meta l4proto { tcp, udp } redirect to :ip daddr . meta l4proto . th dport map @frontends
  }
}
table netdev edge {
  chain ingress { type filter hook ingress device br0 priority 0; accept; }
}
"""
LEGACY = """
*nat
:KUBE-SERVICES - [0:0]
:UPROXY-OUT - [0:0]
-A PREROUTING -m comment --comment "kubernetes -j \\"service\\" portals" -j KUBE-SERVICES
-A OUTPUT -m addrtype --dst-type LOCAL -j UPROXY-OUT
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 192.0.2.1:6443
-A UPROXY-OUT -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 17001
COMMIT
*filter
:INPUT DROP [1:52]
:OTHERS - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A INPUT -m socket --transparent --nowildcard -j ACCEPT
-A INPUT -g OTHERS
-A OTHERS -p tcp -m tcp --dport 22 -j REJECT --reject-with tcp-reset
COMMIT
"""
REQUESTS = {
    "page": b"\1GET /?q=cart+is:refused&sort=-in&page=2 HTTP/1.1\r\nHost: localhost:10249\r\n\r\n",
    "metrics": b"\1GET /metrics HTTP/1.1\r\nHost: [::1]\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n"
    b"Accept-Encoding: gzip\r\n\r\n",
    "status": b"\1GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "rebound": b"\1GET /configz HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "static": b"\1GET /static/..%2fapi.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "chunked": b"\1POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "pipelined": b"\1HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.0\r\n\r\n",
    "upgrade": b"\1GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nExpect: 100-continue\r\n\r\n",
    "probe": b"\0GET /healthz HTTP/1.1\r\nHost: 192.0.2.10:10256\r\nUser-Agent: kube-probe\r\n\r\n",
    "tls": b"\0\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
ANNOTATIONS = {
    "hold": "1m30s,1000",
    "wake": "deployment/web",
    "range": "10.0.0.0/8",
    "endpoints": "sql=db.example.com:5432,db2.example.com.:5433",
}
TOXIPROXY = (
    {"name": "db", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:5432"},
    [{"name": "db", "upstream": "127.0.0.1:5432"}, {"name": "web", "upstream": "127.0.0.1:80"}],
    {"enabled": False, "upstream": "127.0.0.1:81"},
    {"name": "cut", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": 9}},
    {"toxicity": 0.5, "attributes": {"latency": 10, "jitter": 1}},
)
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
- name: shop
  cluster: {server: "https://192.0.2.1:6443", certificate-authority: ca.crt}
users:
- name: proxy
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, args: [a]}}
contexts:
- name: node
  context: {cluster: shop, user: proxy}
current-context: node
"""
KUBECONFIGS = """\
current-context: prod
contexts: [{name: prod, context: {cluster: prod, user: prod, namespace: shop}}]
§§
clusters:
- name: prod
  cluster:
    server: 10.0.0.1:8080/
    server: https://api.example.internal:6443/k8s/
    certificate-authority-data: YQ==
    tls-server-name: api.test
    proxy-url: socks5://me:s%40cret@[fd00::1]:1080
    extensions:
    - name: client.authentication.k8s.io/exec
      extension: {mode: 0644, 1: on, t: 12:30, f: 1_000.5}
users:
- name: prod
  user:
    as: jane
    as-groups: [a, "b c"]
    as-user-extra: {example.org/scope%: [x]}
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: plug
      interactiveMode: IfAvailable
      env: [{name: A, value: b}]
      installHint: brew install plug
      provideClusterInfo: true
---
[}
"""
PROVIDER = """{"current-context": "a",
"contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
"clusters": [{"name": "a", "cluster": {"server": "https://a", "insecure-skip-tls-verify": true}}],
"users": [{"name": "a", "user": {"auth-provider": {"name": "oidc", "config":
{"id-token": "e30.eyJleHAiOjk5fQ.x"}}}}]}
"""
# As hands and other programs leave them.
ENDINGS = {
    "end.yaml": "---\n",
    "key-twice.yaml": "current-context: a\ncurrent-context: b\n",
    "tab.yaml": "foo: \tbar\n\t# end\n",
    "octal.yaml": "extensions: [{name: a, extension: {mode: 0644, 1: 12:30, a: on}}]\n",
    "tags.yaml": "foo: [!!int '80', !!bool 'yes', !!binary aGk=, !x {a: b}]\n",
    "after-the-end.yaml": "...\n]\n",
    "latin-1.yaml": "# gar\udce7on\n",
}
NO_PROXY = "http://u:p@proxy:3128\0.example.internal:6443,*.a,10.0.0.0/8,[fd00::1]:443,::/0"
ODD_YAML = """\
%YAML 1.2
--- &all
<<: [&a {x: 1, "y": 0x1F}, {x: 2}]
text: |+
  lines

folded: >-
  one
  line
? quoted "key"
: !!str 12
numbers: [0o17, -1.5e3, .inf, ~, 'it''s', "\\u00e9\\ud83d\\ude00"]
alias: *a
...
---
[]
"""


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and content of every seed."""
    manifests = [*(ROOT / "examples/manifests").iterdir(), ROOT / "examples/compose/web.yaml"]
    objects = [item for path in manifests for item in yaml.safe_load_all(path.read_text())]
    for path in manifests:
        yield "manifest", f"{path.parent.name}-{path.name}", path.read_bytes()
    yield "manifest", "list.json", json.dumps({"kind": "List", "items": objects}).encode()
    yield "yaml", "odd.yaml", ODD_YAML.encode()
    yield "yaml", "web.yaml", (ROOT / "examples/manifests/web.yaml").read_bytes()
    yield "yaml", "web.json", json.dumps(objects[0], indent=1).encode()
    yield "manifest", "stream.json", "\n".join(map(json.dumps, objects[:3])).encode()
    for path in (ROOT / "tests/unit/config").glob("kubeadm-*.yaml"):
        yield "config", path.name, path.read_bytes()
    yield "config", "defaults.yaml", render_config(Settings()).encode()
    for name, text in TEXTS.items():
        yield "config", f"{name}.yaml", (HEAD + text).encode()
    yield "kubeconfig", "shop.yaml", KUBECONFIG.encode()
    yield "kubeconfig", "merged.yaml", KUBECONFIGS.encode()
    yield "kubeconfig", "provider.json", PROVIDER.encode()
    yield "kubeconfig", "utf-16.yaml", KUBECONFIG.encode("utf-16")
    web = (ROOT / "examples/manifests/web.yaml").read_text()
    for name, end in ENDINGS.items():
        yield "kubeconfig", name, (KUBECONFIG + end).encode(errors="surrogateescape")
    for name in ("after-the-end.yaml", "tags.yaml"):
        yield "manifest", name, (web + ENDINGS[name]).encode()
    yield "no-proxy", "list", NO_PROXY.encode()
    yield from _api_seeds(objects)
    client, frontend = SocketAddress("2001:db8::1", 40000), SocketAddress("2001:db8::7", 443)
    yield "channel", "messages", b"".join(write_step(msgspec.json.encode(m)) for m in MESSAGES)
    yield "channel", "sockets", write_step(msgspec.json.encode(MESSAGES[0]), count=2)
    worker = (HandOver(), Proved(b"proof"), Keep("shop/web"), Prefer(7, client), Drain(1.5))
    yield "worker-channel", "messages", b"".join(write_step(msgspec.json.encode(m)) for m in worker)
    yield "channel", "raw", write_step(b"\0\0\0\2\0[]", kind=0)
    for version in ProxyProtocol:
        yield "proxy-header", str(version), write_header(version, client, frontend, "shop/web")
    yield "proxy-header", "v1-local", b"PROXY UNKNOWN\r\n"
    yield "proxy-header", "v2-local", bytes.fromhex("0d0a0d0a000d0a515549540a20000000")
    for name, text in ANNOTATIONS.items():
        yield "annotations", name, text.encode()
    for name, request in REQUESTS.items():
        yield "http", name, request
    for number, body in enumerate(TOXIPROXY):
        yield "toxiproxy", str(number), bytes([number]) + json.dumps(body).encode()
    yield from _dns_seeds()
    yield from _agent_seeds()
    yield from _kernel_seeds()


def _agent_seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield answers as agents write them, and one whose text has no end."""
    now, later = status_of(service_objects(2), "node-1"), status_of(service_objects(3), "node-1")
    changes = Changes()
    lines = [changes.line(now), changes.line(later)]
    yield "agent-lines", "changes", b"\n".join(lines)
    yield "agent-lines", "endless", b'{"version":"1","revision":%s,"a":"\\"\\"' % (b"9" * 17)
    packed = gzip.compress(lines[0], mtime=0)
    head = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n" % len(packed)
    yield "agent-http", "gzip", b"\x40" + head + b"Content-Encoding: gzip\r\n\r\n" + packed
    coded = head + b"Content-Encoding: gzip\r\n" + length
    yield "agent-http", "gzip-with-length", b"\x07" + coded + b"\r\n" + packed
    yield "agent-http", "refused", b"\xffHTTP/1.1 404 Not Found\r\n\r\nno such Service\n"


def _dns_seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield messages as dnspython writes them."""
    for name, type_, edns in (("web.shop.svc.cluster.local", "A", -1), ("a\\.b", "SRV", 0)):
        query = dns.message.make_query(name, type_, use_edns=edns, id=1)
        yield "dns-query", type_, query.to_wire()
    yield "dns-query", "http", REQUESTS["chunked"][3:]
    response = dns.message.make_response(dns.message.from_wire(QUERY.wire))
    yield "dns-answer", "empty", response.to_wire()
    response.answer = [
        dns.rrset.from_text("db.example.com.", 30, "IN", "CNAME", "db.example.net."),
        dns.rrset.from_text("db.example.net.", 5, "IN", "A", "203.0.113.1", "203.0.113.2"),
    ]
    wire = response.to_wire()
    yield "dns-answer", "alias", wire
    # As the records of an answer, after their number.
    yield "dns-answer", "records", b"\0\3" + wire[12 + len(QUERY.question) :]


MESSAGES: tuple[FromWorker, ...] = (
    Running(4711, 65521),
    Counted(
        3,
        [
            GroupReport(
                7,
                GroupCounters().figures(),
                [
                    EndpointReport(
                        SocketAddress("10.244.1.2", 8080),
                        EndpointCounters().figures(),
                        StreakPart(1.5, 2, 2.5, 3.5, Failure.REFUSED, 111),
                    )
                ],
                [(SocketAddress("fd00::2", 53), 1.5)],
                DurationReport([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 0.5),
            )
        ],
        Status(3, 4, 50, 1024, True, [9, 8, 7], 0.25),
    ),
    ListenerClosed(12),
    Ejected(7, SocketAddress("10.244.1.2", 8080), True),
    Returned(7, SocketAddress("10.244.1.2", 8080)),
    Logged("userspace_proxy", 30, 1.0, "endpoint ejected", {"n": [1, None]}, "Traceback"),
    Drained(2),
)


def _api_seeds(objects: list[Any]) -> Iterator[tuple[str, str, bytes]]:
    kinds = {"Service": "0", "EndpointSlice": "1", "Node": "2"}
    listed = [item for item in objects if item and item["kind"] in kinds]
    lines = [kinds[item["kind"]] + json.dumps(item) for item in listed]
    node = {
        "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "east"}},
        "spec": {"podCIDRs": ["10.244.1.0/24"], "taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]},
    }
    yield "objects", "manifests", "\n".join(lines).encode()
    yield "objects", "node", f"2{json.dumps(node)}".encode()
    # Hypothesis draws from these bytes, so any will do.
    yield "drawn-objects", "zeros", bytes(2000)
    yield "drawn-objects", "numbers", bytes(range(256)) * 8
    cluster = Cluster()
    for line in lines:
        cluster.caches[int(line[0])].put(line[1:].encode())
    state = encode_state(cluster.store.snapshot(), OWNER)
    yield "last-state", "compressed", b"\0" + state
    yield "last-state", "text", b"\1" + gzip.decompress(state)
    services = [item for item in listed if item["kind"] == "Service"]
    events = [("ADDED", services[0]), ("MODIFIED", services[-1]), ("DELETED", services[0])]
    events.append(("BOOKMARK", {"metadata": {"resourceVersion": "1001"}}))
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    stream = [json.dumps({"type": kind, "object": item}) for kind, item in events]
    page = {"kind": "List", "metadata": {"resourceVersion": "7"}, "items": services[:3]}
    yield "list", "page", json.dumps(page).encode()
    yield "watch", "events", ("\n".join(stream) + "\n").encode()
    yield "watch", "expired", (json.dumps({"type": "ERROR", "object": gone}) + "\n").encode()


def _kernel_seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield what the kernel lists in this network namespace, after filling it."""
    run = {"check": True, "text": True, "shell": True}
    subprocess.run(f"set -e\n{KERNEL}", **run)
    subprocess.run("nft -f -", input=NFTABLES, **run)
    subprocess.run("iptables-legacy-restore", input=LEGACY, **run)
    with Requests.open(NETLINK_ROUTE) as requests:
        for name, request in {
            "links": rtnetlink.list_links(),
            "addresses": rtnetlink.list_addresses(),
            "routes-4": rtnetlink.list_routes(socket.AF_INET),
            "routes-6": rtnetlink.list_routes(socket.AF_INET6),
            "rules-4": rtnetlink.list_rules(socket.AF_INET),
            "rules-6": rtnetlink.list_rules(socket.AF_INET6),
        }.items():
            yield "rtnetlink", name, b"".join(requests.blocks(request))
    with ExitStack() as stack:
        for family, at in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            _connect(stack, family, at)
        requests = stack.enter_context(Requests.open(NETLINK_NETFILTER))
        for version in (4, 6):
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                wanted = ctnetlink.EntryFilter(protocol)
                listed = requests.blocks(ctnetlink.list_request(version, wanted))
                yield "conntrack", f"{version}-{protocol}", b"".join(listed)
        for name, request in {
            "tables": reader.list_of(reader.GET_TABLE, reader.ANY_FAMILY),
            "chains": reader.list_of(reader.GET_CHAIN, reader.ANY_FAMILY),
            "sets": reader.list_of(reader.GET_SET, reader.INET, "shop"),
            "elements": reader.list_of(reader.GET_ELEMENTS, reader.INET, "shop", "frontends"),
            "rules": reader.list_of(reader.GET_RULE, reader.INET, "shop"),
        }.items():
            yield "nf_tables", name, b"".join(requests.blocks(request))
    for table in ("nat", "filter"):
        saved = subprocess.run(["iptables-legacy-save", "-t", table], capture_output=True)
        yield "legacy-save", table, saved.stdout


def _connect(stack: ExitStack, family: int, at: str) -> None:
    """Open a TCP connection and a UDP association, which connection tracking then lists."""
    server = stack.enter_context(socket.create_server((at, 0), family=family))
    stack.enter_context(socket.create_connection(server.getsockname()[:2]))
    datagrams = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    datagrams.bind((at, 0))
    datagrams.sendto(b"ask", datagrams.getsockname())


def main() -> None:
    """Replace all seeds."""
    loopback.enter()
    for old in CORPUS.rglob(f"{SEED}*"):
        old.unlink()
    for target, name, content in seeds():
        path = CORPUS / target / f"{SEED}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
