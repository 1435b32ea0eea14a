import errno

import pytest

from userspace_proxy.facts import Streak, StreakPart
from userspace_proxy.facts.streak import CLIENTS_MAX, Exclusions, LateByte
from userspace_proxy.model import DialFailure, Failure

ALICE, BOB = "10.244.3.7", "10.244.3.8"


def streak_of(*failures, succeeded_at=-1.0):
    streak = Streak()
    streak.succeeded_at = succeeded_at
    for now, failure in failures:
        streak.failed(now, failure)
    return streak


def test_times_of_a_streak_in_the_future_are_set_to_the_present():
    part = StreakPart(9.0, 2, 3.0, 8.0, Failure.REFUSED)
    assert part.not_after(5.0) == StreakPart(5.0, 2, 3.0, 5.0, Failure.REFUSED)
    assert part.not_after(9.0) == part


def test_a_streak_of_failures_can_be_ended_without_a_success():
    streak = streak_of((1.0, Failure.REFUSED), (2.0, Failure.REFUSED))
    streak.end()
    assert not streak.is_on
    streak.failed(3.0, Failure.SILENT)
    assert (streak.part.failures, streak.part.first_at) == (1, 3.0)


def test_a_merged_streak_that_has_ended_has_its_last_failure():
    streak = streak_of((1.0, Failure.SILENT), succeeded_at=0.0)
    streak.add(StreakPart(8.0, 6, 2.0, 7.0, Failure.REFUSED))
    assert (streak.is_on, streak.part.last_at, streak.part.failure) == (False, 7.0, Failure.REFUSED)
    # This older part comes from another process.
    streak.add(StreakPart(-1.0, 2, 3.0, 6.0, Failure.SILENT))
    assert (streak.part.last_at, streak.part.failure) == (7.0, Failure.REFUSED)
    streak.failed(9.0)
    assert (streak.is_on, streak.part.failures, streak.part.first_at) == (True, 1, 9.0)


def test_the_attribute_before_at_is_the_time_of_the_previous_streaks_last_failure():
    streak = streak_of((1.0, Failure.SILENT), (2.0, Failure.SILENT), succeeded_at=0.0)
    assert streak.before_at < 0
    streak.add(StreakPart(3.0, 1, 4.0, 4.0, Failure.RESET))
    streak.failed(5.0, Failure.RESET)
    assert (streak.part.failures, streak.before_at) == (2, 2.0)


def test_summing_the_deltas_between_checks_gives_the_whole_streak():
    streak, copy = streak_of((1.0, Failure.SILENT)), Streak()
    seen = StreakPart()
    for succeeded_at, failed_at in [(-1.0, 2.0), (-1.0, 3.0), (4.0, 5.0), (4.0, 6.0), (7.0, 0.0)]:
        streak.succeeded_at = succeeded_at
        streak.failed(failed_at, Failure.SILENT)
        copy.add(streak.whole().since(seen))
        seen = streak.whole()
        assert copy.is_on == streak.is_on
        assert not copy.is_on or copy.whole() == seen


def test_merged_streaks_have_the_latest_failure():
    streak = streak_of((5.0, Failure.REFUSED))
    streak.add(StreakPart(-1.0, 2, 3.0, 4.0, Failure.SILENT))
    assert streak.whole() == StreakPart(-1.0, 3, 3.0, 5.0, Failure.REFUSED)


def test_a_failed_probe_updates_the_streak_without_being_counted():
    streak = streak_of((1.0, Failure.REFUSED))
    streak.still_fails(9.0, Failure.HOST_UNREACHABLE)
    assert streak.whole() == StreakPart(-1.0, 1, 1.0, 9.0, Failure.HOST_UNREACHABLE, turned_at=9.0)
    streak.succeeded_at = 10.0
    streak.still_fails(11.0, Failure.REFUSED)
    assert not streak.is_on


def test_a_failed_dial_is_recorded_with_its_errno():
    refused = DialFailure(Failure.REFUSED, errno.ECONNREFUSED)
    streak = Streak()
    streak.dial_failed(1.0, refused, ALICE)
    assert (streak.dial_failure, streak.part.failures, streak.part.client) == (refused, 1, ALICE)
    streak.still_fails(2.0, Failure.OTHER, number=errno.EIO)
    assert streak.dial_failure == DialFailure(Failure.OTHER, errno.EIO)
    streak.failed(3.0, Failure.CLOSED)
    assert streak.dial_failure == DialFailure(Failure.CLOSED)


def test_a_streak_keeps_its_client_and_late_byte_until_it_ends():
    streak = streak_of((1.0, Failure.SILENT))
    late = LateByte(2.5, is_at_end=False)
    streak.still_fails(2.0, Failure.SILENT, ALICE, late)
    streak.failed(3.0, Failure.SILENT)
    assert streak.whole() == StreakPart(-1.0, 2, 1.0, 3.0, Failure.SILENT, 0, ALICE, late)
    later = LateByte(8.0, is_at_end=False)
    streak.add(StreakPart(-1.0, 0, 1.0, 3.0, Failure.SILENT, late=later))
    assert streak.whole() == StreakPart(-1.0, 2, 1.0, 3.0, Failure.SILENT, 0, ALICE, later)
    streak.succeeded_at = 4.0
    streak.failed(5.0, Failure.SILENT)
    assert (streak.part.client, streak.part.late) == ("", None)


@pytest.fixture
def exclusions():
    return Exclusions()


def end(exclusions, client, *moments, answered_at):
    for now in moments:
        exclusions.ended(client, now, Failure.RESET, answered_at)


def test_a_client_failing_again_after_other_clients_were_answered_is_excluded(exclusions):
    end(exclusions, ALICE, 1.0, answered_at=-1.0)
    end(exclusions, ALICE, 3.0, answered_at=2.0)
    end(exclusions, ALICE, 5.0, answered_at=4.0)
    part = exclusions.part
    assert (part.failures, part.client, part.last_at) == (2, ALICE, 5.0)
    end(exclusions, ALICE, 6.0, answered_at=4.0)
    assert (exclusions.part.failures, exclusions.part.last_at) == (2, 6.0), "none answered since"


def test_clients_failing_once_a_minute_or_while_none_is_answered_are_not_excluded(exclusions):
    end(exclusions, ALICE, 1.0, 2.0, 3.0, answered_at=0.5)
    end(exclusions, BOB, 4.0, answered_at=3.5)
    end(exclusions, BOB, 64.0, answered_at=63.0)
    assert exclusions.part.failures == 0


def test_answering_a_previously_failed_client_is_a_success(exclusions):
    exclusions.answered(BOB, 0.5)
    end(exclusions, ALICE, 1.0, answered_at=-1.0)
    exclusions.answered(BOB, 2.0)
    assert exclusions.succeeded_at < 0, "another client's answer counts"
    exclusions.answered(ALICE, 2.5)
    assert exclusions.succeeded_at == 2.5
    end(exclusions, ALICE, 3.0, answered_at=2.5)
    assert exclusions.part.failures == 0, "the client's own answer counts"
    exclusions.answered(ALICE, 63.0)
    assert exclusions.succeeded_at == 2.5, "an answer a minute later counts"
    assert exclusions.clients == {}


def test_the_number_of_remembered_clients_is_bounded(exclusions):
    for number in range(CLIENTS_MAX + 9):
        end(exclusions, f"10.244.3.{number}", float(number), answered_at=-1.0)
        end(exclusions, ALICE, float(number), answered_at=-1.0)
    assert len(exclusions.clients) == CLIENTS_MAX
    assert [*exclusions.clients][:: CLIENTS_MAX - 1] == ["10.244.3.10", ALICE]
