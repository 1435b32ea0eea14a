from dataclasses import replace

import msgspec
import pytest

from tests.unit.status.views import make_endpoint, make_frontend, make_port, make_view
from userspace_proxy.causes.endpoints import (
    NO_DATAGRAM_HINT,
    dropped_here,
    no_host,
    node_silent,
    refuses,
    resets,
    sends_nothing,
    silent,
    unreachable,
)
from userspace_proxy.causes.say import command, kubectl_words, remedy
from userspace_proxy.causes.slices import no_slice, none_ready
from userspace_proxy.explain import Invocation, explain, read_subject
from userspace_proxy.explain.explanation import PathStep
from userspace_proxy.explain.pods import SLICES
from userspace_proxy.explain.steps import SOURCE
from userspace_proxy.facts import Level, PodRuleFacts
from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.model import ip_of
from userspace_proxy.plan.digest import FORM
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.agent_causes import agent_ended, no_agent
from userspace_proxy_kubectl.nodes.as_json import nodes_to_json
from userspace_proxy_kubectl.nodes.explained import TITLE, behind_steps, with_nodes, with_plan
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.nodes.text import render_status
from userspace_proxy_kubectl.nodes.words import (
    format_endpoint,
    format_finding,
    format_port,
    on_nodes,
)
from userspace_proxy_kubectl.port_forward import ForwardTarget

from .views import QUIET, answering, failing, flows, untried, without_answer

A, B, C = "10.244.1.1:8080", "10.244.2.2:8080", "10.244.3.3:8080"
ADDRESS = make_frontend("10.96.0.10:80", "ClusterIP", "")


def web(*addresses, refusing=()):
    endpoints = [
        make_endpoint(one, cause=refuses(one)) if one in refusing else make_endpoint(one)
        for one in addresses
    ]
    return make_port("web", frontends=(ADDRESS,), endpoints=tuple(endpoints))


def answer(node, port, *, behind=(), digest="d", form=FORM):
    agent = ForwardTarget("kube-system", f"pod-{node}", 10249)
    status = msgspec.structs.replace(make_view(port), plan=PlanFacts(form=form, digest=digest))
    return AgentAnswer(node, (agent,), status, behind=behind)


def nodes(*answers, digests=True):
    return AllNodes(answers, digests={"shop/web": "d"} if digests else None)


def explained(all_nodes, planned=None, source=(), pods=(), **flags):
    planned = planned or web(A, B)
    subject = read_subject(make_view(planned), "shop/web", "the API server", is_live=False)
    merged = merge(all_nodes).of_service("shop/web")
    steps = behind_steps("shop/web", [planned], all_nodes)
    explanation, invocation = explain(subject, pods=pods), Invocation(source=source, **flags)
    return with_nodes(explanation, merged, steps, invocation=invocation, planned=[planned])


def last_part(explanation):
    assert explanation.parts[-1].title == TITLE
    return explanation.parts[-1].steps


def test_a_service_served_as_planned_on_all_nodes_is_ok():
    one = explained(nodes(answer("node-1", web(A, B)), answer("node-2", web(A, B))))
    assert one.level is Level.OK
    assert one.sentence.endswith("served on both nodes")
    assert [step.topic for step in last_part(one)] == ["nodes", "clients", "plan"]
    assert last_part(one)[0].what == "both nodes answered"


def test_a_node_serving_worse_than_planned_determines_verdict_and_next_command():
    unhealthy = answer("node-2", web(A, B, refusing=(A,)))
    all_nodes = nodes(answer("node-1", web(A, B)), unhealthy)
    one, merged = explained(all_nodes), merge(all_nodes)
    assert one.level is not Level.OK
    (port,) = merged.ports
    assert [group.nodes for group in port.groups] == [("node-2",)]
    assert one.sentence == f"shop/web:http: {format_port(port, merged)}"
    assert one.next == f"kubectl {kubectl_words(refuses(A), 'shop/web')}"
    (clients,) = [step for step in last_part(one) if step.topic == "clients"]
    assert clients.hint == remedy(refuses(A))
    # The cause is printed at the endpoint, below.
    assert str(A) not in clients.what
    assert next(words for level, words in clients.details if level is not Level.OK).startswith(A)
    lost, sent = (
        make_port("web", endpoints=(e,)) for e in (failing(sends_nothing(A)), answering(A))
    )
    apart = explained(nodes(answer("node-1", lost), answer("node-2", sent)))
    assert apart.next.endswith("explain shop/web --node=node-1"), "the command isn't about the path"
    words = kubectl_words(no_slice("shop/web", "", ""), "shop/web")
    for level in (Level.TROUBLE, Level.ATTENTION):
        gone = PathStep(level, SLICES, "web-1 is gone")
        assert explained(all_nodes, pods=[gone]).next == f"kubectl {words}", "a deleted pod"
    late = explained(nodes(answer("node-1", web(A, refusing=(A,)), behind=("shop/web",))))
    assert late.next.endswith("explain shop/web --node=node-1"), "the late node isn't explained"
    assert "agent's log" in next(s.hint for s in last_part(late) if s.topic == "clients")


def test_the_log_of_an_endpoint_that_accepts_connections_is_next():
    cause = resets(A).replace(answers_others=True)
    sick = make_port("web", endpoints=(failing(cause, pod="web-7"), make_endpoint(B)))
    one = explained(nodes(answer("node-1", sick), answer("node-2", sick)))
    assert one.next == f"kubectl {kubectl_words(cause, 'shop/web', 'web-7')}"
    assert [step.hint for step in last_part(one) if step.hint] == [remedy(cause, "-n shop web-7")]


def test_the_next_command_about_unready_endpoints_reads_the_pods_unless_already_read():
    pods = ("pods", "-n", "shop", "-l", "app=web")
    unready = untried(A, state="not ready", is_usable=False)
    port = make_port("web", endpoints=(unready,), cause=none_ready(1, 0, pods))
    all_nodes = nodes(answer("node-1", port))
    assert explained(all_nodes).next == Invocation().again("shop/web", "--pods")
    words = kubectl_words(port.cause, "shop/web")
    assert explained(all_nodes, has_pods=True).next == f"kubectl {words}"


def test_nodes_that_answered_before_the_endpoints_became_unready_have_no_ok_marks():
    unready = untried(A, state="not ready", is_usable=False)
    planned = make_port("web", endpoints=(unready,), cause=none_ready(1, 0, ("pods",)))
    served = make_port("web", endpoints=(answering(A),))
    one = explained(nodes(answer("node-1", served)), planned)
    (clients,) = [step for step in last_part(one) if step.topic == "clients"]
    assert (clients.level, [level for level, _ in clients.details]) == (None, [None])
    assert clients.what.endswith("served on 1 of 1 when they answered")


@pytest.mark.parametrize(
    ("facts", "end"),
    [
        ({"pod": "web-7"}, " (pod web-7)"),
        ({}, " (its EndpointSlice names no pod)"),
        ({"host": "db.example.com"}, ""),
    ],
)
def test_a_failing_endpoint_is_shown_with_its_pod_or_without_one(facts, end):
    port = make_port("web", endpoints=(failing(refuses(A), **facts), make_endpoint(B)))
    all_nodes = nodes(answer("node-1", port), answer("node-2", port))
    (merged,) = merge(all_nodes).ports
    (clients,) = [step for step in last_part(explained(all_nodes)) if step.topic == "clients"]
    texts = [f"{format_endpoint(merged.endpoints[0])}{end}", format_endpoint(merged.endpoints[1])]
    assert [text for _, text in clients.details] == texts


def test_a_rule_on_its_node_that_may_drop_a_failing_endpoints_packets_is_named():
    rule = PodRuleFacts(f"{ip_of(A)}/32", "chain inet policy f may drop packets to it", "change it")
    well = answer("node-1", web(A))
    sick = answer("node-2", make_port("web", endpoints=(failing(refuses(A), node="node-1"),)))
    ruled = replace(well, status=msgspec.structs.replace(well.status, pod_rules=[rule]))
    one = explained(nodes(ruled, sick))
    (step,) = [step for step in last_part(one) if step.topic == "firewall"]
    assert (step.level, step.what, step.hint) == (None, f"on node-1, {rule.what}", rule.hint)
    assert one.sentence.endswith(f"; {step.what}")
    elsewhere = replace(sick, status=msgspec.structs.replace(sick.status, pod_rules=[rule]))
    assert "policy f" not in str((explained(nodes(ruled, well)), explained(nodes(elsewhere))))


def test_the_remedy_is_for_the_cause_that_the_endpoints_own_node_reports():
    causes = {"node-1": unreachable(A), "node-2": unreachable(A), "node-3": no_host(A, "cni0")}
    answers = [
        answer(node, make_port("web", endpoints=(failing(cause, node="node-3"),)))
        for node, cause in causes.items()
    ]
    (clients,) = [step for step in last_part(explained(nodes(*answers))) if step.hint]
    assert clients.hint == remedy(no_host(A, "cni0"))


def test_a_cause_of_several_services_is_listed_with_their_names():
    dropped = dropped_here(A, "a chain drops packets to it")
    for cause, topic in ((refuses(A), "clients"), (dropped, "cause")):
        dead = [make_port(n, endpoints=(make_endpoint(A, cause=cause),)) for n in ("api", "web")]
        one = explained(nodes(AgentAnswer("node-1", (), make_view(*dead))))
        (step,) = [step for step in last_part(one) if step.topic == "cause"]
        assert (step.level, step.what[-18:]) == (None, "shop/api, shop/web")
        assert [one.topic for one in last_part(one) if one.hint] == [topic], "the remedy is once"


def test_a_node_that_fails_all_endpoints_on_it_is_named_with_a_remedy():
    gone = [failing(silent(at).replace(first_at=1.0), node="node-3") for at in (A, B)]
    one = explained(nodes(answer("node-1", make_port("web", endpoints=tuple(gone)))))
    (step,) = [step for step in last_part(one) if step.topic == "cause"]
    assert step.what.startswith("node-3 does not answer, seen on node-1")
    assert step.hint == remedy(node_silent("node-3"))


def test_a_suggested_command_queries_the_same_cluster():
    cause = none_ready(2, 0, ("pods", "-n", "shop", "-l", "app=web"))
    unhealthy = make_port("web", frontends=(ADDRESS,), endpoints=(), cause=cause)
    one = explained(nodes(answer("node-1", unhealthy)), source=("--context=prod",))
    (step,) = (step for step in last_part(one) if step.topic == "clients")
    assert step.hint == f"kubectl {command(cause)} --context=prod"


def test_a_lagging_node_is_named_with_its_endpoints():
    late = [answer(node, web(A, C), behind=("shop/web",)) for node in ("node-2", "node-3")]
    one = explained(nodes(answer("node-1", web(A, B)), *late))
    _, clients, step, _ = last_part(one)
    assert (clients.level, step.level) == (None, Level.TROUBLE)
    former = [text for _, text in clients.details if "lists it any more" in text]
    assert [text.partition(" ")[0] for text in former] == [C]
    assert step.what == f"not as planned {on_nodes(['node-2', 'node-3'], 3)}"
    assert step.details == (
        (Level.TROUBLE, f"shop/web:http (IPv4): it lacks {B}; it still has {C}"),
    )
    assert one.sentence.endswith(f"; {step.what}")


def test_nodes_lagging_in_the_same_way_share_a_line():
    late = [answer(f"node-{n}", web(A), behind=("shop/web",)) for n in range(5)]
    other = answer("node-7", web(B), behind=("shop/web",))
    steps = behind_steps("shop/web", [web(A, B)], nodes(*late, other))
    assert [step.what for step in steps] == [
        f"not as planned {on_nodes([f'node-{n}' for n in range(5)], 6)}",
        f"not as planned {on_nodes(['node-7'], 6)}",
    ]


def test_another_lagging_service_is_ignored():
    steps = behind_steps("shop/web", [web(A)], nodes(answer("node-1", web(B), behind=("shop/db",))))
    assert [(step.level, step.what) for step in steps] == [(Level.OK, "as planned on 1 node")]
    assert behind_steps("shop/web", [], nodes(answer("node-1", web(A))))[0].level is None


@pytest.mark.parametrize("plan", [{"digest": ""}, {"form": FORM + 1}], ids=["older", "newer"])
def test_an_agent_of_another_version_is_not_compared_with_the_plan(plan):
    steps = behind_steps("shop/web", [web(A)], nodes(answer("node-1", web(A), **plan)))
    assert [step.level for step in steps] == [None]


def test_plans_are_not_compared_without_the_services_of_the_api_server():
    steps = behind_steps("shop/web", None, nodes(answer("node-1", web(A)), digests=False))
    assert [step.level for step in steps] == [None]
    assert "can't be read" in steps[0].what


def test_the_next_command_about_an_ended_agent_shows_its_last_log():
    ended = without_answer("node-2", agent_ended("net", "it waits", "agent-x"), agents=())
    one = explained(nodes(answer("node-1", web(A, B)), ended), source=("--context=prod",))
    assert one.next == "kubectl logs --previous -n net agent-x --context=prod"


def source_of(explanation):
    steps = [step for part in explanation.parts for step in part.steps]
    return next(step for step in steps if step.topic == SOURCE)


def test_an_explanation_of_a_node_states_differences_from_the_plan():
    late = answer("node-1", web(C), behind=("shop/web",))
    subject = read_subject(late.status, "shop/web", "the proxy of node-1", is_live=True)
    planned = explain(subject)
    steps = behind_steps("shop/web", [web(A)], nodes(late))
    assert source_of(with_plan(planned, steps, ())) == source_of(planned)
    one = with_plan(planned, steps, late.behind)
    assert (source_of(planned).level, source_of(one).level) == (Level.OK, None)
    assert source_of(one).what.endswith(": shop/web")
    assert one.level is Level.TROUBLE
    assert one.sentence.endswith("; not as planned on node-1")


def test_an_unresponsive_node_is_counted():
    one = explained(nodes(answer("node-1", web(A, B)), AgentAnswer("node-2")))
    answered, clients, _ = last_part(one)
    assert (answered.what, clients.level) == ("1 of 2 nodes answered", None)
    assert one.sentence.endswith("on the one node that answered; no answer from 1 node yet")


def test_a_node_that_the_daemon_set_excludes_is_named():
    answers = replace(nodes(answer("node-1", web(A, B))), excluded=("node-2",))
    step = last_part(explained(answers))[0]
    without = "no agent on node-2, which the DaemonSet excludes"
    assert (step.level, step.what) == (None, f"the node answered; {without}")
    assert f"1 node; {without}" in render_status(merge(answers)).body.decode()
    assert msgspec.json.decode(nodes_to_json(merge(answers)))["excluded"] == ["node-2"]


def test_a_node_that_shuts_down_is_named_and_not_compared_with_the_plan():
    one = answer("node-2", web(A, B))
    status = msgspec.structs.replace(one.status, ports=(), is_ready=False, is_draining=True)
    answered, clients, plan = last_part(
        explained(nodes(answer("node-1", web(A, B)), replace(one, status=status)))
    )
    assert (answered.level, clients.level) == (Level.ATTENTION, None)
    assert "Shutting down" in answered.details[0][1]
    assert plan.what == "as planned on 1 node"


def test_a_node_without_a_route_to_services_is_named_although_clients_are_served():
    late = answer("node-2", web(A, B))
    for address, level in (("fd00::a", Level.OK), ("10.96.0.10", Level.ATTENTION)):
        status = msgspec.structs.replace(late.status, unrouted={address: "unreachable"})
        one = explained(nodes(answer("node-1", web(A, B)), replace(late, status=status)))
        assert (one.level, last_part(one)[0].level) == (level, level), "another family counts"
    (detail,) = last_part(one)[0].details
    assert one.sentence.endswith(detail[1])


def test_addresses_have_no_ok_mark_if_a_node_does_not_serve_them():
    taken = make_port("web", frontends=(ADDRESS,), problem="translated by another program")
    for port, level in ((web(A), Level.OK), (web(A, refusing=(A,)), Level.OK), (taken, None)):
        one = explained(nodes(answer("node-1", web(A)), answer("node-2", port)))
        (step,) = [s for part in one.parts for s in part.steps if s.topic == "address"]
        assert step.level is level


def test_the_verdict_includes_the_reason_why_a_node_does_not_answer():
    answers = (answer(node, web(A, B)) for node in ("node-1", "node-2"))
    all_nodes = nodes(*answers, without_answer("node-3", no_agent("kube-system")))
    one, merged = explained(all_nodes), merge(all_nodes)
    assert one.level is Level.TROUBLE
    (port,), (finding,) = merged.ports, merged.findings
    assert one.sentence.endswith(
        f"{format_port(port, merged)}; {format_finding(finding, merged.now)}"
    )
    assert last_part(one)[0].hint == remedy(finding.cause)


def test_unanswered_flows_have_a_remedy_and_a_command_for_an_affected_node():
    all_nodes = nodes(*(answer(n, flows("web", unanswered=9)) for n in ("node-1", "node-2")))
    merged = merge(all_nodes)
    (port,) = merged.ports
    one = explained(all_nodes)
    assert one.level is Level.OK
    assert one.sentence.endswith(format_port(port, merged))
    assert one.next.endswith("explain shop/web --node=node-1")
    (served,) = (step for step in last_part(one) if step.topic == "clients")
    assert served.level is None
    assert served.hint == NO_DATAGRAM_HINT


def test_only_a_ready_endpoint_that_answers_has_a_success_mark():
    def marks_of(*answers):
        parts = explained(nodes(*answers), web(A)).parts
        steps = {step.topic: step for part in parts for step in part.steps}
        return steps["endpoints"].level, steps["endpoints"].details[0][0], steps["clients"].hint

    heard, untried_yet = make_port("web", endpoints=(answering(A),)), answer("node-1", web(A))
    assert marks_of(answer("node-1", heard)) == (Level.OK, Level.OK, "")
    assert marks_of(untried_yet) == (Level.OK, None, "")
    assert marks_of(untried_yet, answer("node-2", web(A, refusing=[A])))[:2] == (None, None)
    unheard = make_port(
        "web", endpoints=(untried(A, connections=60),), **{**QUIET, "connections": 60}
    )
    silent = answer("node-1", unheard)
    assert marks_of(silent) == (None, None, silent.status.ports[0].state.hint)
    unused = answer("node-1", make_port("web", endpoints=(untried(A),), **QUIET))
    assert marks_of(unused) == (None, None, "")
