import json

import pytest

from userspace_proxy.model import (
    Endpoint,
    IPFamily,
    Service,
    ServiceKey,
    ServiceType,
    SlicePort,
    SocketAddress,
)
from userspace_proxy.model.pod_endpoints import (
    PodKey,
    PodPort,
    PodSelection,
    TargetPort,
    derive_slices,
    is_selecting,
    read_pod,
    read_selection,
)
from userspace_proxy.model.wire import FieldError, WirePod, WireService, decode

WEB = Service(ServiceKey("shop", "web"), (), selector=(("app", "web"),))
READY = {"type": "Ready", "status": "True"}
HTTP = PodSelection((TargetPort("http", "TCP", "web"),), (IPFamily.IPV4,))


def pod(name="web-1", ip="10.244.0.3", *, conditions=(READY,), ports=(), **fields):
    """Return a Pod, which is ready by default."""
    metadata = {"name": name, "namespace": "shop", **fields.pop("metadata", {})}
    status = {"podIP": ip, "conditions": list(conditions), **fields.pop("status", {})}
    spec = {"containers": [{"ports": list(ports)}], **fields.pop("spec", {})}
    written = {"metadata": metadata, "spec": spec, "status": status}
    return read_pod(decode(json.dumps(written).encode(), WirePod))


def selection(**spec):
    return read_selection(decode(json.dumps({"spec": spec}).encode(), WireService))


WEB_PORT = {"name": "web", "containerPort": 8080}
DNS_PORT = {"name": "dns", "containerPort": 5, "protocol": "UDP"}


def addresses(slices):
    """Return the endpoint addresses of the port http."""
    return [
        str(SocketAddress(endpoint.ip, port.port))
        for item in slices
        for port in item.ports
        if (port.name, port.protocol) == ("http", "TCP")
        for endpoint in item.endpoints
    ]


def test_a_pods_labels_ports_addresses_and_conditions_are_read():
    read = pod(
        ports=[
            WEB_PORT,
            {"containerPort": 9},
            DNS_PORT,
            {"name": "dns", "containerPort": 6},
            {**WEB_PORT, "containerPort": 1},
        ],
        metadata={"labels": {"app": "web", "empty": None}},
        spec={"nodeName": "node-1", "hostname": "web-1", "subdomain": "web"},
    )
    assert (read.key, read.labels) == (PodKey("shop", "web-1"), {("app", "web"), ("empty", "")})
    assert read.ports == {("web", "TCP"): 8080, ("dns", "UDP"): 5, ("dns", "TCP"): 6}
    assert (read.ips, read.node) == (("10.244.0.3",), "node-1")
    assert (read.hostname, read.subdomain) == ("web-1", "web")
    assert (read.is_ready, read.is_terminating, read.has_ended) == (True, False, False)


def test_a_pod_without_status_or_spec_has_no_address_and_is_not_ready():
    read = read_pod(decode(b'{"metadata": {"name": "new"}}', WirePod))
    assert (read.key, read.ips, read.is_ready) == (PodKey("default", "new"), (), False)


def test_a_pod_has_the_first_address_of_each_family():
    both = pod(status={"podIPs": [{"ip": "fd00::3"}, {"ip": "10.244.0.3"}, {"ip": "fd00::4"}]})
    assert sorted(both.ips) == ["10.244.0.3", "fd00::3"]


@pytest.mark.parametrize(
    ("fields", "is_serving", "is_terminating"),
    [
        ({"conditions": []}, False, False),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, False, False),
        ({"metadata": {"deletionTimestamp": "2026-11-21T09:00:00Z"}}, True, True),
    ],
)
def test_unready_and_terminating_pods_are_marked_as_such(fields, is_serving, is_terminating):
    (item,) = derive_slices(WEB, HTTP, [pod(**fields)])
    assert item.endpoints == (
        Endpoint("10.244.0.3", ready=False, serving=is_serving, terminating=is_terminating),
    )


def test_a_service_publishing_unready_addresses_has_all_endpoints_ready():
    published = selection(ports=[{"port": 80}], publishNotReadyAddresses=True)
    deleted = {"deletionTimestamp": "2026-11-21T09:00:00Z"}
    (item,) = derive_slices(WEB, published, [pod(conditions=[]), pod("web-2", metadata=deleted)])
    assert [endpoint.ready for endpoint in item.endpoints] == [True, True]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_is_not_an_endpoint(phase):
    (item,) = derive_slices(WEB, HTTP, [pod(status={"phase": phase})])
    assert item.endpoints == ()


def test_a_pod_without_an_address_is_not_an_endpoint():
    (item,) = derive_slices(WEB, HTTP, [pod(ip="")])
    assert (item.family, item.endpoints) == (IPFamily.IPV4, ())


def test_a_named_target_port_resolves_per_pod():
    pods = [
        pod(ports=[WEB_PORT]),
        pod("web-2", "10.244.0.4", ports=[{"name": "web", "containerPort": 9090}]),
        pod("web-3", "10.244.0.5", ports=[WEB_PORT]),
    ]
    slices = derive_slices(WEB, HTTP, pods)
    assert addresses(slices) == ["10.244.0.3:8080", "10.244.0.5:8080", "10.244.0.4:9090"]
    assert [str(item.key) for item in slices] == ["shop/web:pods-1", "shop/web:pods-2"]


def test_an_unresolved_target_port_name_yields_no_port():
    (item,) = derive_slices(WEB, HTTP, [pod(ports=[{"name": "metrics", "containerPort": 9}])])
    assert (len(item.endpoints), item.ports) == (1, ())


def test_an_invalid_port_number_is_omitted():
    odd = selection(ports=[{"name": "http", "port": 80, "targetPort": 70000}, {"name": "none"}])
    (item,) = derive_slices(WEB, odd, [pod()])
    assert item.ports == ()


def test_a_restartable_init_container_provides_ports():
    kept = {"restartPolicy": "Always", "ports": [WEB_PORT]}
    over = {"ports": [{"name": "web", "containerPort": 1}]}
    (item,) = derive_slices(WEB, HTTP, [pod(spec={"initContainers": [over, kept]})])
    assert item.ports == (SlicePort("http", 8080, "TCP"),)


def test_the_ports_annotation_changes_the_ports_of_a_pod():
    annotations = {"userspace-proxy.io/ports": "8080=37741, 5/UDP=40001"}
    moved = pod(ports=[WEB_PORT, DNS_PORT], metadata={"annotations": annotations})
    assert moved.listens_at == {PodPort(8080, "TCP"): 37741, PodPort(5, "UDP"): 40001}
    numbers = selection(
        ports=[
            {"name": "http", "port": 80, "targetPort": "web"},
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
            {"name": "other", "port": 5},
        ]
    )
    (item,) = derive_slices(WEB, numbers, [moved])
    assert item.ports == (
        SlicePort("dns", 40001, "UDP"),
        SlicePort("http", 37741, "TCP"),
        SlicePort("other", 5, "TCP"),
    )


@pytest.mark.parametrize(
    "text",
    ["8080", "8080=0", "web=80", "80/SCTP=81", "80=81,", "80=99999", "80=" + "9" * 9999],
    ids=lambda text: text[:9],
)
def test_an_invalid_ports_annotation_is_an_error_showing_the_format(text):
    with pytest.raises(FieldError) as caught:
        pod(metadata={"annotations": {"userspace-proxy.io/ports": text}})
    assert str(caught.value).startswith("metadata.annotations[userspace-proxy.io/ports]: '")
    assert str(caught.value).endswith("is not of the form 8080=37741 or 53/UDP=40001")


def test_a_dual_stack_service_has_slices_of_both_families():
    dual = selection(
        ports=[{"name": "http", "port": 80, "targetPort": 8080}], ipFamilies=["IPv6", "IPv4"]
    )
    both = pod(status={"podIPs": [{"ip": "10.244.0.3"}, {"ip": "fd00::3"}]})
    slices = derive_slices(WEB, dual, [both])
    assert addresses(slices) == ["10.244.0.3:8080", "[fd00::3]:8080"]
    assert [item.family for item in derive_slices(WEB, dual, [])] == [IPFamily.IPV4, IPFamily.IPV6]


def test_an_address_of_another_family_is_not_an_endpoint():
    (item,) = derive_slices(WEB, HTTP, [pod(ip="fd00::3")])
    assert (item.family, item.endpoints) == (IPFamily.IPV4, ())


def test_a_pods_hostname_requires_its_subdomain_to_be_the_service():
    named = pod(spec={"hostname": "db-0", "subdomain": "web", "nodeName": "node-1"})
    (item,) = derive_slices(WEB, HTTP, [named])
    assert [(e.hostname, e.node) for e in item.endpoints] == [("db-0", "node-1")]
    (item,) = derive_slices(
        Service(ServiceKey("shop", "other"), (), selector=WEB.selector), HTTP, [named]
    )
    assert [e.hostname for e in item.endpoints] == [""]


def test_a_service_without_ports_and_families_has_an_ipv4_selection_without_ports():
    assert selection() == PodSelection((), (IPFamily.IPV4,))
    assert read_selection(decode(b"{}", WireService)) == selection()


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (WEB, True),
        (Service(WEB.key, ()), False),
        (Service(WEB.key, (), type=ServiceType.EXTERNAL_NAME, selector=WEB.selector), False),
    ],
)
def test_only_services_with_a_selector_select_pods(service, expected):
    assert is_selecting(service) is expected
