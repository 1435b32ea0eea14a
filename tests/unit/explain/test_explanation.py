import json

import pytest

from tests.unit.status.views import (
    NOW,
    make_address,
    make_calm_view,
    make_ignored,
    make_port,
    make_troubled_view,
    make_view,
    replace,
)
from userspace_proxy.causes.endpoints import dial_failed, dropped_here, refuses
from userspace_proxy.causes.notes import node_port_named
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.diagnosis.clauses import led_by_kernel, no_client_yet, sentence_of
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.diagnosis.paths import PathView, counted_in_words, probes_in_words
from userspace_proxy.explain import explain, render_json, render_text
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.explain.explanation import PathStep, read_subject
from userspace_proxy.explain.next_command import Invocation
from userspace_proxy.facts import (
    FirewallFacts,
    LastStateFacts,
    Level,
    ProbesFacts,
    RejectedFacts,
    SourceFacts,
)
from userspace_proxy.model import DataPath, Failure, Protocol

from .subjects import make_dead_endpoint, make_subject
from .words import WORDS, page

DEAD = make_port(endpoints=(make_dead_endpoint("10.244.1.8:80"),))


def test_a_step_without_a_level_decides_nothing():
    explanation = explain(make_subject(), pods=[PathStep(None, "pods", "as intended")])
    assert explanation.level is Level.OK
    assert explanation.sentence == explain(make_subject()).sentence


@pytest.mark.parametrize(("is_by_design", "mark"), [(False, Level.ATTENTION), (True, None)])
def test_what_is_by_design_has_a_neutral_mark(is_by_design, mark):
    assert PathStep(Level.ATTENTION, "service", "x", is_by_design=is_by_design).mark is mark


def test_text_ends_with_one_sentence_and_the_next_command():
    explanation = explain(make_subject(DEAD))
    first, *lines = render_text(explanation).splitlines()
    assert first == "shop/web, from the proxy at 127.0.0.1:10249"
    assert [line for line in lines if not line.startswith(" ")] == [
        "node",
        "shop/web:http (IPv4)",
        "",
        f"{explanation.sentence}.",
        f"next: {explanation.next}",
    ]


def test_a_fact_and_its_remedy_are_said_once():
    """Clients have met it, and a dial meets it now."""
    at = make_address("10.244.1.8:80")
    failed = DialResult(0.001, dial_failed(at, Failure.REFUSED, "refused"), "refused")
    dials = {"10.96.7.118:80": DialResult(0.001), "10.244.1.8:80": failed}
    shown = render_text(explain(make_subject(DEAD), dials=dials))
    cause = refuses(at)
    assert [shown.count(said) for said in (say(cause), remedy(cause))] == [1, 1]


def test_no_chain_is_said_to_drop_nothing_where_one_does():
    chain = "a chain of another program"
    dropped = make_port(problem=f"{chain} (input, priority 0) drops packets to it")
    dropped.taken_by = "ip evil in"
    shown = render_text(explain(make_subject(dropped)))
    assert f"{chain} (input, priority 0) drops packets to it" in shown
    assert "✓ firewall" not in shown
    endpoint = replace(
        make_dead_endpoint("10.244.1.8:80"),
        cause=dropped_here("10.244.1.8:80", f"{chain} drops it"),
    )
    shown = render_text(explain(make_subject(make_port(endpoints=(endpoint,)))))
    assert f"does not answer: {chain} drops it" in shown
    assert "✓ firewall" not in shown


@pytest.mark.parametrize("columns", [40, 80])
def test_text_fits_on_the_terminal_except_what_is_pasted(columns):
    explanation = explain(make_subject(DEAD))
    *lines, last = render_text(explanation, columns=columns).splitlines()
    assert last == f"next: {explanation.next}"
    assert max(map(len, lines)) <= columns
    whole = " ".join(render_text(explanation).split())
    assert " ".join("\n".join([*lines, last]).split()) == whole


def test_control_characters_are_not_written():
    text = render_text(explain(make_subject(make_port(problem="\x1b[2J"))))
    assert "\x1b" not in text


def test_json_has_the_same():
    explanation = explain(make_subject(DEAD))
    read = json.loads(render_json(explanation))
    assert (read["level"], read["sentence"]) == ("trouble", explanation.sentence)
    assert read["parts"][1]["steps"][1]["details"][0][0] == "trouble"


def test_what_explain_writes_is_on_the_page():
    recorded = WORDS.read_text(encoding="utf-8").splitlines()
    assert [*page()] == recorded, "if that is intended: python -m tests.unit.explain.words"


def test_a_port_has_its_addresses_endpoints_and_state():
    dead = make_dead_endpoint("10.244.1.8:80", connections=20, failures=2)
    (port,) = make_subject(make_port(endpoints=(dead,))).ports
    assert (port.name, port.family, port.protocol, port.state.level) == (
        "shop/web:http", "IPv4", "TCP", Level.TROUBLE,
    )  # fmt: skip
    assert [(f.address, f.kind) for f in port.frontends] == [("10.96.7.118:80", "ClusterIP")]
    (endpoint,) = port.endpoints
    assert endpoint.cause == refuses("10.244.1.8:80").replace(count=2, last_at=NOW - 3)
    assert (endpoint.connections, endpoint.failures) == (20, 2)


def test_other_services_are_left_out():
    ports = make_calm_view().ports
    assert {port.name for port in make_subject(*ports, service="shop/web").ports} == {
        "shop/web:http"
    }
    assert make_subject(*ports, service="shop/web:other").ports == []


def test_an_ignored_service_has_its_cause():
    ignored = (make_ignored("shop/db", "", "headless"), make_ignored("shop/x", "", "other"))
    (item,) = make_subject(service="shop/db", ignored=ignored).ignored
    assert (item.port, say(item.cause), item.is_conflict) == ("", "headless", False)


def test_a_mistake_that_is_a_note_of_its_port_is_not_repeated():
    note = node_port_named("spec.healthCheckNodePort", "30202/TCP", "shop/cart")
    item = RejectedFacts.at("m/web.yaml:3", say(note), services=("shop/web",), note=note)
    source = SourceFacts(rejected=(item,))
    view = make_view(*diagnose([make_port(notes=(note,))], source), source=source)
    for service in ("shop/web", "shop/web:http"):
        subject = read_subject(view, service, "", is_live=True)
        assert (subject.rejected, subject.others_rejected) == ((), [])
    assert read_subject(make_view(source=source), "shop/web", "", is_live=True).rejected == [item]


def test_only_a_running_proxy_has_facts_about_its_node():
    assert make_subject(is_live=False).node is None
    view = make_troubled_view()
    node = make_subject(
        steering=view.steering,
        sync=view.sync,
        source=view.source,
        firewalls=(FirewallFacts("ip filter INPUT", "policy drop", "nft …"),),
        last_state=LastStateFacts("f", served_at=1.0),
    ).node
    assert node is not None
    assert (node.node, node.steering.name, node.steering.repairs) == ("node-a", "nftables", 3)
    assert node.firewalls == [FirewallFacts("ip filter INPUT", "policy drop", "nft …")]
    assert node.source.problems == [*view.source.problems]
    assert node.sync.problem == view.sync.problem
    assert node.last_state.age_s is not None


def test_the_path_of_a_port_is_a_step_where_it_is_not_the_default():
    subject = make_subject(replace(make_port(connections=0), path=PathView(DataPath.KERNEL)))
    assert (subject.ports[0].path, subject.ports[0].path_why) == ("kernel", "")
    explanation = explain(subject)
    (step,) = (one for part in explanation.parts for one in part.steps if one.topic == "path")
    assert step.what == "kernel"
    assert [text for _, text in step.details] == [counted_in_words(subject.ports[0])]
    assert (subject.ports[0].state.sentence, subject.ports[0].mark) == (explanation.sentence, None)
    assert explanation.sentence == led_by()
    (step,) = (s for part in explanation.parts for s in part.steps if s.topic == "endpoints")
    assert (step.level, step.hint) == (None, "")
    assert explanation.next == Invocation().again("shop/web", "--probe")


def led_by(shown=""):
    """Return the sentence about clients that the kernel leads to two endpoints."""
    return sentence_of([led_by_kernel(2, 0, "shop/web", "TCP", shown)])


@pytest.mark.parametrize(
    ("count", "others"),
    [
        (0, f"; {no_client_yet().text}"),
        (7, ""),
    ],
)
def test_connections_on_the_kernel_path_count_as_clients(count, others):
    path = PathView(DataPath.KERNEL, kernel_connections=count)
    subject = make_subject(replace(make_port(connections=0), path=path))
    assert subject.ports[0].kernel_connections == count
    assert explain(subject).sentence == f"{led_by()}{others}"


def test_a_probe_or_a_dial_shows_only_that_connections_are_accepted():
    port = replace(make_port(connections=0), path=PathView(DataPath.KERNEL))
    answered = {endpoint.address: DialResult(0.1) for endpoint in port.endpoints}
    said = explain(make_subject(port), dials=answered).sentence
    assert said == led_by("dials from this machine")
    probed = make_subject(replace(make_port(is_probed=True), path=PathView(DataPath.KERNEL)))
    assert explain(probed).sentence == led_by("probes")
    assert (probed.ports[0].mark, probed.ports[0].state.word) == (None, "unknown")


def test_the_flows_that_only_the_kernel_sees_are_listed_next():
    port = make_port(protocol=Protocol.UDP, connections=0)
    subject = make_subject(replace(port, path=PathView(DataPath.KERNEL)))
    ip = port.frontends[0].address.partition(":")[0]
    explanation = explain(subject)
    assert explanation.next.startswith("conntrack -L ")
    assert explanation.next.endswith(f" {ip}")
    (step,) = (s for part in explanation.parts for s in part.steps if s.topic == "path")
    assert "[UNREPLIED]" in step.hint
    assert not explain(make_subject(port)).next


def test_the_probes_that_choose_a_path_are_said_with_their_budget():
    port = make_port(is_probed=True)
    auto = replace(port, path=PathView(DataPath.USERSPACE, why="auto"))
    subject = make_subject(auto, probes=ProbesFacts(3, 1.5, 2_000))
    (step,) = (s for part in explain(subject).parts for s in part.steps if s.topic == "path")
    assert [text for _, text in step.details] == [probes_in_words(subject.node.probes)]
    planned = make_subject(auto, probes=ProbesFacts(3, 1.5, 2_000), is_live=False)
    (step,) = (s for part in explain(planned).parts for s in part.steps if s.topic == "path")
    assert step.details == ()
