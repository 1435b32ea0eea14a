import pytest

from userspace_proxy.facts.conversation import Conversation

BOTH, ASKED, ANSWERED, NOTHING = (True, True), (True, False), (False, True), (False, False)


def looked(*looks, every_s=5.0, further_seconds=2):
    """Return a conversation after these checks, ``every_s`` seconds apart."""
    talk = Conversation()
    talk.further_seconds = further_seconds
    for number, (is_asked, is_answered) in enumerate(looks):
        talk.look(100.0 + number * every_s, is_asked=is_asked, is_answered=is_answered)
    return talk


@pytest.mark.parametrize(
    ("looks", "every_s"),
    [
        pytest.param([BOTH] * 2 + [ASKED] * 4, 5.0, id="by-reports"),
        pytest.param([BOTH] * 3 + [ASKED] * 12, 1.0, id="by-views"),
        pytest.param([BOTH, NOTHING, BOTH] + [ASKED, NOTHING] * 3, 5.0, id="with-pauses"),
        pytest.param([ANSWERED] * 3 + [ASKED] * 4, 5.0, id="one-way-after-the-other"),
    ],
)
def test_a_flow_answered_for_a_while_and_then_silent_counts_as_stalled(looks, every_s):
    assert looked(*looks, every_s=every_s).is_stalled
    assert not looked(*looks[:-2], every_s=every_s).is_stalled, "a short silence counts as stalled"
    assert looked(*looks, NOTHING, every_s=every_s).is_stalled, "a pause ends the stall"
    assert not looked(*looks, ANSWERED, every_s=every_s).is_stalled


@pytest.mark.parametrize(
    ("looks", "every_s", "further_seconds"),
    [
        pytest.param([BOTH] * 2 + [ASKED] * 20, 5.0, 1, id="a-handshake-and-then-one-way"),
        pytest.param([BOTH] * 20, 5.0, 99, id="answered"),
        pytest.param([BOTH] * 3 + [NOTHING] * 20, 5.0, 9, id="its-client-asks-nothing"),
        pytest.param([BOTH] * 3 + [ASKED, NOTHING, NOTHING] * 9, 5.0, 9, id="keep-alives"),
        pytest.param([BOTH] * 6 + [ASKED] * 11, 1.0, 9, id="as-long-as-wireguard-waits"),
    ],
)
def test_flows_without_an_unusual_silence_do_not_count_as_stalled(looks, every_s, further_seconds):
    talk = looked(*looks, every_s=every_s, further_seconds=further_seconds)
    assert not talk.is_stalled


def test_after_a_slow_answer_only_a_longer_silence_counts_as_stalled():
    slow = [BOTH] * 3 + [ASKED] * 5 + [BOTH]
    assert not looked(*slow, *[ASKED] * 15).is_stalled, "75 s after a wait of 25 s is stalled"
    assert looked(*slow, *[ASKED] * 17).is_stalled
