from dataclasses import replace

import msgspec
import pytest

from userspace_proxy.causes.services import is_headless
from userspace_proxy.facts import (
    facts_of_frontend,
    facts_of_ignored,
    facts_of_plan,
    facts_of_verdict,
)
from userspace_proxy.facts.planned import in_order, is_probed
from userspace_proxy.model import (
    Balance,
    DataPath,
    Frontend,
    FrontendKind,
    Handling,
    Hold,
    IPFamily,
    PortKey,
    Protocol,
    ServiceKey,
    ServicePortName,
    Side,
    SocketAddress,
)
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import IgnoredService, PortPlan
from userspace_proxy.policy import EndpointVerdict, PathDecision, Scope

POD = SocketAddress("10.244.1.7", 8080)
WEB = PortKey(ServicePortName("shop", "web", "http"), IPFamily.IPV4, Side.EXTERNAL)
HANDLING = Handling(hold=Hold(30.0), slow_start_s=60.0)


def make_plan(**changes):
    given = {"frontends": (), "serving": Serving((POD,)), **changes}
    return PortPlan(WEB, Protocol.TCP, verdicts=(), **given)


def facts_of(**changes):
    return facts_of_plan(make_plan(**changes), (), ())


def test_a_service_port_has_the_names_and_handling_of_its_plan():
    plan = make_plan(
        serving=Serving(handling=HANDLING), path=PathDecision(DataPath.KERNEL, "its annotation")
    )
    frontend = facts_of_frontend(Frontend("10.96.0.1", 80, Protocol.TCP), "proxy port 20001")
    facts = facts_of_plan(plan, [frontend], [facts_of_verdict(EndpointVerdict(POD, True, "ready"))])
    assert facts.plan is plan
    assert (facts.name, facts.family, facts.protocol) == ("shop/web:http", "IPv4", "TCP")
    assert (facts.side, facts.hold_s, facts.slow_start_s) == ("external", 30.0, 60.0)
    assert (facts.path, facts.path_reason) == ("kernel", "its annotation")
    assert [endpoint.address for endpoint in facts.endpoints] == ["10.244.1.7:8080"]
    assert facts.frontends == (frontend,)
    assert facts_of().hold_s is None


def test_a_port_number_shared_by_two_protocols_is_shown_with_the_protocol():
    assert facts_of(shared_number=53).shared_number == "53/TCP"
    assert facts_of().shared_number == ""


@pytest.mark.parametrize(
    ("handling", "expected"),
    [
        pytest.param(Handling(), "", id="default"),
        pytest.param(Handling(balance=Balance.RANDOM), "random", id="other"),
        pytest.param(Handling(max_connections=9), "least-connections", id="by-limit"),
    ],
)
def test_only_a_balance_other_than_the_default_is_shown(handling, expected):
    assert facts_of(serving=Serving(handling=handling)).balance == expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param(Scope.CLUSTER, "", id="cluster"),
        pytest.param(Scope.LOCAL, "only this node's endpoints", id="local"),
        pytest.param(
            Scope.LOCAL_FROM_OUTSIDE, "from outside: only this node's endpoints", id="outside"
        ),
    ],
)
def test_a_traffic_policy_is_formatted_in_words(scope, expected):
    assert facts_of(scope=scope).policy == expected


@pytest.mark.parametrize(
    ("changes", "starting", "preference"),
    [
        pytest.param({}, None, "", id="none"),
        pytest.param({"weight": 300}, None, "weight 300", id="weight"),
        pytest.param({}, 0.25, "starts slowly: 25 %", id="slow-start"),
        pytest.param({"weight": 300}, 0.25, "weight 300, starts slowly: 25 %", id="both"),
    ],
)
def test_an_endpoints_preference_is_formatted_in_words(changes, starting, preference):
    facts = facts_of_verdict(EndpointVerdict(POD, True, "ready", **changes), starting)
    assert (facts.preference, facts.starting) == (preference, starting)


def test_a_frontend_is_written_with_its_port():
    frontend = Frontend("fd00::1", 80, Protocol.TCP, FrontendKind.NODE_PORT)
    facts = facts_of_frontend(frontend, "refused", is_reached=False, only_at="::1")
    assert msgspec.structs.astuple(facts) == ("[fd00::1]:80", "NodePort", "refused", False, "::1")


def test_a_port_served_on_another_address_is_not_listed_as_ignored():
    lost = IgnoredService(ServiceKey("shop", "db"), "", is_headless(), True, is_part=True)
    assert facts_of_ignored([lost]) == []


def test_path_auto_is_probed_only_for_tcp_ports_with_endpoints():
    auto = PathDecision(DataPath.AUTO)
    assert is_probed(make_plan(path=auto))
    assert not is_probed(make_plan(path=auto, serving=Serving()))
    assert not is_probed(replace(make_plan(path=auto), protocol=Protocol.UDP))
    assert not is_probed(make_plan())


def test_an_endpoint_by_name_shows_its_host_name():
    verdict = EndpointVerdict(POD, True, "ready", host="db.example.com")
    assert facts_of_verdict(verdict).host == "db.example.com"


def test_frontends_are_listed_by_kind_with_loopback_last():
    addresses = {
        FrontendKind.NODE_PORT: ("192.0.2.10", "127.0.0.1"),
        FrontendKind.EXTERNAL_IP: ("203.0.113.7",),
        FrontendKind.CLUSTER_IP: ("10.96.0.10",),
    }
    made = [
        Frontend(ip, 80, Protocol.TCP, kind)
        for kind, ips in addresses.items()
        for ip in reversed(ips)
    ]
    ordered = [one.address.ip for one in in_order(make_plan(frontends=tuple(made)))]
    assert ordered == ["10.96.0.10", "203.0.113.7", "192.0.2.10", "127.0.0.1"]


def test_a_range_is_shown_without_the_ports_inside_it():
    single, other = (Frontend("10.96.0.1", port, Protocol.UDP) for port in (10000, 80))
    elsewhere = Frontend("10.96.0.2", 10000, Protocol.UDP)
    ports = Frontend("10.96.0.1", 9000, Protocol.UDP, last=20000)
    alone = single, other, elsewhere
    assert in_order(make_plan(frontends=(*alone, ports))) == [other, elsewhere, ports]
    assert facts_of_frontend(ports).address == "10.96.0.1:9000–20000"
    # Each port has its own frontend, except 9001, which belongs to another Service port.
    each = [replace(single, port=port) for port in range(9000, 20001) if port != 9001]
    serving = Serving((POD,), ranges=(DialledRange("10.96.0.1", 9000, 20000, 10000),))
    plan = make_plan(frontends=(other, elsewhere, *each), serving=serving)
    assert in_order(plan) == [other, elsewhere, ports]
