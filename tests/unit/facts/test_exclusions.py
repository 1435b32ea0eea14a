import pytest

from userspace_proxy.facts.exclusions import CLIENTS_MAX, Exclusions
from userspace_proxy.model import Failure

ALICE, BOB = "10.244.3.7", "10.244.3.8"


@pytest.fixture
def exclusions():
    return Exclusions()


def end(exclusions, client, *moments, answered_at):
    for now in moments:
        exclusions.ended(client, now, Failure.RESET, answered_at)


def test_a_client_that_fails_again_after_others_were_answered_is_excluded(exclusions):
    end(exclusions, ALICE, 1.0, answered_at=-1.0)
    end(exclusions, ALICE, 3.0, answered_at=2.0)
    end(exclusions, ALICE, 5.0, answered_at=4.0)
    assert (exclusions.failures, exclusions.client, exclusions.last_at) == (2, ALICE, 5.0)
    end(exclusions, ALICE, 6.0, answered_at=4.0)
    assert (exclusions.failures, exclusions.last_at) == (2, 6.0), "nothing new of others"


def test_clients_that_fail_once_or_while_none_is_answered_are_not(exclusions):
    end(exclusions, ALICE, 1.0, 2.0, 3.0, answered_at=0.5)
    end(exclusions, BOB, 4.0, answered_at=3.5)
    end(exclusions, BOB, 64.0, answered_at=63.0)
    assert exclusions.failures == 0


def test_an_answer_to_a_client_that_failed_is_a_success(exclusions):
    exclusions.answered(BOB, 0.5)
    end(exclusions, ALICE, 1.0, answered_at=-1.0)
    exclusions.answered(BOB, 2.0)
    assert exclusions.succeeded_at < 0, "another client"
    exclusions.answered(ALICE, 2.5)
    assert exclusions.succeeded_at == 2.5
    end(exclusions, ALICE, 3.0, answered_at=2.5)
    assert exclusions.failures == 0, "what was answered was the client itself"
    exclusions.answered(ALICE, 63.0)
    assert exclusions.succeeded_at == 2.5, "a minute later"
    assert exclusions.clients == {}


def test_clients_that_are_kept_have_a_bound(exclusions):
    for number in range(CLIENTS_MAX + 9):
        end(exclusions, f"10.244.3.{number}", float(number), answered_at=-1.0)
    assert len(exclusions.clients) == CLIENTS_MAX
    assert next(iter(exclusions.clients)) == "10.244.3.9"
