from dataclasses import replace

import pytest

from userspace_proxy.causes.nodes import (
    behind,
    beside_kube_proxy,
    clock_off,
    other_settings,
    other_version,
    own_clock_off,
    several_agents,
    source_fails,
)
from userspace_proxy.causes.say import say
from userspace_proxy.facts import FirewallFacts, LastStateFacts, Level, RejectedFacts, SourceFacts
from userspace_proxy.model.quoting import SHOWN_MAX
from userspace_proxy_kubectl.nodes.agent_causes import agent_ended, agent_restarts
from userspace_proxy_kubectl.nodes.findings import (
    OtherSetting,
    clock_of,
    findings_of,
    other_settings_of,
)
from userspace_proxy_kubectl.nodes.words import format_finding

from .views import CUT_OFF, NOW, PROBLEM, agent_on, all_of, answer_of, without_answer


def findings_in(all_nodes):
    return findings_of(all_nodes, other_settings_of(all_nodes.answers))


def said(*answers):
    return [(finding.cause, finding.nodes) for finding in findings_in(all_of(*answers))]


def test_a_node_whose_agent_has_never_run_is_a_finding_of_level_attention():
    ended = [without_answer(n, agent_ended("net", "it waits", f"x-{n}"), agents=()) for n in "cd"]
    found = findings_in(all_of(without_answer("a", agents=()), *ended, without_answer("b")))
    assert [one.nodes for one in found] == [("c", "d"), ("b",), ("a",)]
    assert [one.level for one in found] == [Level.TROUBLE, Level.TROUBLE, Level.ATTENTION]


def test_an_unresponsive_nodes_last_response_adds_no_finding():
    firewalls = (FirewallFacts("ip filter in", "policy drop", "Add a rule"),)
    old = answer_of("a", source=CUT_OFF, firewalls=firewalls, problem=PROBLEM)
    assert said(old) == [(PROBLEM, ("a",))]


def test_nodes_are_not_compared_with_a_former_agents_response():
    former = answer_of(
        "a",
        version="0.0.9",
        settings={"workers": 2},
        now=NOW + 60,
        behind=("shop/web",),
        problem=PROBLEM,
    )
    others = [answer_of(node) for node in "bc"]
    assert said(former, *others) == [(PROBLEM, ("a",))]
    assert other_settings_of([former, *others]) == {}


def test_two_serving_agents_on_a_node_and_recent_restarts_are_reported():
    agents = (agent_on("a"), agent_on("a", "other"))
    names = ("kube-system/userspace-proxy-a", "kube-system/other-a")
    assert said(answer_of("a", agents=agents)) == [(several_agents(names), ("a",))]
    restarts = agent_restarts("ended with status 0", "kube-system", is_graceful=True)
    lasts = (restarts.replace(count=1, last_at=NOW - ago) for ago in (90, 60, 120))
    found = [replace(answer_of(n), restarts=one) for n, one in zip("abc", lasts, strict=True)]
    (finding,) = findings_in(all_of(*found))
    assert format_finding(finding, NOW) == f"a, b and c: {say(restarts)} (once, last 1 min ago)"


@pytest.mark.parametrize("last", [LastStateFacts(), LastStateFacts("s", NOW - 300)])
def test_an_agent_that_cannot_read_from_the_api_server_is_reported_as_cut_off(last):
    found = said(answer_of("a", source=CUT_OFF, last_state=last), answer_of("b"))
    assert found == [(source_fails(CUT_OFF.problems[0]), ("a",))]


def test_a_long_refusal_of_the_api_server_is_reported_in_full():
    refusal = f"refuses to list nodes: {SHOWN_MAX * 'x'} is forbidden (allow this user to list)"
    found = said(answer_of("a", source=SourceFacts("kubernetes", problems=[refusal])))
    assert found == [(source_fails(refusal), ("a",))]


def test_rules_of_kube_proxy_beside_the_proxys_rules_are_named():
    places = tuple(f"chain KUBE-SERVICES of table {table}" for table in "abcd")
    found = said(
        answer_of("a", kube_proxy=places), answer_of("b", kube_proxy=places[1:]), answer_of("c")
    )
    assert found == [(beside_kube_proxy(places[:3]), ("a", "b"))]


def test_rejected_objects_do_not_mark_an_agent_as_cut_off():
    rejected = RejectedFacts.at("Service shop/x", "ports: missing")
    source = SourceFacts(
        "kubernetes", "x", is_synced=True, problems=(rejected.line,), rejected=(rejected,)
    )
    (one,) = findings_in(all_of(answer_of("a", source=source), answer_of("b", source=source)))
    assert (one.nodes, say(one.cause)) == (("a", "b"), f"Source: {rejected.line}")
    (one,) = findings_in(all_of(answer_of("c", source=SourceFacts("manifests", problems=("x",)))))
    assert say(one.cause) == "Source: x"


def test_many_problems_of_one_agent_are_truncated_and_listed_last():
    many = tuple(FirewallFacts(f"ip filter c{number}", "x") for number in range(99))
    found = said(answer_of("a", firewalls=many), without_answer("b"))
    assert found[0] == (PROBLEM, ("b",))
    assert len(found) == 6


def test_each_version_without_a_majority_is_reported():
    old, new = {"version": "0.1.0"}, {"version": "0.2.0", "commit": "0123456789ab"}
    found = said(answer_of("a", **old), *(answer_of(node, **new) for node in "bc"))
    assert found == [(other_version("0.1.0", "0.2.0 (commit 0123456789ab)"), ("a",))]
    found = said(answer_of("a", **old), answer_of("b", **new))
    assert [nodes for _, nodes in found] == [("a",), ("b",)]


def test_settings_are_compared_if_a_majority_exists():
    answers = [
        answer_of("a", settings={"steering": "iptables", "node_ip": "a"}),
        answer_of("b", settings={"workers": 2, "node_ip": "b", "hostname_override": "b"}),
        answer_of("c", settings={"workers": 2, "node_ip": "c"}),
    ]
    assert other_settings_of(answers) == {
        "a": {"steering": OtherSetting("iptables", ""), "workers": OtherSetting("", "2")}
    }
    assert other_settings_of(answers[:2]) == {}
    values = ("steering=iptables (default)", "workers=default (2)")
    assert said(*answers) == [(other_settings(values), ("a",))]


def test_lagging_nodes_are_one_finding_with_all_services():
    found = findings_in(
        all_of(
            answer_of("a", behind=("shop/b", "shop/a")), answer_of("b", behind=("shop/c", "x/d"))
        )
    )
    ((cause, nodes, services),) = [(one.cause, one.nodes, one.services) for one in found]
    assert nodes == ("a", "b")
    assert services == ("shop/a", "shop/b", "shop/c", "x/d")
    assert cause == behind(services[:3], 4)


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (NOW + 1.9, None),
        (NOW + 2.1, clock_off(2, is_ahead=True)),
        (NOW - 2.0, None),
        (NOW - 3600, clock_off(3600, is_ahead=False)),
        (0.0, None),
    ],
)
def test_a_clock_is_reported_as_off_unless_the_transfer_time_explains_it(now, cause):
    nodes = [answer_of("a", now=now), answer_of("b"), answer_of("c")]
    assert said(*nodes) == ([] if cause is None else [(cause, ("a",))])


def test_a_slow_response_explains_a_larger_clock_difference():
    slow = answer_of("a", now=NOW - 9, asked_at=NOW - 10)
    assert said(slow, answer_of("b"), answer_of("c")) == []
    assert clock_of(slow) == (-4.0, 5.0)
    assert clock_of(without_answer("b")) is None
    assert clock_of(answer_of("a", asked_at=0.0)) is None


def test_several_wrong_clocks_are_one_finding_with_the_largest_difference():
    off = answer_of("a", now=NOW + 3), answer_of("b", now=NOW + 9)
    assert said(*off, *(answer_of(node) for node in "cde")) == [
        (clock_off(9, is_ahead=True, are_several=True), ("a", "b"))
    ]


@pytest.mark.parametrize(("by", "is_ahead"), [(30.0, False), (-30.0, True)])
def test_a_shared_clock_offset_of_most_nodes_is_attributed_to_this_machine(by, is_ahead):
    nodes = [answer_of(name, now=NOW + by) for name in "abc"]
    alone = clock_off(30, is_ahead=not is_ahead)
    assert said(nodes[0]) == [(alone, ("a",))]
    own = (own_clock_off(30, is_ahead), ())
    assert said(*nodes) == [own]
    right = answer_of("d")
    found = said(*nodes, right)
    assert found == [(clock_off(30, is_ahead=is_ahead), ("d",)), own]
