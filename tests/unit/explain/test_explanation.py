import json

import pytest

from tests.unit.status.views import make_address, make_port, replace
from userspace_proxy.causes.endpoints import dial_failed, dropped_here, refuses
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.explain import explain, render_json, render_text
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.explain.explanation import PathStep
from userspace_proxy.facts import Level
from userspace_proxy.model import Failure

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
