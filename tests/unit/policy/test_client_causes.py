import pytest

from userspace_proxy.model import CauseCode
from userspace_proxy.policy.client_causes import (
    hop_limit_reached,
    no_proxy_header,
    none_was_local,
    source_denied,
    source_was_denied,
)


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


@pytest.mark.parametrize(
    ("networks", "sentence"),
    [
        pytest.param((), "all clients are dropped", id="none"),
        pytest.param(("198.51.100.0/24",), "clients outside 198.51.100.0/24 are dropped", id="one"),
        pytest.param(
            [f"10.{n}.0.0/16" for n in range(6)],
            "clients outside 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, … "
            "are dropped",
            id="many",
        ),
    ],
)
def test_clients_that_are_not_admitted_are_outside_some_networks(networks, sentence):
    cause = source_denied(networks, count=3, first_at=1.0, last_at=2.0)
    assert (cause.code, cause.sentence) == (CauseCode.SOURCE_DENIED, sentence)
    assert (cause.count, cause.first_at, cause.last_at) == (3, 1.0, 2.0)


def test_clients_that_were_dropped_before_may_be_admitted_now():
    ranges, policy = source_was_denied(), none_was_local()
    assert "before spec.loadBalancerSourceRanges changed" in ranges.sentence
    assert "while only other nodes had endpoints" in policy.sentence
    assert "explain --from=ADDRESS" in ranges.hint == policy.hint
