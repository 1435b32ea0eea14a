import pytest

from tests.unit.status.views import NOW, make_port, make_two_sides, replace
from userspace_proxy.causes.say import say
from userspace_proxy.causes.services import balanced_elsewhere, source_denied
from userspace_proxy.causes.slices import none_local
from userspace_proxy.diagnosis.clauses import no_client_yet
from userspace_proxy.diagnosis.dated import cause_at
from userspace_proxy.explain import explain
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.explain.served import policy_drops, served_sentence
from userspace_proxy.model import DataPath
from userspace_proxy.policy import PathDecision

from .subjects import make_subject


@pytest.mark.parametrize("figures", [{"refused": 5}, {"failures": 5}, {"resets": 1}])
def test_clients_that_failed_have_connected(figures):
    sentence = explain(make_subject(make_port(connections=0, sent_bytes=0, **figures))).sentence
    assert sentence.endswith(f"; {no_client_yet(has_failed=True).text}")


def test_the_sentence_counts_clients_that_are_dropped():
    denied = source_denied(("198.51.100.0/24",)).replace(count=2, last_at=NOW - 4)
    first = explain(make_subject()).sentence
    ranges = explain(make_subject(make_port(turned_away=(denied,))))
    assert ranges.sentence == f"{first}; {cause_at(denied, NOW)}"
    inside, outside = make_two_sides()
    policy = none_local(1, 0, "node-b", "externalTrafficPolicy")
    elsewhere, outside = replace(policy, count=3), replace(outside, cause=policy)
    for others in ((), (denied,)):
        outside = replace(outside, turned_away=(*others, elsewhere))
        clauses = explain(make_subject(inside, outside, service="shop/front")).sentence.split("; ")
        assert clauses[:-1] == [first, *(cause_at(one, NOW) for one in others)]
        assert clauses[-1].startswith("clients from outside ")
        assert clauses[-1].endswith(f": {cause_at(elsewhere, NOW)}")


def test_clients_of_a_service_are_served_while_one_of_its_ports_answers():
    quiet = make_port(is_quiet=True, sent_at=NOW - 90)
    other = make_port(port="metrics", sent_at=NOW - 2)
    unused = make_port(port="admin", connections=0, sent_bytes=0)
    assert explain(make_subject(quiet, other)).sentence == explain(make_subject()).sentence
    assert "last answer 1 min ago" in explain(make_subject(unused, quiet)).sentence


@pytest.mark.parametrize("figures", [{}, {"connections": 7, "sent_bytes": 0}, {"is_quiet": True}])
def test_what_is_served_elsewhere_by_design_is_said_once(figures):
    balancer = balanced_elsewhere("192.0.2.9")
    sentence = explain(make_subject(make_port(notes=(balancer,), **figures))).sentence
    assert sentence.count(say(balancer)) == 1


def test_a_service_without_ports_says_so():
    assert served_sentence((), make_subject(), {}) == "shop/web has no ports"


@pytest.mark.parametrize(
    ("changes", "is_dialled", "end"),
    [
        pytest.param({}, False, "known on this path", id="nothing"),
        pytest.param({}, True, "this machine show only", id="dials"),
        pytest.param({"is_probed": True}, True, "probes show only", id="probes"),
        pytest.param(
            {"kernel_connections": 0, "connections": 0},
            False,
            f"; {no_client_yet().text}",
            id="no-client",
        ),
    ],
)
def test_on_the_kernel_path_it_is_not_known_whether_clients_are_answered(changes, is_dialled, end):
    port = make_port(path=PathDecision(DataPath.KERNEL), **changes)
    answered = DialResult(0.1)
    dials = {e.address: answered for e in port.endpoints} if is_dialled else {}
    sentence = served_sentence([port], make_subject(), dials)
    assert " to 2 endpoints; " in sentence
    assert end in sentence


def test_a_policy_that_drops_no_client_now_has_no_cause():
    assert policy_drops(make_port()) is None
