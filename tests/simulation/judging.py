"""Judges a choice, a wait and a refusal: what the reference model allows then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .addresses import NODE_IP
from .attempts import Attempt, Dial, Port
from .model import Kind, Option, Span, Sure
from .sockets import CLIENT_PORTS
from .turns import Verdict

if TYPE_CHECKING:
    from .world import World

SILENT_S = 1.0
"""A dial without an answer for as long as this has failed (``--connect-timeout``)."""
CLIENT_S = 3.0
"""A client has an answer after three such dials, or none."""
PAIR_S = 60.0
"""A failure of one client's address is that client's own for a minute (ADR 0070)."""
# The program's clock is read once a turn, and a timer may be that much early by it.
_CLOCK_S = 0.005


def may_be_late(first: Span | None, at: Span) -> bool:
    """Return whether the time of a client for which an endpoint was first looked for may be up."""
    return first is not None and at[1] - first[0] >= CLIENT_S - _CLOCK_S


class Judging:
    """What a run's choices are judged by."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.judge = world.judgements
        self.answered_at: dict[tuple[str, SocketAddress], float] = {}
        """When an endpoint last answered a client at the client's address, or such a one ended."""

    def judge_source(self, attempt: Attempt, source: str) -> None:
        """Endpoints see the client's own address where the node says so, and ports are left."""
        client = self._world.clients[attempt.number]
        assert attempt.dial is not None, "it is dialled"
        own = client.stream.local[0] if client.stream.local else ""
        is_kept = attempt.keeps_address and self._world.routes.keeps(own, attempt.dial.endpoint.ip)
        is_announced = own != attempt.ip
        wanted = own if is_kept and not is_announced else NODE_IP
        if source == wanted:
            self.judge.right("client address")
            return
        dial, now = attempt.dial, self._world.timeline.now
        answered_at = self.answered_at.get((attempt.ip, dial.endpoint))
        kernel = self._world.kernel
        has_lacked = kernel.lacked("ports") or kernel.lacked(CLIENT_PORTS)
        if source == NODE_IP and answered_at is not None and has_lacked:
            is_near = now - answered_at < 2 * PAIR_S + self._world.stopped_s or attempt.joined
            self.judge.check("client address", bool(is_near), "the node's address was used")
            return
        self.judge.violate("client address", f"{dial.endpoint} sees {source}, not {wanted}")

    def judge_portless(self, attempt: Attempt, dial: Dial) -> None:
        """Where a client's ports are in use, this node's address is for endpoints that answer it.

        The dial has failed, as no port was free.
        """
        answered_at = self.answered_at.get((attempt.ip, dial.endpoint))
        if dial.is_preserved and answered_at is not None:
            is_late = self._world.timeline.now - answered_at >= PAIR_S - 1.0
            why = f"{dial.endpoint} wasn't dialled for {attempt.ip} from the node's address"
            self.judge.check("client address", is_late, why)

    def judge_choice(self, port: Port, attempt: Attempt, endpoint: SocketAddress, at: Span) -> None:
        model, judge = port.model, self.judge
        side = model.side_of(attempt.ip)
        if endpoint not in side.endpoints:
            judge.violate("allowed endpoint", f"{attempt.ip} was sent to {endpoint}")
            return
        judge.right("allowed endpoint")
        judge.check("dialled once", endpoint not in attempt.tried, f"{endpoint} was tried before")
        options = model.options(attempt.ip, at, attempt.tried)
        turns = port.turns_of(side)
        if options is None:
            judge.excuse("choice", "too much is unsure")
            turns.restart()
            return
        fitting = [option for option in options if endpoint in option.endpoints]
        names = list(self._promises(port, attempt, options, at))
        if not fitting:
            judge.violate(names[-1], f"{attempt.ip} was sent to {endpoint}, not {_text(options)}")
            return
        for name in names:
            if len(fitting) == len(options):
                judge.right(name)
            else:
                judge.excuse(name, "the moment is unsure")
        self._judge_turn(port, attempt, fitting, endpoint, at)

    def _promises(
        self, port: Port, attempt: Attempt, options: list[Option], at: Span
    ) -> Iterator[str]:
        """Yield what is promised here, the strongest last."""
        model = port.model
        side = model.side_of(attempt.ip)
        yield "choice"
        if model.serving.outside is not None:
            yield "side"
        if len(side.levels) > 1:
            yield "standby"
        if model.limit is not None:
            yield "limit"
        if any(model.excluded(side, e, at) is not Sure.NO for e in side.excluded):
            yield "last choice" if options[0].kind is Kind.LAST else "ejection"
        elif side.excluded:
            yield "one probe"
        if any(option.kind is Kind.PINNED for option in options):
            yield "affinity"

    def _judge_turn(
        self, port: Port, attempt: Attempt, fitting: list[Option], endpoint: SocketAddress, at: Span
    ) -> None:
        turns = port.turns_of(port.model.side_of(attempt.ip))
        taken = [option for option in fitting if option.kind is Kind.TURN]
        if not taken:
            return
        found = [turns.judge(attempt.ip, option, endpoint, at) for option in taken]
        if len(fitting) == 1:
            self._note(found[0])
        else:
            self._note(list(_common(found, may_be_none=len(taken) < len(fitting))))
        if len(fitting) == 1:
            self._note(turns.took(attempt.ip, taken[0], endpoint, at))
        else:
            turns.may_have_taken(fitting, endpoint)

    def _note(self, verdicts: list[Verdict]) -> None:
        for oracle, is_right, why in verdicts:
            if is_right is None:
                self.judge.excuse(oracle, why)
            else:
                self.judge.check(oracle, is_right, why)

    def judge_refusal(self, port: Port, attempt: Attempt) -> None:
        """A client is refused only if no endpoint is left, or its time is up."""
        at, first = self._world.moment(), attempt.looked_for
        is_held = port.model.serving.handling.hold is not None
        if may_be_late(first, at):
            is_right, why = not is_held, "it may wait"
        else:
            options = port.model.options(attempt.ip, at, attempt.tried)
            kinds = {option.kind for option in options or ()}
            is_right = (not kinds or Kind.NONE in kinds) and not is_held
            why = f"client {attempt.number} was refused, and had {_text(options or [])}"
        if not is_right and (attempt.begun_at is None or self._has_shortage(attempt)):
            self.judge.excuse("refusal", "the kernel lacked something")
        else:
            self.judge.check("refusal", is_right, why)

    def judge_wait(
        self,
        attempt: Attempt,
        options: list[Option] | None,
        at: Span,
        *,
        is_behind: bool,
        may_be_behind: bool,
    ) -> None:
        """A client waits only if no endpoint is left, or it queues up at a limit."""
        first = attempt.looked_for
        is_late = may_be_late(first, at)
        if options is None:
            self.judge.excuse("wait", "too much is unsure")
        elif self._has_shortage(attempt):
            self.judge.excuse("wait", "the kernel lacked something")
        elif is_late or any(option.kind in (Kind.WAIT, Kind.NONE) for option in options):
            self.judge.right("wait")
        elif may_be_behind and not is_behind:
            self.judge.excuse("wait", "others may wait for room")
        else:
            why = f"client {attempt.number} waits, and had {_text(options)}"
            self.judge.check("wait", is_behind, why)

    def _has_shortage(self, attempt: Attempt) -> bool:
        """Return whether the kernel has just refused something that this client needed."""
        began = self._world.moment()[0]
        return attempt.shortage_at >= began or self._world.kernel.lacked_at >= began


def _common(found: list[list[Verdict]], *, may_be_none: bool) -> Iterator[Verdict]:
    """Yield for each oracle the verdict that is the same whatever holds, else that none is sure.

    Args:
        may_be_none: The choice may have been none of those that are judged.
    """
    for oracle in dict.fromkeys(verdict.oracle for verdicts in found for verdict in verdicts):
        each = [verdict for verdicts in found for verdict in verdicts if verdict.oracle == oracle]
        answers = {verdict.is_right for verdict in each}
        is_sure = answers in ({True}, {None}) or (
            answers == {False} and len(each) == len(found) and not may_be_none
        )
        yield each[0] if is_sure else Verdict(oracle, None, "the moment is unsure")


def _text(options: list[Option]) -> str:
    return " or ".join(f"{o.kind.value} of {sorted(e.ip for e in o.endpoints)}" for o in options)
