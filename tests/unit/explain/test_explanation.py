import pytest
from msgspec.structs import replace

from tests.unit.status.recorded import changed
from tests.unit.status.views import (
    make_address,
    make_calm_view,
    make_port,
    make_view,
)
from userspace_proxy.causes.endpoints import dial_failed, refuses
from userspace_proxy.causes.notes import node_port_named
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.explain import explain, render_text
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.explain.explanation import PathStep, read_subject
from userspace_proxy.facts import (
    Level,
    RejectedFacts,
    SourceFacts,
)
from userspace_proxy.model import Failure

from .subjects import make_dead_endpoint, make_subject

DEAD = make_port(endpoints=(make_dead_endpoint("10.244.1.8:80"),))


def test_a_step_without_a_level_does_not_affect_the_verdict():
    explanation = explain(make_subject(), pods=[PathStep(None, "pods", "as intended")])
    assert explanation.level is Level.OK
    assert explanation.sentence == explain(make_subject()).sentence


@pytest.mark.parametrize(("is_by_design", "mark"), [(False, Level.ATTENTION), (True, None)])
def test_a_step_whose_behaviour_is_by_design_has_a_neutral_mark(is_by_design, mark):
    assert PathStep(Level.ATTENTION, "service", "x", is_by_design=is_by_design).mark is mark


def test_a_fact_and_its_remedy_are_shown_once():
    """An earlier client's dial and the dial of explain failed with the same cause."""
    at = make_address("10.244.1.8:80")
    failed = DialResult(0.001, dial_failed(at, Failure.REFUSED, "refused"), "refused")
    dials = {"10.96.7.118:80": DialResult(0.001), "10.244.1.8:80": failed}
    shown = render_text(explain(make_subject(DEAD), dials=dials))
    cause = refuses(at)
    assert [shown.count(said) for said in (say(cause), remedy(cause))] == [1, 1]


@pytest.mark.parametrize("columns", [40, 80])
def test_lines_fit_the_terminal_except_for_the_suggested_command(columns):
    explanation = explain(make_subject(DEAD))
    *lines, last = render_text(explanation, columns=columns).splitlines()
    assert last == f"next: {explanation.next}"
    assert max(map(len, lines)) <= columns
    whole = " ".join(render_text(explanation).split())
    assert " ".join("\n".join([*lines, last]).split()) == whole


def test_control_characters_are_escaped():
    text = render_text(explain(make_subject(make_port(problem="\x1b[2J"))))
    assert "\x1b" not in text


def test_a_subject_contains_only_the_ports_of_the_requested_service():
    ports = make_calm_view().ports
    assert {port.name for port in make_subject(*ports, service="shop/web").ports} == {
        "shop/web:http"
    }
    assert make_subject(*ports, service="shop/web:other").ports == []


def test_a_mistake_listed_in_a_ports_notes_is_not_repeated():
    note = node_port_named("spec.healthCheckNodePort", "30202/TCP", "shop/cart")
    item = RejectedFacts.at("m/web.yaml:3", say(note), services=("shop/web",), note=note)
    source = SourceFacts(rejected=(item, replace(item, services=())))
    view = make_view(*diagnose([make_port(notes=(note,))], source), source=source)
    for service in ("shop/web", "shop/web:http"):
        subject = read_subject(view, service, "", is_live=True)
        assert (subject.rejected, subject.others_rejected) == ((), [])
    assert read_subject(make_view(source=source), "shop/web", "", is_live=True).rejected == [item]


def test_explanations_match_the_recorded_text(tmp_path):
    assert changed(tmp_path, "explain", "planned") == []
