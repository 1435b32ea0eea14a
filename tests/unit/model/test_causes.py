"""One cause."""

from userspace_proxy.model import Cause, CauseCode


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
