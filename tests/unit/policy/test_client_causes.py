from userspace_proxy.model import CauseCode
from userspace_proxy.policy.client_causes import hop_limit_reached, no_proxy_header


def test_a_client_that_sends_no_proxy_header_is_named_with_the_setting():
    cause = no_proxy_header("203.0.113.11")
    assert (cause.code, cause.object) == (CauseCode.NO_PROXY_HEADER, "203.0.113.11")
    assert cause.sentence == (
        "connections without a PROXY header were reset, the last one of 203.0.113.11"
    )
    assert cause.hint.startswith("--accept-proxy-protocol contains that address")


def test_a_client_that_sends_with_too_small_a_ttl_is_named():
    cause = hop_limit_reached("203.0.113.12")
    assert (cause.code, cause.object) == (CauseCode.HOP_LIMIT, "203.0.113.12")
    assert cause.sentence == (
        "datagrams were dropped because their hop limit was reached, the last one of 203.0.113.12"
    )
    assert "larger TTL" in cause.hint
