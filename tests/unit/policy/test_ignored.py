"""Which Services this proxy serves, and the reasons for others."""

import pytest

from userspace_proxy.model import CauseCode, ServicePort, ServiceType
from userspace_proxy.policy import NodeFacts, why_ignored, why_own_address, why_port_ignored
from userspace_proxy.policy.ignored import balanced_elsewhere

from ..model.samples import CART_IP_V6, service

EVERYBODYS = NodeFacts()
MESH = NodeFacts(proxy_name="mesh")


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        pytest.param(service(), EVERYBODYS, id="cluster-ip"),
        pytest.param(service(type=ServiceType.NODE_PORT), EVERYBODYS, id="node-port"),
        pytest.param(service(type=ServiceType.LOAD_BALANCER), EVERYBODYS, id="load-balancer"),
        pytest.param(service(cluster_ips=(CART_IP_V6,)), EVERYBODYS, id="ipv6"),
        pytest.param(service(ports=()), EVERYBODYS, id="no-ports"),
        pytest.param(service(proxy_name="mesh"), MESH, id="assigned-by-label"),
        pytest.param(service(proxy_name=""), NodeFacts(proxy_name=""), id="empty-label-and-name"),
    ],
)
def test_a_service_for_this_proxy_is_not_ignored(given, facts):
    assert why_ignored(given, facts) is None


@pytest.mark.parametrize(
    ("given", "facts", "reason"),
    [
        pytest.param(
            service(type=ServiceType.EXTERNAL_NAME),
            EVERYBODYS,
            "type ExternalName is served by DNS alone",
            id="external-name",
        ),
        pytest.param(
            service(cluster_ips=(), is_headless=True),
            EVERYBODYS,
            "it is headless (clusterIP: None): clients reach its endpoints directly",
            id="headless",
        ),
        pytest.param(
            service(has_headless_label=True),
            EVERYBODYS,
            "it has the label service.kubernetes.io/headless",
            id="headless-label",
        ),
        pytest.param(
            service(cluster_ips=()), EVERYBODYS, "it has no cluster IP yet", id="no-cluster-ip"
        ),
        pytest.param(
            service(proxy_name="mesh"),
            EVERYBODYS,
            "its label assigns it to the service proxy 'mesh'",
            id="label-of-another-proxy",
        ),
        pytest.param(
            service(proxy_name=""),
            EVERYBODYS,
            "its label assigns it to the service proxy ''",
            id="an-empty-label-is-a-label",
        ),
        pytest.param(
            service(),
            MESH,
            "it has no label service.kubernetes.io/service-proxy-name=mesh",
            id="proxy-with-a-label-service-without",
        ),
        pytest.param(
            service(proxy_name="other"),
            MESH,
            "its label assigns it to the service proxy 'other'",
            id="proxy-with-a-label-service-with-another",
        ),
        pytest.param(
            service(proxy_name="mesh", cluster_ips=()),
            MESH,
            "it has no cluster IP yet",
            id="the-other-rules-hold-for-labelled-ones-too",
        ),
        pytest.param(
            service(proxy_name="mesh", is_headless=True),
            EVERYBODYS,
            "its label assigns it to the service proxy 'mesh'",
            id="the-label-is-the-first-reason",
        ),
    ],
)
def test_a_service_for_another_proxy_is_ignored_with_the_reason(given, facts, reason):
    cause = why_ignored(given, facts)
    assert (cause.code, str(cause)) == (CauseCode.NOT_OURS, reason)


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        pytest.param("TCP", None, id="tcp"),
        pytest.param("UDP", None, id="udp"),
        pytest.param("SCTP", "protocol SCTP is not supported (TCP and UDP are)", id="sctp"),
        pytest.param("tcp", "protocol tcp is not supported (TCP and UDP are)", id="lower-case"),
    ],
)
def test_a_port_is_served_if_its_protocol_is_supported(protocol, reason):
    cause = why_port_ignored(ServicePort("http", 80, protocol))
    assert (cause and str(cause)) == reason


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"has_headless_label": True}, id="headless-label"),
        pytest.param({"proxy_name": "mesh"}, id="label-of-another-proxy"),
    ],
)
def test_a_service_without_its_label_is_served_again(fields):
    labelled = service(**fields)
    assert why_ignored(labelled, EVERYBODYS)
    assert why_ignored(service(labelled.key), EVERYBODYS) is None


OWN = service(cluster_ips=("10.96.0.7", "fd00::5"))


@pytest.mark.parametrize(
    ("facts", "ip"),
    [
        pytest.param({}, "", id="another"),
        pytest.param({"addresses": ("10.0.0.1", "fd00::5")}, "fd00::5", id="of-an-interface"),
        pytest.param({"primary_addresses": ("10.96.0.7",)}, "10.96.0.7", id="of-the-node-object"),
        pytest.param(
            {"addresses": ("10.96.0.7",), "allow_loopback_endpoints": True}, "", id="no-steering"
        ),
    ],
)
def test_a_cluster_ip_that_is_the_nodes_own_is_not_served(facts, ip):
    cause = why_own_address(OWN, NodeFacts(**facts))
    if not ip:
        assert cause is None
        return
    assert (cause.code, cause.object) == (CauseCode.ADDRESS_TAKEN, ip)
    assert str(cause) == f"its clusterIP {ip} is an address of this node"


def test_an_address_for_which_the_load_balancer_answers_is_not_served_here():
    cause = balanced_elsewhere("203.0.113.9")
    assert cause.code is CauseCode.NOT_OURS
    assert cause.sentence == (
        "load-balancer IP 203.0.113.9 is not served here: its ipMode is not VIP, so the load "
        "balancer itself answers for it"
    )
