"""One cause."""

from userspace_proxy.model import Cause, CauseCode, Doubt, Taken


def test_its_text_is_its_sentence():
    cause = Cause(CauseCode.NO_SLICE, "no EndpointSlice belongs to shop/web", hint="create one")
    assert str(cause) == "no EndpointSlice belongs to shop/web"


def test_codes_are_words_with_dashes():
    assert all(code == code.lower().replace("_", "-") for code in CauseCode)
    assert all(code.name == code.value.upper().replace("-", "_") for code in CauseCode)


def test_a_code_of_a_newer_proxy_is_kept():
    code = CauseCode("a-newer-code")
    assert (code, str(code), code.value) == ("a-newer-code", "a-newer-code", "a-newer-code")
    assert code not in list(CauseCode)


def test_that_a_chain_takes_packets_is_shown_with_the_remedy():
    taken = Taken("a chain drops packets to it", "accept them", "ip evil in")
    assert str(taken) == "a chain drops packets to it; accept them"
    assert str(Taken("a chain drops packets to it")) == "a chain drops packets to it"
    assert (taken.chain, taken) == ("ip evil in", Taken(taken.what, taken.hint, taken.chain))


def test_a_doubt_is_no_certain_cause():
    doubt = Doubt("a chain may translate it", "delete it", "ip evil in")
    assert doubt != Taken(doubt.what, doubt.hint, doubt.chain)
    assert len({doubt, Doubt(doubt.what, doubt.hint, doubt.chain)}) == 1
