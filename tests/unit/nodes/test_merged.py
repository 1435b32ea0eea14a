import sys
from dataclasses import replace

import pytest

from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy.facts import LastMinuteFacts, Level, PortState, SourceFacts
from userspace_proxy.model import IPFamily, Side
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer
from userspace_proxy_kubectl.nodes.endpoints import Extent
from userspace_proxy_kubectl.nodes.merged import (
    ASKED_MAX,
    MergedKey,
    mark_of,
    merge,
    services_to_ask,
)

from .views import (
    NOW,
    OTHER,
    POD,
    all_of,
    answer_of,
    answering,
    failing,
    make_sick_cluster,
    merged_of,
    one_port,
    untried,
    web,
    without_answer,
)

SICK, FINE = web(failing(refuses(POD))), web(answering())


def test_nodes_with_the_same_cause_are_grouped():
    seen = refuses(POD).replace(count=2, first_at=NOW - 60, last_at=NOW - 5)
    port = one_port(
        answer_of("a", web(failing(seen))),
        answer_of("b", web(failing(refuses(POD, was_open=True).replace(count=3)))),
        answer_of("c", web(failing(silent(POD)))),
        answer_of("d", FINE),
    )
    first, second = port.groups
    assert (first.nodes, second.nodes, port.served) == (("a", "b"), ("c",), 1)
    assert (first.state, first.level) == (PortState.NOT_ANSWERING, Level.TROUBLE)
    assert first.causes == (seen.replace(count=5),)
    assert second.causes == (silent(POD),)
    assert (port.level, port.unhealthy) == (Level.TROUBLE, 3)


def test_a_merged_port_has_the_hint_of_a_group_without_causes_unless_another_has_some():
    flapping = web(answering(), last_minute=LastMinuteFacts(connections=20, flaps=9))
    port = one_port(answer_of("a", flapping), answer_of("b", FINE))
    assert port.hint == port.members["a"].state.hint != ""
    assert one_port(answer_of("a", flapping), answer_of("b", SICK)).hint == ""


def test_a_node_whose_summary_omits_a_port_counts_as_serving_it():
    port = one_port(
        answer_of("a", SICK, is_summary=True, served=7),
        answer_of("b", is_summary=True, served=8),
    )
    assert (port.served, port.left_out, port.missing) == (1, 1, ())
    assert [one.left_out for one in port.endpoints] == [1]


def test_a_lagging_node_with_a_summary_does_not_count_as_serving():
    late = answer_of("b", is_summary=True, served=8)
    port = one_port(
        answer_of("a", SICK, is_summary=True, served=7),
        replace(late, behind=("shop/web",)),
        replace(late, node="c", behind=("shop/other",)),
    )
    assert (port.served, port.left_out, port.missing) == (1, 1, ())


@pytest.mark.parametrize("facts", [{}, {"is_summary": True, "served": 0}])
def test_a_node_with_a_complete_or_an_empty_response_lacks_an_unlisted_port(facts):
    port = one_port(answer_of("a", SICK), answer_of("b", **facts))
    assert (port.served, port.missing) == (0, ("b",))


def test_nodes_without_a_served_client_are_counted_as_neutral():
    quiet = web(untried(), sent_at=0.0, connections=0, sent_bytes=0, received_bytes=0)
    port = one_port(answer_of("a", quiet), answer_of("b", FINE), answer_of("c", quiet))
    assert port.served == 3
    ((why, count),) = port.neutral
    assert (why, count) == (PortState.UNKNOWN.neutral, 2)
    assert port.mark is Level.OK
    assert one_port(answer_of("a", quiet)).mark is None
    assert mark_of([one_port(answer_of("a", quiet))], more=1) is Level.OK
    assert one_port(answer_of("a", SICK)).mark is Level.TROUBLE


@pytest.mark.parametrize(
    ("fine", "failed", "mark"),
    [
        pytest.param(True, 0, Level.OK, id="one-is-idle"),
        pytest.param(True, 3, None, id="clients-of-one-fail"),
        pytest.param(False, 0, None, id="nothing-is-known"),
    ],
)
def test_the_merged_mark_is_neutral_without_proof_of_served_clients(fine, failed, mark):
    quiet = web(untried(), name="quiet", sent_at=0.0, connections=0, sent_bytes=0, refused=failed)
    merged = merged_of(answer_of("a", quiet, *([FINE] if fine else [])))
    assert merged.level is Level.OK
    assert (merged.mark, mark_of(merged.ports)) == (mark, mark)


@pytest.mark.parametrize("answers", [(), (answer_of("a", FINE),)])
def test_the_merged_mark_is_neutral_until_all_nodes_have_answered(answers):
    merged = merged_of(*answers, AgentAnswer("b"))
    assert (merged.level, merged.mark) == (Level.OK, None)
    assert merged_of(answer_of("a", FINE)).mark is Level.OK
    many = [answer_of(f"n{number}", FINE) for number in range(10)]
    marks = [one_port(*many[:count], without_answer("x")).mark for count in (9, 10)]
    assert marks == [None, Level.OK]


def test_an_unresponsive_nodes_last_response_is_not_counted():
    old = answer_of("b", SICK, problem=without_answer("b").problem)
    merged = merged_of(answer_of("a", FINE), old, without_answer("c"))
    assert (merged.nodes, merged.answered) == (("a", "b", "c"), ("a",))
    assert merged.silent == {"b", "c"}
    (port,) = merged.ports
    assert (port.served, port.groups, port.missing) == (1, (), ())
    assert not merged.incidents


def test_the_text_of_a_merged_key_contains_ipv6_and_the_external_side():
    key = MergedKey("shop", "web", "http", "IPv4", "")
    assert (str(key), key.name, key.of_service) == ("shop/web:http", "shop/web:http", "shop/web")
    other = MergedKey("shop", "web", "", "IPv6", "external")
    assert str(other) == "shop/web (IPv6, external)"


def test_a_service_known_to_one_agent_but_not_the_api_server_is_not_listed():
    made_up = web(failing(refuses(OTHER)), name="zzz")
    answers = answer_of("a", FINE, made_up), answer_of("b", FINE)
    names = [port.key.service for port in merged_of(*answers, digests={"shop/web": "1"}).ports]
    assert names == ["web"]
    assert not merged_of(*answers, digests={"shop/web": "1"}).incidents
    assert len(merged_of(*answers).ports) == 2
    both = answer_of("c", FINE, made_up)
    assert len(merged_of(*answers, both, digests={"shop/web": "1"}).ports) == 2
    source = SourceFacts("manifests", "m", is_synced=True)
    files, others = answer_of("a", made_up, source=source), answer_of("b", FINE, source=source)
    assert len(merged_of(files, answers[1], digests={"shop/web": "1"}).ports) == 2
    assert len(merged_of(answers[0], others, digests={"shop/web": "1"}).ports) == 1


def test_a_service_with_too_long_a_name_is_omitted():
    longest = web(answering(), name="x" * 253)
    fields = ("namespace", "name", "port")
    too_long = [web(answering(), **{field: "x" * 254}) for field in fields]
    merged = merged_of(answer_of("a", longest, *too_long))
    assert [port.key.service for port in merged.ports] == ["x" * 253]


def test_the_merged_view_counts_healthy_ports_omitted_by_summaries():
    answers = [answer_of(name, SICK, is_summary=True, served=199) for name in "abc"]
    assert merged_of(*answers).healthy == 199
    # A wrong count from a single agent has no effect.
    wrong = answer_of("d", SICK, is_summary=True, served=10**9)
    assert merged_of(*answers, wrong).healthy == 199
    assert merged_of(answer_of("a", SICK, FINE)).healthy == 0


def test_a_merged_view_has_the_time_of_the_last_answer():
    nodes = (answer_of(f"n{late}", FINE, answered_at=NOW - late) for late in (5, 2, 9))
    assert merged_of(*nodes).now == NOW - 2


def test_details_of_a_limited_number_of_services_are_requested_starting_with_the_most_affected():
    ports = [web(failing(refuses(POD)), name=f"s{number}") for number in range(ASKED_MAX + 5)]
    nodes = all_of(
        answer_of("a", *ports, is_summary=True),
        answer_of("b", ports[-1], is_summary=True),
        *(answer_of(node, web(failing(refuses(POD)), name="whole")) for node in "cd"),
    )
    asked = services_to_ask(nodes)
    assert asked[0] == f"shop/s{ASKED_MAX + 4}"
    assert (len(asked), "shop/whole" in asked) == (ASKED_MAX, False)


def test_sides_and_families_of_a_service_port_are_merged_separately():
    ways = ({}, {"side": Side.EXTERNAL}, {"family": IPFamily.IPV6})
    keys = [one.key for one in merged_of(answer_of("a", *(web(**way) for way in ways))).ports]
    assert sorted((key.side, key.family) for key in keys) == [
        ("", "IPv4"),
        ("", "IPv6"),
        ("external", "IPv4"),
    ]


def test_a_merged_view_is_filtered_by_service_port_or_namespace():
    merged = replace(merge(make_sick_cluster()), healthy=7)
    assert [port.key.service for port in merged.of_service("shop/api").ports] == ["api"]
    assert merged.of_service("shop/api").healthy == 0
    part = merged.of_service("shop/api:http")
    assert [one.extent for one in part.incidents] == [Extent.PATH]
    assert part.level is Level.TROUBLE
    number = part.ports[0].first.number
    assert merged.of_service(f"shop/api:{number}").ports == part.ports
    assert len(merged.of_service("shop").ports) == len(merged.ports)
    assert not merged.of_service("other").ports


def test_merging_takes_linear_time():
    sick = [web(failing(refuses(f"10.244.{i}.9:80")), name=f"s{i}") for i in range(10)]
    fine = [web(answering(f"10.243.{i}.9:80"), name=f"t{i}") for i in range(10)]

    def calls(nodes, services):
        count = 0

        def counted(_frame, event, _arg):
            nonlocal count
            count += event in ("call", "c_call")

        ports = [*sick[:services], *fine[:services]]
        answers = all_of(*(answer_of(f"node-{number}", *ports) for number in range(nodes)))
        sys.setprofile(counted)
        try:
            merge(answers)
        finally:
            sys.setprofile(None)
        return count

    assert calls(40, 5) < 2.2 * calls(20, 5)
    assert calls(20, 10) < 2.2 * calls(20, 5)
