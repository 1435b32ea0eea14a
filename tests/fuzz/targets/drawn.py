"""Draws Services, EndpointSlices and Nodes with usual, unusual and invalid values."""

from __future__ import annotations

from hypothesis import strategies as st

IPS = st.sampled_from(
    [
        *("10.96.0.10", "10.96.0.11", "None", "", "198.51.100.7", "203.0.113.9", "127.0.0.1"),
        *("fd00:96::10", "2001:db8::7", "::ffff:10.0.0.1", "fe80::1", "ff02::1", "010.1.1.1"),
        *("0.0.0.0", "::", "192.0.2.10", "255.255.255.255", "10.96.0.10/32", "host", "fe80::1%lo"),
    ]
)
NAMES = st.sampled_from(["web", "cart", "a.b", "", "UPPER", "x" * 64, "é", "node-1", "node-2"])
NUMBERS = (
    st.sampled_from([80, 8080, 30080, 0, -1, 65535, 65536, 2**31, 2**63, 2**64]) | st.booleans()
)
ODD = st.none() | st.sampled_from([0, 1.5, -0.0, True, "", "text", [], [None], {}, {"": None}])
NETWORKS = st.sampled_from(
    ["10.0.0.0/8", "0.0.0.0/0", "::/0", "10.1.2.3/8", "fd00::/64", "x", " 192.0.2.0/24 ", "1/33"]
)


def _texts(*words: str) -> st.SearchStrategy[str]:
    return st.sampled_from([*words, "", "Other"])


def _some(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Draw a mapping that lacks some fields, and in which a field may have a wrong type."""
    strategies = {name: st.one_of(values, values, values, ODD) for name, values in fields.items()}
    return st.fixed_dictionaries({}, optional=strategies)


def _few(items: st.SearchStrategy[object]) -> st.SearchStrategy[list[object]]:
    return st.lists(items, max_size=3)


LABELS = st.dictionaries(
    _texts(
        "kubernetes.io/service-name",
        "service.kubernetes.io/headless",
        "service.kubernetes.io/service-proxy-name",
        "topology.kubernetes.io/zone",
    ),
    NAMES | st.none(),
    max_size=2,
)
ANNOTATIONS = st.dictionaries(
    _texts(
        "userspace-proxy.io/balance",
        "service.beta.kubernetes.io/load-balancer-source-ranges",
        "service.kubernetes.io/topology-mode",
    ),
    _texts("least-connections", "10.0.0.0/8, fd00::/8", "Auto", ","),
    max_size=2,
)
METADATA = _some(
    name=NAMES,
    namespace=NAMES,
    labels=LABELS.map(lambda labels: {"kubernetes.io/service-name": "web", **labels}),
    annotations=ANNOTATIONS,
    creationTimestamp=_texts("2026-01-01T00:00:00Z", "yesterday"),
    deletionTimestamp=st.none() | _texts("2026-01-01T00:00:00Z"),
    resourceVersion=_texts("1", "2"),
)
POLICIES = _texts("Local", "Cluster")
INGRESS = _some(ip=IPS, hostname=NAMES, ipMode=_texts("VIP", "Proxy"))
SERVICE = _some(
    metadata=METADATA,
    spec=_some(
        type=_texts("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
        clusterIP=IPS,
        clusterIPs=_few(IPS),
        ipFamilies=_few(_texts("IPv4", "IPv6")),
        ipFamilyPolicy=_texts("SingleStack", "PreferDualStack", "RequireDualStack"),
        externalIPs=_few(IPS),
        loadBalancerIP=IPS,
        loadBalancerSourceRanges=_few(NETWORKS),
        ports=_few(
            _some(
                name=NAMES,
                port=NUMBERS,
                targetPort=NUMBERS | NAMES,
                protocol=_texts("TCP", "UDP", "SCTP"),
                nodePort=NUMBERS,
                appProtocol=NAMES,
            )
        ),
        sessionAffinity=_texts("None", "ClientIP"),
        sessionAffinityConfig=_some(clientIP=_some(timeoutSeconds=NUMBERS)),
        internalTrafficPolicy=POLICIES,
        externalTrafficPolicy=POLICIES,
        healthCheckNodePort=NUMBERS,
        trafficDistribution=_texts("PreferClose", "PreferSameZone", "PreferSameNode"),
        publishNotReadyAddresses=st.booleans(),
        selector=st.dictionaries(NAMES, NAMES, max_size=1),
    ),
    status=_some(loadBalancer=_some(ingress=_few(INGRESS))),
)
HINTS = _few(_some(name=_texts("east", "west", "node-1")))
SLICE = _some(
    metadata=METADATA,
    addressType=_texts("IPv4", "IPv6", "FQDN"),
    endpoints=_few(
        _some(
            addresses=_few(IPS),
            conditions=_some(ready=st.booleans(), serving=st.booleans(), terminating=st.booleans()),
            nodeName=NAMES,
            zone=NAMES,
            hints=_some(forZones=HINTS, forNodes=HINTS),
        )
    ),
    ports=_few(_some(name=NAMES, port=NUMBERS, protocol=_texts("TCP", "UDP"))),
)
NODE = _some(
    metadata=METADATA,
    spec=_some(podCIDRs=_few(NETWORKS), taints=_few(_some(key=NAMES, effect=NAMES))),
    status=_some(addresses=_few(_some(type=_texts("InternalIP", "ExternalIP"), address=IPS))),
)


def _as_object(
    kind: str, version: str, item: st.SearchStrategy[dict[str, object]]
) -> st.SearchStrategy[dict[str, object]]:
    return item.map(lambda fields: {"apiVersion": version, "kind": kind, **fields})


OBJECTS = st.lists(
    st.one_of(
        st.tuples(st.just(0), _as_object("Service", "v1", SERVICE)),
        st.tuples(st.just(1), _as_object("EndpointSlice", "discovery.k8s.io/v1", SLICE)),
        st.tuples(st.just(2), _as_object("Node", "v1", NODE)),
    ),
    max_size=4,
)
"""Up to four objects of any kind, each with the index of its kind in ``api.RESOURCES``."""
