import pytest

from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy.causes.say import say
from userspace_proxy.diagnosis.clauses import (
    because_of_flaps,
    before_cause,
    clause,
    fixed,
    joined,
    led_by_kernel,
    planned_of,
    sentence_of,
    stated,
    stated_in_short,
    texts_of,
)

from . import words

REFUSES, SILENT = refuses("10.0.0.1:80"), silent("10.0.0.2:80")


@clause(hint="Wait", planned=lambda count, why="": f"{count} would wait{why}")
def waiting(count, why=""):
    return f"{count} wait{why}"


@clause(hint=lambda why: f"Ask {why}", states=False)
def because(why):
    return f": {getattr(why, 'text', why)}"


@clause(is_dated=True)
def failed(cause=None, why=None):
    return f"clients failed{why.text if why else ''}"


def test_names_in_suggested_commands_are_quoted():
    assert " 'a/$(b)' " in led_by_kernel(1, 0, "a/$(b)", "TCP", "").hint
    flaps = because_of_flaps(9, "$(a)", "$(b)").hint
    assert "describe pods -n '$(a)'; " in flaps
    assert " '$(a)' " in flaps
    assert "='$(b)' " in flaps


def test_clauses_of_equal_arguments_are_equal():
    assert waiting(2) == waiting(count=2) == waiting(2, "") != waiting(3)
    assert hash(waiting(2)) == hash(waiting(2, why=""))
    assert failed() != waiting(2)
    assert str(waiting) == "waiting"


@pytest.mark.parametrize("give", [waiting, lambda: failed(other=1)])
def test_a_clause_requires_the_parameters_of_its_row(give):
    with pytest.raises(TypeError, match="takes c"):
        give()


def test_fixed_and_before_cause_create_clause_rows():
    assert (fixed("fail", "clients fail")().text, str(fixed("fail", ""))) == (
        "clients fail", "fail",
    )  # fmt: skip
    other = before_cause("other_cause", "besides, ")(REFUSES)
    assert (other.text, other.causes) == (f"besides, {say(REFUSES)}", (REFUSES,))


def test_a_clause_lists_the_causes_stated_in_full():
    assert stated(REFUSES).causes == (REFUSES,)
    assert failed(REFUSES, why=stated(SILENT)).causes == (REFUSES, SILENT)
    assert waiting(2).causes == ()
    # A cause whose text is stated only in part isn't listed.
    assert stated_in_short(REFUSES).causes == failed(why=because(REFUSES)).causes == ()


def test_clauses_are_joined_to_a_capitalized_sentence():
    clauses = [failed(), waiting(2)]
    assert sentence_of(clauses) == "Clients failed; 2 wait"
    assert texts_of(clauses, waiting(3)) == ["3 wait: clients failed", "2 wait"]
    assert sentence_of(clauses, failed()) == "Clients failed: clients failed; 2 wait"
    assert planned_of(clauses) == "clients failed; 2 would wait"
    assert joined([]) == ""


def test_each_clause_row_has_a_sample():
    assert {sample.row for sample in words.SAMPLES} == set(words.ROWS)


def test_the_texts_of_clauses_match_the_recorded_page():
    recorded = words.WORDS.read_text(encoding="utf-8")
    assert words.page() == recorded, "if that is intended: python -m tests.unit.diagnosis.words"
