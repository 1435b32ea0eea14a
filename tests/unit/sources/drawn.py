"""Draws objects as an API server stores them, from few values, so that objects overlap."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]

NAMES = ("web", "wbe", "cart", "web-admin")
NAMESPACES = ("shop", "bank")
NODES = ("node-1", "node-2")
IPV4 = ("198.51.100.7", "198.51.100.8", "192.0.2.10", "127.0.0.1", "10.96.0.1")
IPV6 = ("2001:db8::7", "2001:db8::8", "fe80::1", "fd00:96::1")
HOSTS = ("db.example.com", "localhost", "x")


def is_selecting(item: Object) -> bool:
    """Return whether an object is a Service with a selector."""
    return item["kind"] == "Service" and bool(item["spec"].get("selector"))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    """Return a strategy that draws mappings with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def few(*items: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(items), max_size=2, unique=True)


def _annotations(*names: str) -> st.SearchStrategy[dict[str, str]]:
    values = ("0", "5", "wrong", "least-connections", "30s", "1.5", "db.example.com:80", "Auto")
    return st.dictionaries(st.sampled_from(names), st.sampled_from(values), max_size=2)


SERVICE_LABELS = st.dictionaries(
    st.sampled_from(
        ("service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name", "app")
    ),
    st.sampled_from(("", "mesh")),
    max_size=1,
)
SLICE_LABELS = st.fixed_dictionaries(
    {},
    optional={
        "kubernetes.io/service-name": st.sampled_from((*NAMES, *NAMES, "")),
        "service.kubernetes.io/headless": st.just(""),
        "endpointslice.kubernetes.io/managed-by": st.just("me"),
    },
)
SERVICE_ANNOTATIONS = _annotations(
    *("userspace-proxy.io/balance", "userspace-proxy.io/hold", "userspace-proxy.io/weight"),
    *("userspace-proxy.io/unknown", "userspace-proxy.io/endpoints"),
    *("service.kubernetes.io/topology-mode", "userspace-proxy.io/path"),
)
SLICE_ANNOTATIONS = _annotations(
    *("userspace-proxy.io/weight", "userspace-proxy.io/priority", "userspace-proxy.io/unknown"),
    "userspace-proxy.io/balance",
)
PORTS = ({"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"})
SLICE_PORTS = st.lists(
    st.sampled_from(
        (
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns", "port": 53, "protocol": "TCP"},
            {"name": "http"},
            {"name": "", "port": 8080, "appProtocol": "http"},
            {"port": 8080},
        )
    ),
    max_size=2,
    unique_by=lambda port: port.get("name", ""),
)
_TYPES = st.sampled_from(("ClusterIP", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"))
_OF_PORT = some(
    targetPort=st.sampled_from((8080, "http")),
    appProtocol=st.sampled_from(("http", "kubernetes.io/h2c")),
)
_CLIENT_IP = st.sampled_from((1, 60, 86400)).map(
    lambda seconds: {"clientIP": {"timeoutSeconds": seconds}}
)


_MAYBE = st.sampled_from((True, False, None))


@st.composite
def services(draw: st.DrawFn, number: int) -> Object:
    """Draw the Service with this number; its addresses and node ports are unique."""
    namespace, name = NAMESPACES[number // len(NAMES)], NAMES[number % len(NAMES)]
    ports = [{**port, **draw(_OF_PORT)} for port in draw(st.permutations(PORTS))]
    spec: Object = {"type": draw(_TYPES), "ports": ports[: draw(st.sampled_from((1, 2)))]}
    if len(spec["ports"]) == 1 and draw(st.booleans()):
        del spec["ports"][0]["name"]
    ips = [f"10.96.1.{number}", f"fd00:96::1:{number}"][draw(st.sampled_from((0, 0, 1))) :]
    if spec["type"] == "ClusterIP" and draw(st.booleans()):
        ips = ["None"]
    if spec["type"] == "ExternalName":
        spec["externalName"] = draw(st.sampled_from(("db.example.com", "198.51.100.7", "x")))
    else:
        spec |= {"clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": _families(ips)}
        spec["ipFamilyPolicy"] = "RequireDualStack" if len(ips) > 1 else "SingleStack"
    if spec["type"] in ("NodePort", "LoadBalancer"):
        for at, port in enumerate(spec["ports"]):
            port["nodePort"] = 30000 + 2 * number + at
        spec["externalTrafficPolicy"] = draw(st.sampled_from(("Cluster", "Local")))
    if spec["type"] == "LoadBalancer":
        spec |= draw(some(loadBalancerSourceRanges=few("192.0.2.0/24", "2001:db8::/32")))
        if spec["externalTrafficPolicy"] == "Local":
            spec["healthCheckNodePort"] = 31000 + number
    spec |= draw(
        some(
            selector=st.just({"app": "web"}),
            internalTrafficPolicy=st.sampled_from(("Cluster", "Local")),
            sessionAffinity=st.sampled_from(("None", "ClientIP")),
            publishNotReadyAddresses=st.booleans(),
            trafficDistribution=st.just("PreferClose"),
            externalIPs=few(*IPV4[:2], *IPV6[:2]),
        )
    )
    if spec.get("sessionAffinity") == "ClientIP":
        spec |= draw(some(sessionAffinityConfig=_CLIENT_IP))
    metadata = {"name": name, "namespace": namespace, "labels": draw(SERVICE_LABELS)}
    made = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    metadata["annotations"] = draw(SERVICE_ANNOTATIONS)
    if spec["type"] == "LoadBalancer":
        mode = draw(some(ipMode=st.sampled_from(("VIP", "Proxy"))))
        ingress = [{"ip": ip, **mode} for ip in draw(few(IPV4[0], IPV6[0]))]
        named = [{"hostname": "web.example.com"}] * draw(st.sampled_from((0, 0, 1)))
        made["status"] = {"loadBalancer": {"ingress": ingress + named}}
    return made


def _families(ips: list[str]) -> list[str]:
    return ["IPv6" if ":" in ip else "IPv4" for ip in ips]


@st.composite
def slices(draw: st.DrawFn, number: int) -> Object:
    """Draw the slice with this number."""
    family, ips = draw(st.sampled_from((("IPv4", IPV4), ("IPv6", IPV6), ("FQDN", HOSTS))))
    endpoint = some(
        conditions=some(ready=_MAYBE, serving=_MAYBE, terminating=_MAYBE),
        nodeName=st.sampled_from(NODES),
        hostname=st.sampled_from(("web-0", "web-1")),
        zone=st.sampled_from(("east", "west")),
        hints=some(forZones=st.sampled_from(("east", "west")).map(lambda zone: [{"name": zone}])),
        targetRef=st.sampled_from(
            (
                {"kind": "Pod", "name": "web-0"},
                {"kind": "Pod", "name": "web-0", "namespace": "bank"},
                {"kind": "Node", "name": "node-1"},
            )
        ),
    )
    endpoints = [
        {"addresses": [draw(st.sampled_from(ips))], **draw(endpoint)}
        for _ in range(draw(st.sampled_from((0, 1, 1, 2))))
    ]
    metadata = {
        "name": f"{draw(st.sampled_from(NAMES))}-{number}",
        "namespace": draw(st.sampled_from(NAMESPACES)),
        "labels": draw(SLICE_LABELS),
        "annotations": draw(SLICE_ANNOTATIONS),
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family,
        "endpoints": endpoints,
        "ports": draw(SLICE_PORTS),
    }


@st.composite
def _kubernetes(draw: st.DrawFn) -> list[Object]:
    """Draw the Service of the API server, and its slices."""
    metadata = {"name": "kubernetes", "namespace": "default"}
    labels = {"kubernetes.io/service-name": "kubernetes"}
    labels |= draw(some(**{"service.kubernetes.io/headless": st.just("")}))
    ips = {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"]}
    spec = {"type": "ClusterIP", "ports": [{"name": "https", "port": 443}], **ips}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.10"]}],
            "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
        },
    ]


def _node(number: int) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just("v1"),
            "kind": st.just("Node"),
            "metadata": some(
                labels=st.just({"topology.kubernetes.io/zone": "east"}),
            ).map(lambda metadata: {"name": NODES[number], **metadata}),
            "spec": some(podCIDRs=st.just([f"198.51.{number}.0/24"])),
            "status": st.just(
                {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{10 + number}"}]}
            ),
        }
    )


def _each(make: Any, count: int, **limits: int) -> st.SearchStrategy[list[Object]]:
    numbers = st.lists(st.integers(0, count - 1), unique=True, **limits)
    return numbers.flatmap(lambda found: st.tuples(*map(make, found)).map(list))


OBJECTS = st.tuples(
    _each(services, len(NAMES) * len(NAMESPACES), min_size=1, max_size=4),
    _each(slices, 6, max_size=4),
    _each(_node, 2),
    st.one_of(st.just([]), _kubernetes()),
).map(lambda parts: [item for part in parts for item in part])
