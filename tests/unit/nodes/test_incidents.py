import pytest

from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import (
    denies,
    dropped_here,
    no_datagram,
    no_host,
    no_route,
    not_all_to_endpoint,
    not_from_endpoint,
    not_to_endpoint,
    owes_answers,
    refuses,
    resets,
    sends_nothing,
    silent,
    unreachable,
)
from userspace_proxy.causes.nodes import cut_off, not_answered, path_fails
from userspace_proxy.causes.say import kubectl_words, say
from userspace_proxy.causes.slices import none_ready
from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.facts import LastMinuteFacts, Level
from userspace_proxy_kubectl.nodes.endpoints import Extent
from userspace_proxy_kubectl.nodes.incidents import incidents_of
from userspace_proxy_kubectl.nodes.words import format_endpoint, format_incident

from ..status.views import make_view
from .views import NOW, OTHER, POD, answer_of, answering, failing, merged_of, untried, web

SEEN = {"first_at": NOW - 60, "last_at": NOW - 2, "count": 4}
WEB = "shop/web"
EXPLAIN = f"kubectl userspace-proxy explain {WEB}"
PODS = [f"10.244.3.{number}:8080" for number in range(1, 6)]


def test_an_incident_has_the_current_cause_on_the_endpoints_own_node():
    """A pod's interface was down: other nodes hid that its own node found no host."""
    away = {"first_at": NOW - 60, "last_at": NOW - 1}
    seen = {
        "node-1": unreachable(POD).replace(count=5, **away),
        "node-2": silent(POD).replace(count=4, **away),
        "node-3": no_host(POD, "cni0").replace(**SEEN),
    }
    members = {node: web(failing(cause, node="node-3")) for node, cause in seen.items()}
    (one,) = incidents_of([members])
    assert one.cause == no_host(POD, "cni0").replace(**{**away, "count": 13})
    assert (one.nodes, one.extent) == (tuple(seen), Extent.ENDPOINT)
    assert one.failing[0][1] == ("node-3",)
    past = failing(seen["node-3"].replace(when=When.PAST), node="node-3", is_past=True)
    (one,) = incidents_of([{**members, "node-3": web(past)}])
    assert (one.cause.row, one.failing[0][1]) == (unreachable, ("node-1",))


def test_an_endpoint_failing_on_several_nodes_is_one_incident():
    gone = refuses(POD).replace(**SEEN)
    sick = {node: web(failing(gone)) for node in ("a", "b", "c")}
    (one,) = incidents_of([sick, {"a": web(failing(gone), name="api")}])
    assert (one.nodes, one.tried, one.answered) == (("a", "b", "c"), 3, 0)
    assert one.extent is Extent.ENDPOINT
    assert (one.incident.services, one.incident.ports) == (["shop/api", "shop/web"], 2)
    assert one.cause == gone.replace(count=16)
    (alone,) = Incidents(make_view(sick["a"])).all()
    assert one.incident.id == alone.id


def test_an_endpoint_failing_in_several_ways_is_one_incident_with_the_nodes_of_each_cause():
    causes = {"a": resets(POD), "b": sends_nothing(POD), "c": resets(POD)}
    (one,) = incidents_of([{node: web(failing(cause)) for node, cause in causes.items()}])
    assert one.failing == ((resets(POD), ("a", "c")), (sends_nothing(POD), ("b",)))
    assert (one.cause, one.nodes, one.tried) == (resets(POD), ("a", "b", "c"), 3)
    assert [one.cause_on(node) for node in "ab"] == [resets(POD), sends_nothing(POD)]


def test_an_incident_of_endpoints_failing_alike_lists_the_causes_of_one_endpoint():
    ways = {
        "a": web(failing(resets(PODS[0])), failing(resets(PODS[1]))),
        "b": web(failing(sends_nothing(PODS[0])), failing(resets(PODS[1]))),
        "c": web(failing(resets(PODS[1]))),
    }
    (one,) = incidents_of([ways])
    assert one.failing == ((resets(PODS[1]), ("a", "b", "c")),)
    assert (one.incident.endpoints, one.nodes) == ((PODS[0], PODS[1]), ("a", "b", "c"))


def test_an_incident_of_an_ip_lists_the_endpoints_with_each_cause():
    causes = [unreachable(PODS[0]), silent(f"{PODS[0]}1"), silent(f"{PODS[0]}2")]
    ways = [
        {node: web(failing(one), name=f"s{n}") for node in "ab"} for n, one in enumerate(causes)
    ]
    (one,) = incidents_of(ways)
    said = [(str(cause.get("at")), cause.row.key, nodes) for cause, nodes in one.failing]
    assert said == [
        (PODS[0], "unreachable", ("a", "b")),
        (f"{PODS[0]}1,80802", "silent", ("a", "b")),
    ]


def test_an_incident_of_a_service_includes_nodes_whose_endpoint_has_another_cause():
    unready = {"state": "not ready", "is_usable": False}
    cause = none_ready(1, 0, ("pods",))
    past = failing(refuses(POD).replace(when=When.PAST), is_past=True, **unready)
    members = {"a": web(untried(**unready), cause=cause), "b": web(past, cause=cause)}
    found = {one.cause.row.key: one.nodes for one in incidents_of([members])}
    assert found["none_ready"] == ("a", "b")


def test_a_node_unable_to_reach_several_endpoints_is_one_incident():
    ways = [
        {
            "a": web(failing(silent(at).replace(**SEEN), node="node-3"), name=f"s{at[9]}"),
            "b": web(answering(at, node="node-3"), name=f"s{at[9]}"),
            "c": web(answering(at, node="node-3"), name=f"s{at[9]}"),
        }
        for at in PODS
    ]
    (one,) = incidents_of(ways)
    assert one.cause == path_fails(5, ("node-3",), 1, "10.244.3.1").replace(**{**SEEN, "count": 20})
    assert (one.nodes, one.answered, one.extent) == (("a",), 2, Extent.PATH)
    assert (len(one.incident.services), len(one.keys)) == (5, 5)
    assert len(incidents_of(ways[:2])) == 2
    alone = [{"a": of_port["a"], "node-3": of_port["b"]} for of_port in ways]
    (one,) = incidents_of(alone)
    assert one.cause.params == path_fails(5, ("node-3",), 1, "10.244.3.1", is_own=True).params
    rows = merged_of(*(answer_of(n, *(way[n] for way in alone)) for n in ("a", "node-3"))).rows
    assert [(row.mark, len(row.incidents)) for row in rows] == [(None, 1)] * 2
    (one,) = incidents_of([path_of(no_route(at), at=at) for at in PODS])
    assert not one.cause.get("is_own"), "the node without routes is at fault"
    served = web(failing(silent(PODS[0]).replace(**SEEN)), answering(OTHER))
    (one,) = incidents_of([{**ways[0], "a": served}, *ways[1:]])
    assert one.incident.level == "trouble", "the level isn't the worst endpoint's"


def path_of(cause, where="node-2", by="node-1", **changes):
    """Return a Service port by node; its endpoint fails one node and answers its own node."""
    at = changes.pop("at", PODS[0])
    others = {"node-1", "node-2", "node-3"} - {by} if changes.pop("is_away", False) else {where}
    seen = {**SEEN, "first_at": changes.pop("first_at", SEEN["first_at"])}
    port = web(failing(cause.replace(**seen), node=where), name=f"s{at[9]}", **changes)
    return {by: port, **{n: web(answering(at, node=where), name=f"s{at[9]}") for n in others}}


def test_a_chain_that_takes_packets_to_several_endpoints_is_the_cause_on_its_own_node():
    """A transparent proxy on a node was reported as failing paths, and other nodes were marked."""
    rule = "chain ip nat OUTPUT translates packets to it"
    ways = [path_of(dropped_here(p, rule), f"node-{2 + n % 2}", at=p) for n, p in enumerate(PODS)]
    nodes = ("node-1", "node-2", "node-3")
    merged = merged_of(*(answer_of(n, *(way[n] for way in ways if n in way)) for n in nodes))
    (one,) = merged.incidents
    words = f"each of 5 endpoints does not answer: {rule}, seen on node-1 (1 of 3): 5 Services"
    assert format_incident(one, NOW, 3).startswith(words)
    marks = {**dict.fromkeys(nodes, Level.OK), "node-1": Level.TROUBLE}
    assert {row.node: row.mark for row in merged.rows} == marks


def test_several_silent_endpoints_of_a_node_that_answers_otherwise_are_one_incident():
    """A BPF program dropped the packets of one IP family."""
    ways = [path_of(silent(at), at=at)["node-1"] for at in PODS[:3]]
    other = {"node-1": web(answering(OTHER, node="node-2"), name="other")}
    (one,) = incidents_of([*({"node-1": way, "node-3": way} for way in ways), other])
    assert one.cause.params == not_answered(3, "node-2", "10.244.3.1", accepts=False).params
    assert {one.cause.row for one in incidents_of([{"node-1": ways[0]}, other])} == {silent}


def test_several_programs_on_a_node_that_answer_no_other_node_are_one_incident():
    """An intrusion detection system reset connections, and four programs were blamed."""
    ways = [path_of(resets(at), at=at) for at in PODS[:3]]
    (one,) = incidents_of([{"node-1": way["node-1"], "node-3": way["node-1"]} for way in ways])
    assert one.cause.params == not_answered(3, "node-2", "10.244.3.1").params
    assert (one.nodes, one.places) == (("node-1", "node-3"), ("node-2",))
    assert format_incident(one, NOW, 3).startswith(f"{say(one.cause)} from node-1")
    of_own = [{**way, "node-2": way["node-1"]} for way in ways]
    away = [path_of(resets(at), at=at, is_away=True) for at in PODS[:3]]
    later = path_of(resets(PODS[2]), at=PODS[2], first_at=NOW - 125)
    sick = [failing(resets(at).replace(**SEEN), node="node-2") for at in PODS]
    of_one = [{"node-1": web(*sick, name=name)} for name in "abc"]
    for others in (of_own, away, ways[:2], [*ways[:2], later], of_one):
        assert {one.cause.row for one in incidents_of(others)} == {resets}


def test_failures_in_both_directions_between_a_node_and_others_are_one_incident():
    client = "10.244.2.8"
    ways = [path_of(silent(at), at=at) for at in PODS[:2]]
    for at, where in zip(PODS[2:], ("node-1", "node-3", "node-3"), strict=True):
        ways.append(path_of(denies(at, client), where, "node-2", at=at, is_away=where == "node-3"))
    (one,) = incidents_of(ways)
    assert (one.cause.row, one.cause.get("node"), one.places) == (cut_off, "node-2", ("node-2",))
    assert (one.nodes, len(one.incident.services)) == (("node-1", "node-2"), 5)
    assert len(incidents_of(ways[2:])) == 3, "denied clients alone cut a node off"
    lossy = [not_from_endpoint(at) for at in PODS[:2]]
    ways = [path_of(not_to_endpoint(PODS[2]), at=PODS[2])]
    for cause, where in zip(lossy, ("node-1", "node-3"), strict=True):
        ways.append(path_of(cause, where, "node-2", at=cause.get("at"), is_away=where == "node-3"))
    (one,) = incidents_of(ways)
    assert one.cause.params == cut_off("node-2", is_lossy=True).params


def test_an_endpoint_with_past_failures_of_another_service_counts_for_the_path():
    past = silent(PODS[0]).replace(when=When.PAST, **SEEN)
    ways = [path_of(silent(at), at=at) for at in PODS[:2]]
    ways += [path_of(no_datagram(PODS[3]), at=PODS[3])]
    other = web(failing(past, is_past=True, node="node-2"), answering(OTHER), name="other")
    (one,) = incidents_of([*ways, {"node-1": other}])
    assert one.cause.params == path_fails(3, ("node-2",), 1, "10.244.3.1", is_own=True).params


@pytest.mark.parametrize("cause", [owes_answers, not_all_to_endpoint, silent])
def test_answers_lost_on_only_one_node_are_attributed_to_the_path_unless_dials_timed_out(cause):
    lately = cause(POD).replace(when=When.LAST_MINUTE)
    minute = LastMinuteFacts(20, 9, unanswered_requests=9, cause=lately, is_unusual=True)
    sick = web(answering(), last_minute=minute)
    (one,) = incidents_of([{"a": sick, "b": web(answering()), "c": web(answering())}])
    extent = Extent.TIMES if cause is silent else Extent.PATH
    assert (one.nodes, one.answered, one.extent) == (("a",), 2, extent)


def test_a_node_is_blamed_only_for_lasting_failures_that_no_other_node_sees():
    """A firewall that limits connections hit one node most, and only that node was named."""
    silence = silent(POD).replace(**SEEN)
    minute = LastMinuteFacts(20, 1, cause=silent(POD).replace(when=When.LAST_MINUTE))
    few, lately = silence.replace(count=2, first_at=NOW - 21), {"last_minute": minute}
    once = few.replace(count=1, first_at=NOW - 22)
    ways = [(silence, {}, "only node-1"), (silence, lately, "random"), (few, {}, "random")]
    ways += [(once, {}, "only node-1"), (silence.replace(first_at=NOW - 6), {}, "random")]
    for cause, changes, words in ways:
        port = web(answering(), **changes)
        merged = merged_of(answer_of("node-1", web(failing(cause))), answer_of("b", port))
        assert words in format_incident(merged.incidents[0], NOW, 2)
        assert words in format_endpoint(merged.ports[0].endpoints[0])


UNREADY = untried(state="not ready", is_usable=False)


def all_refuse(**facts):
    """Return a Service port on two nodes; its endpoint refuses both."""
    cause = refuses(POD).replace(host=facts.pop("host", ""))
    return {node: web(failing(cause, **facts)) for node in "ab"}


@pytest.mark.parametrize(
    ("members", "command"),
    [
        (all_refuse(), f"kubectl {kubectl_words(refuses(POD), WEB)}"),
        (all_refuse(pod="web-7"), f"kubectl {kubectl_words(refuses(POD), WEB, 'web-7')}"),
        (
            {"a": web(failing(silent(POD)), name="$(x)"), "b": web(answering(), name="$(x)")},
            f"{EXPLAIN.removesuffix(WEB)}'shop/$(x)' --node=a",
        ),
        ({"a": web(UNREADY, cause=none_ready(1, 0, ("pods",)))}, f"{EXPLAIN} --pods"),
        ({"b": web(problem="in use")}, "ss -Hlntup  # on b"),
        (all_refuse(host="db.example.com"), EXPLAIN),
    ],
    ids=["slices", "pod", "quoted-path", "unready-pods", "node", "host-name"],
)
def test_the_suggested_command_runs_locally_or_names_the_node(members, command):
    (one,) = incidents_of([members])
    assert one.command == command
