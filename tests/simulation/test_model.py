"""Tests of what the reference model answers where a fact is unsure."""

from __future__ import annotations

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from .model import LONGEST_S, PROBE_S, Kind, Model, Span, Sure

ALICE = "10.3.0.1"
POD = SocketAddress("10.2.0.1", 80)


def kinds(model: Model, at: Span) -> set[Kind]:
    return {option.kind for option in model.options(ALICE, at) or ()}


def test_a_dial_to_an_endpoint_that_may_be_ejected_makes_nothing_sure() -> None:
    model = Model(Serving((POD,)), 0.0)
    model.may_have_failed(POD, (1.0, 1.0), is_silent=True)
    later = 1.0 + LONGEST_S, 1.0 + LONGEST_S
    assert kinds(model, later) == {Kind.TURN}
    model.sent(ALICE, POD, later)
    assert kinds(model, later) == {Kind.TURN, Kind.LAST, Kind.NONE}
    after = later[1] + PROBE_S, later[1] + PROBE_S
    assert kinds(model, after) == {Kind.TURN}


def test_a_dial_to_an_endpoint_that_is_ejected_is_its_only_probe() -> None:
    model = Model(Serving((POD,)), 0.0)
    model.failed(POD, (1.0, 1.0), is_silent=True)
    later = 1.0 + LONGEST_S, 1.0 + LONGEST_S
    assert kinds(model, later) == {Kind.TURN}
    model.sent(ALICE, POD, later)
    assert kinds(model, later) == {Kind.NONE}


def test_a_failure_after_one_that_may_have_ejected_an_endpoint_may_be_its_second() -> None:
    model = Model(Serving((POD,)), 0.0)
    model.may_have_failed(POD, (1.0, 1.0))
    model.failed(POD, (10.0, 10.0))
    # It is ejected for 5 s, or for 10.
    found = [model.excluded(model.inner, POD, (at, at)) for at in (14.9, 15.1, 19.9, 20.1)]
    assert found == [Sure.YES, Sure.EITHER, Sure.EITHER, Sure.NO]
