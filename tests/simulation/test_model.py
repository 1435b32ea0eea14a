"""Tests of what the reference model answers where a fact is unsure."""

from __future__ import annotations

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.handling import Handling
from userspace_proxy.model.serving import Serving

from .attempts import Attempt
from .model import LONGEST_S, PROBE_S, Kind, Model, Option, Span, Sure
from .turns import Turns

ALICE = "10.3.0.1"
POD, OTHER = SocketAddress("10.2.0.1", 80), SocketAddress("10.2.0.2", 80)


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


def test_one_whose_weight_grows_has_turns_by_the_time_that_all_share() -> None:
    """With a small weight its next turn comes nearer; once that has grown, it is due at once."""
    pods = POD, OTHER
    model = Model(Serving(pods, handling=Handling(slow_start_s=4.0)), 0.0)
    model.failed(POD, (0.0, 0.0))
    model.answered(POD, (1.0, 1.0))
    turns, option = Turns(model, model.inner), Option(Kind.TURN, frozenset(pods), pods)

    def took(chosen: SocketAddress, at: float) -> bool | None:
        return turns.took(ALICE, option, chosen, (at, at))[0].is_right

    assert all(took(each, 1.0) for each in (POD, *[OTHER] * 9, POD, *[OTHER] * 3))
    assert took(POD, 4.3)
    assert not took(POD, 4.3)


def test_a_client_has_looked_for_an_endpoint_also_if_no_dial_could_begin() -> None:
    new = Attempt(1, ALICE, (1.0, 1.0), looked_for=(1.0, 1.0))
    refused = Attempt(2, ALICE, (1.0, 1.0), looked_for=(1.0, 1.0), tried={POD: None})
    without = Attempt(3, ALICE, (1.0, 1.0), looked_for=(1.0, 1.0), found_none_at=1.0)
    assert [each.has_looked for each in (new, refused, without)] == [False, True, True]
