"""Tests of causes as values, and of the rows that create them."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from userspace_proxy.causes.cause import (
    DIAL_CAUSES,
    MODIFIERS,
    NEWER_MAX,
    ROWS,
    CauseCode,
    Traits,
    When,
    as_read,
    cause,
    newer_codes,
)
from userspace_proxy.causes.endpoints import denies, no_datagram, refuses, silent
from userspace_proxy.causes.say import object_of, remedy, say
from userspace_proxy.causes.services import held_by, source_denied
from userspace_proxy.causes.slices import none_ready, slice_empty
from userspace_proxy.model import SocketAddress

from .words import SAMPLES

DOCS = Path(__file__).parents[3] / "docs"
POD = SocketAddress("10.244.1.8", 8080)
REFUSES = refuses(POD)
STATED = {"when": When.PAST, "has_header": True, "before": silent(POD), "more": 3, "within": "x"}
STATED["is_terminating"] = True
UNSTATED = {
    "answers_others": True,
    "answers_nodes": True,
    "answers_own": True,
    "host": "db.example.com",
    "count": 9,
    "first_at": 3.0,
    "last_at": 5.0,
}
CHANGES = {**STATED, **UNSTATED}
# This code occurs only in the verdict on a single endpoint.
WITHOUT_A_ROW = {CauseCode.NOT_FOR_THIS_NODE}


def test_cause_codes_are_lower_case_with_dashes():
    assert all(code == code.lower().replace("_", "-") for code in CauseCode)
    assert all(code.name == code.value.upper().replace("-", "_") for code in CauseCode)


def test_a_code_from_a_newer_proxy_is_preserved():
    code = CauseCode("a-newer-code")
    assert (code, str(code), code.value) == ("a-newer-code", "a-newer-code", "a-newer-code")
    assert code not in list(CauseCode)
    assert code.traits == Traits()


def test_unknown_codes_beyond_a_limit_become_one_code():
    for begins in (0, 5000):
        newer_codes.clear()
        codes = {CauseCode(f"code-{begins + number}") for number in range(2 * NEWER_MAX)}
        assert (len(codes), CauseCode(f"code-{begins}")) == (NEWER_MAX + 1, f"code-{begins}")
    newer_codes.clear()


def test_cause_codes_and_sections_of_the_docs_match():
    text = (DOCS / "troubleshooting.md").read_text()
    causes = text.partition("\n## Causes\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\S+)$", causes, re.MULTILINE) == [*CauseCode]


def test_dial_causes_are_all_codes_of_dials_with_the_general_code_last():
    assert {*DIAL_CAUSES} == {code for code in CauseCode if code.traits.is_dial}
    assert DIAL_CAUSES[-1] is CauseCode.ENDPOINT_FAILS


@pytest.mark.parametrize("code", [code for code in CauseCode if code.traits.is_unanswered])
def test_codes_of_unanswered_connections_imply_an_accepted_connection(code):
    assert code.traits.accepts


@pytest.mark.parametrize("code", CauseCode)
def test_suggested_commands_contain_only_known_placeholders(code):
    for words in (code.traits.kubectl, code.traits.kubectl_of_pod, code.traits.on_node):
        assert {*re.findall(r"\{(\w*)\}", words)} <= {"namespace", "name", "pod", "ip"}


def test_each_cause_code_has_a_row_or_is_a_listed_exception():
    assert {cause.code for cause in SAMPLES} == {*CauseCode} - WITHOUT_A_ROW


def test_causes_of_the_same_facts_are_equal():
    assert refuses(POD) == refuses(at=str(POD), was_open=False)
    assert source_denied(["10.0.0.0/8"]) == source_denied(("10.0.0.0/8",))
    assert len({refuses(POD), refuses(str(POD)), REFUSES.replace()}) == 1


@pytest.mark.parametrize(
    "other",
    [silent(POD), refuses("[fd00::8]:8080"), refuses(POD, was_open=True), "refuses"],
    ids=["row", "parameter", "default", "text"],
)
def test_a_different_row_or_parameter_makes_a_different_cause(other):
    assert other != REFUSES


@pytest.mark.parametrize("name", MODIFIERS)
def test_a_different_modifier_makes_a_different_cause(name):
    usual = getattr(REFUSES, name)
    changed = REFUSES.replace(**{name: CHANGES[name]})
    assert (getattr(changed, name), getattr(REFUSES, name)) == (CHANGES[name], usual)
    assert changed != REFUSES
    assert changed.replace(**{name: usual}) == REFUSES


def test_causes_have_equal_facts_exactly_if_their_sentences_state_the_same_fact():
    assert REFUSES.replace(**UNSTATED).fact == REFUSES.fact
    for name, value in STATED.items():
        assert REFUSES.replace(**{name: value}).fact != REFUSES.fact
    assert REFUSES.fact not in (silent(POD).fact, refuses("[fd00::8]:8080").fact)


def test_a_cause_has_its_rows_code_and_json_parameters():
    cause = denies(POD, "203.0.113.7")
    assert (cause.row, cause.code) == (denies, CauseCode.ENDPOINT_DENIES)
    assert cause.params == (("at", "10.244.1.8:8080"), ("client", "203.0.113.7"))
    assert (cause.get("client"), cause.get("holder")) == ("203.0.113.7", "")
    assert cause.get("holder", "nobody") == "nobody"
    assert source_denied([POD]).get("networks") == ("10.244.1.8:8080",)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        pytest.param((), {}, id="too-few"),
        pytest.param((POD, True, "more"), {}, id="too-many"),
        pytest.param((POD,), {"client": "203.0.113.7"}, id="unknown"),
        pytest.param((), {"client": "203.0.113.7"}, id="unknown-in-place-of-another"),
    ],
)
def test_a_cause_row_rejects_missing_and_unknown_parameters(args, named):
    with pytest.raises(TypeError):
        refuses(*args, **named)


def test_replace_cannot_change_the_parameters_of_a_cause():
    with pytest.raises(TypeError):
        REFUSES.replace(at="[fd00::8]:8080")


def test_two_cause_rows_cannot_have_the_same_name():
    with pytest.raises(ValueError, match="two causes are called refuses"):
        cause(CauseCode.NOT_READY)(refuses.words)
    assert ROWS["refuses"] is refuses


def test_causes_with_another_proxys_text_are_compared_by_text():
    code = CauseCode("endpoint-sings")
    sings = as_read(code, "10.244.1.8:8080 sings", "10.244.1.8:8080", "Listen")
    assert (say(sings), object_of(sings), remedy(sings)) == (
        "10.244.1.8:8080 sings",
        "10.244.1.8:8080",
        "Listen",
    )
    assert sings == as_read(code, "10.244.1.8:8080 sings", "10.244.1.8:8080", "Listen")
    assert sings not in (as_read(code, "10.244.1.8:8080 sings"), as_read(CauseCode.NOT_READY))
    assert sings.code is code
    assert not [key for key in ROWS if key.startswith("as-read")]


@pytest.mark.parametrize(
    "sent",
    [REFUSES, no_datagram(POD).replace(**CHANGES), as_read(CauseCode.NO_SLICE, "no slice", "x")],
    ids=["row", "modifiers", "words"],
)
def test_a_pickled_cause_equals_the_original(sent):
    got = pickle.loads(pickle.dumps(sent))
    assert got == sent
    assert (say(got), remedy(got)) == (say(sent), remedy(sent))


def test_another_process_can_read_any_pickled_cause():
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(held_by("10.96.0.1", "shop/x")),
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.decode().startswith("held_by(")


@pytest.mark.parametrize(
    ("cause", "is_of_pods"),
    [(none_ready(2, 0, ()), True), (slice_empty("shop/web", 1), True), (REFUSES, False)],
)
def test_is_of_pods_is_true_only_if_the_state_of_pods_explains_a_cause(cause, is_of_pods):
    assert cause.is_of_pods is is_of_pods
