"""How long to wait before trying again."""

from __future__ import annotations

import random

from userspace_proxy.sources.kubernetes.backoff import Backoff


class Unlucky(random.Random):
    """Always draws the same."""

    def __init__(self, drawn: float) -> None:
        super().__init__()
        self._drawn = drawn

    def random(self) -> float:
        return self._drawn


def test_waits_double_up_to_the_cap_and_begin_again_after_a_reset():
    backoff = Backoff(Unlucky(0.0))
    assert [backoff.next_s() for _ in range(5)] == [0.8, 1.6, 3.2, 5.0, 5.0]
    backoff.reset()
    assert backoff.next_s() == 0.8


def test_jitter_at_most_doubles_a_wait():
    assert Backoff(Unlucky(1.0)).next_s() == 1.6


def test_the_wait_that_the_server_requests_is_the_minimum_up_to_a_cap():
    backoff = Backoff(Unlucky(0.0))
    assert backoff.next_s(at_least_s=7) == 7
    assert backoff.next_s(at_least_s=1) == 1.6
    assert backoff.next_s(at_least_s=86400) == 300
