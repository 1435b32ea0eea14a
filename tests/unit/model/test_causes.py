"""The codes of causes, each with a section where readers look it up, and rules of others."""

import re
from pathlib import Path

import pytest

from userspace_proxy.model import CauseCode, Doubt, Taken
from userspace_proxy.model.causes import DIAL_CAUSES, Traits

DOCS = Path(__file__).parents[3] / "docs"


def test_codes_are_words_with_dashes():
    assert all(code == code.lower().replace("_", "-") for code in CauseCode)
    assert all(code.name == code.value.upper().replace("-", "_") for code in CauseCode)


def test_a_code_of_a_newer_proxy_is_kept():
    code = CauseCode("a-newer-code")
    assert (code, str(code), code.value) == ("a-newer-code", "a-newer-code", "a-newer-code")
    assert code not in list(CauseCode)
    assert code.traits == Traits()


def test_each_code_has_a_section_in_the_docs_and_each_section_is_of_a_code():
    text = (DOCS / "troubleshooting.md").read_text()
    causes = text.partition("\n## Causes\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\S+)$", causes, re.MULTILINE) == [*CauseCode]


def test_the_cause_of_other_errors_is_the_last_one_of_dials():
    assert {*DIAL_CAUSES} == {code for code in CauseCode if code.traits.is_dial}
    assert DIAL_CAUSES[-1] is CauseCode.ENDPOINT_FAILS


@pytest.mark.parametrize("code", [code for code in CauseCode if code.traits.is_unanswered])
def test_an_endpoint_that_does_not_answer_has_accepted(code):
    assert code.traits.accepts


@pytest.mark.parametrize("code", CauseCode)
def test_commands_have_only_places_that_are_filled(code):
    for words in (code.traits.kubectl, code.traits.kubectl_of_pod, code.traits.on_node):
        assert {*re.findall(r"\{(\w*)\}", words)} <= {"namespace", "name", "pod", "ip"}


def test_that_a_chain_takes_packets_is_shown_with_the_remedy():
    taken = Taken("a chain drops packets to it", "accept them", "ip evil in")
    assert str(taken) == "a chain drops packets to it; accept them"
    assert str(Taken("a chain drops packets to it")) == "a chain drops packets to it"
    assert (taken.chain, taken) == ("ip evil in", Taken(taken.what, taken.hint, taken.chain))


def test_a_doubt_is_no_certain_cause():
    doubt = Doubt("a chain may translate it", "delete it", "ip evil in")
    assert doubt != Taken(doubt.what, doubt.hint, doubt.chain)
    assert len({doubt, Doubt(doubt.what, doubt.hint, doubt.chain)}) == 1
