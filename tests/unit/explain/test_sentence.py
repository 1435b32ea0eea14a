"""Tests of an explanation's sentence: the deciding step, and additions."""

import pytest

from tests.unit.status.views import NOW, make_address, make_endpoint, make_port, replace
from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import answers_flows_late, denies
from userspace_proxy.causes.say import say
from userspace_proxy.causes.services import balanced_elsewhere
from userspace_proxy.explain import explain
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.facts import PortState
from userspace_proxy.model import DataPath, Protocol
from userspace_proxy.policy import PathDecision

from .subjects import make_dead_endpoint, make_subject
from .words import CHAIN, OTHER, POD, on_node

DENIES = denies(make_address(POD), "10.244.0.123")
DENYING = make_endpoint(
    POD, connections=20, sent_bytes=9, cause=replace(DENIES, count=5, last_at=NOW - 3)
)


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        pytest.param({"port": "metrics"}, "Port metrics: ", id="port"),
        pytest.param({"family": "IPv6"}, "IPv6: ", id="family"),
        pytest.param({"port": "metrics", "family": "IPv6"}, "Port metrics, IPv6: ", id="both"),
        pytest.param({"side": "external"}, "External: ", id="side"),
    ],
)
def test_the_sentence_names_what_distinguishes_a_failing_port_from_a_served_port(changes, which):
    dead = replace(make_port(endpoints=(make_dead_endpoint(POD),)), **changes)
    alone, beside = explain(make_subject(dead)), explain(make_subject(make_port(), dead))
    assert beside.sentence == f"{which}{alone.sentence}"
    assert alone.sentence == dead.state.sentence


def test_a_port_whose_only_endpoint_answered_late_before_is_not_called_served():
    late = answers_flows_late(POD).replace(when=When.PAST, count=3)
    endpoint = make_endpoint(POD, connections=3, sent_bytes=9, cause=late, is_past=True)
    port = make_port(endpoints=(endpoint,), protocol=Protocol.UDP)
    assert explain(make_subject(port)).sentence == port.state.sentence


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        pytest.param({"endpoints": (), "reason": "none is ready"}, PortState.REFUSED, id="all"),
        pytest.param({"endpoints": (DENYING,)}, PortState.PARTLY_ANSWERING, id="some"),
    ],
)
def test_failing_clients_take_precedence_over_a_note_on_another_port(changes, state):
    served = make_port(notes=("its mode isn't followed",))
    failing = replace(make_port(**changes), family="IPv6")
    explanation = explain(make_subject(served, failing))
    assert explanation.sentence == (
        f"IPv6: {failing.state.sentence}; also: its mode isn't followed"
    )
    assert failing.state.word is state


def test_ports_with_equal_numbers_have_titles_with_their_protocols():
    udp = make_port("dns", port="dns", protocol=Protocol.UDP, shared_number=53)
    tcp = make_port("dns", port="dns-tcp", shared_number=53, problem="its port is taken")
    explanation = explain(make_subject(udp, tcp, service="shop/dns"))
    titles = sorted(part.title for part in explanation.parts[1:])
    assert titles == ["shop/dns:dns 53/UDP (IPv4)", "shop/dns:dns-tcp 53/TCP (IPv4)"]
    assert explanation.sentence.startswith("Port dns-tcp, 53/TCP: ")


def test_session_affinity_to_a_single_endpoint_is_not_reported():
    alone = make_port(endpoints=(make_endpoint(POD),), affinity_timeout_s=10800)
    assert "sessionAffinity" not in explain(make_subject(alone)).sentence


def test_only_the_clients_address_family_is_explained():
    there = make_port(endpoints=(make_endpoint(POD, "refused", False),), reason="no")
    subject = on_node(make_endpoint(POD), there=there)
    assert "on a node" not in explain(subject, client="fd00::1").sentence


def test_a_service_is_served_while_one_of_its_ports_answers():
    quiet = make_port(is_quiet=True, sent_at=NOW - 90)
    other = make_port(port="metrics", sent_at=NOW - 2)
    unused = make_port(port="admin", connections=0, sent_bytes=0)
    assert explain(make_subject(quiet, other)).sentence == explain(make_subject()).sentence
    assert "last answer 1 min ago" in explain(make_subject(unused, quiet)).sentence


@pytest.mark.parametrize("figures", [{}, {"connections": 7, "sent_bytes": 0}, {"is_quiet": True}])
def test_a_note_about_a_load_balancer_serving_by_design_is_shown_once(figures):
    balancer = balanced_elsewhere("192.0.2.9")
    sentence = explain(make_subject(make_port(notes=(balancer,), **figures))).sentence
    assert sentence.count(say(balancer)) == 1


def test_probes_on_the_kernel_path_prove_only_that_connections_are_accepted():
    port = make_port(path=PathDecision(DataPath.KERNEL), is_probed=True)
    dials = {endpoint.address: DialResult(0.1) for endpoint in port.endpoints}
    assert "probes show only" in explain(make_subject(port), dials=dials).sentence


def test_the_sentence_about_one_failing_port_does_not_mention_firewalls():
    refused = make_port(port="metrics", endpoints=(), reason="none is ready")
    served = make_port(endpoints=(make_endpoint(OTHER, sent_at=NOW - 1),))
    explanation = explain(make_subject(served, refused, firewalls=(CHAIN,)))
    assert explanation.sentence == f"Port metrics: {refused.state.sentence}"
