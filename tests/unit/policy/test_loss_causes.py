import pytest

from userspace_proxy.model import CauseCode, Failure, SocketAddress
from userspace_proxy.model.failures import LOSSES
from userspace_proxy.policy.loss_causes import loses, lost_before

POD = SocketAddress("fd00::9", 8080)
ALICE = "203.0.113.7"


@pytest.mark.parametrize(
    ("failure", "has_sent", "now", "before", "about"),
    [
        pytest.param(
            Failure.NOT_TO_ENDPOINT,
            False,
            "[fd00::9]:8080 acknowledges handshakes, but not what clients send",
            "[fd00::9]:8080 acknowledged handshakes, but not what clients sent",
            "[fd00::9]:8080",
            id="requests",
        ),
        pytest.param(
            Failure.NOT_TO_ENDPOINT,
            True,
            "[fd00::9]:8080 does not acknowledge all that clients send",
            "[fd00::9]:8080 did not acknowledge all that clients sent",
            "[fd00::9]:8080",
            id="later-requests",
        ),
        pytest.param(
            Failure.FROM_ENDPOINT,
            True,
            "answers of [fd00::9]:8080 arrive with a gap",
            "answers of [fd00::9]:8080 arrived with a gap",
            "[fd00::9]:8080",
            id="answers",
        ),
        pytest.param(
            Failure.NOT_TO_CLIENT,
            True,
            "client 203.0.113.7 does not acknowledge the answers that it is sent",
            "client 203.0.113.7 did not acknowledge the answers that it was sent",
            ALICE,
            id="client",
        ),
    ],
)
def test_a_loss_is_worded_by_the_side_and_the_direction(failure, has_sent, now, before, about):
    assert failure in LOSSES
    cause = loses(POD, failure, ALICE, has_sent=has_sent)
    assert (cause.code, cause.sentence, cause.object) == (CauseCode.PACKETS_LOST, now, about)
    assert lost_before(cause.sentence) == before


@pytest.mark.parametrize(
    ("failure", "to"), [(Failure.NOT_TO_ENDPOINT, "fd00::9"), (Failure.NOT_TO_CLIENT, ALICE)]
)
def test_the_remedy_names_the_way_on_which_packets_are_lost(failure, to):
    hint = loses(POD, failure, ALICE).hint
    assert hint.startswith(f"Large packets may exceed the MTU on the way to {to}: ")
    assert "ICMP type 3 code 4" in hint
    assert "clamp the MSS" in hint
