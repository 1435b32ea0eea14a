"""Runs one row through quiet, fault, repair and recovery, and judges it by the row's limits.

quiet load ─▶ footprint ─▶ load ─▶ break ─▶ evidence ─▶ repair ─▶ recovered ─▶ footprint
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.nodes.clients import now
from tests.cluster.waiting import DeadlineExceededError, wait_for
from tests.node.load import Load, Outcome, pass_time

from .evidence import Evidence
from .footprint import Footprint, take_footprint
from .rig import Rig, opened
from .row import Row

QUIET_S = 1.5
EVIDENCE_S = 8.0
"""Seconds within which a fault must show before it is repaired."""
AFTERWARDS_S = 1.0
"""Seconds for which the load continues after the proxy has recovered."""
PATIENCE = 3
"""The framework waits this many times as long as a limit allows, in order to report a figure."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one row."""

    row: Row
    quiet: Outcome
    """The other Service's outcomes before the fault."""
    web: Outcome
    """The faulty Service's outcomes, from the fault to the repair."""
    cart: Outcome
    """The other Service's outcomes, from the fault to the end."""
    direct: Outcome
    """The outcomes of the other Service's endpoint without the proxy, from the fault to the end."""
    shown: Sequence[str]
    """The text of each piece of evidence; empty if it didn't show."""
    back_s: float
    log_lines: Sequence[str]
    before: Footprint
    after: Footprint
    survived: bool
    figures: Sequence[str]
    complaints: Sequence[str]
    """See :class:`Rig`."""
    is_second_try: bool = False
    """Whether the row failed at first, and was run again."""

    def problems(self) -> list[str]:
        """Return a line for each exceeded limit of the row; empty if all limits hold."""
        return [*self.complaints, *self._costs(), *self._reports(), *self._recovery()]

    @property
    def other_limit_ms(self) -> float:
        """The limit of the other Service's p99.

        It is at least twice the p99 of the same connections without the proxy, so that delays by
        the machine's other programs don't count.
        """
        slower = max(self.quiet.p99_ms, self.direct.p99_ms)
        return max(2 * slower, self.row.limits.other_p99_ms)

    def _costs(self) -> Iterator[str]:
        limits, web, cart = self.row.limits, self.web, self.cart
        if not self.survived:
            yield "the proxy ended"
        if web.failed.total() > limits.failed * web.made:
            yield f"{web.failed.total()} of {web.made} connections failed: {dict(web.failed)}"
        if web.slowest_s > limits.slowest_s:
            yield f"a connection took {web.slowest_s:.1f} s"
        if cart.failed.total() > limits.other_failed:
            yield f"{cart.failed.total()} connections of another Service failed"
        if cart.p99_ms > self.other_limit_ms:
            yield f"another Service's p99 {self.quiet.p99_ms:.0f} → {cart.p99_ms:.0f} ms"

    def _reports(self) -> Iterator[str]:
        for evidence, text in zip(self.row.evidence, self.shown, strict=True):
            if not text:
                yield f"nothing showed {evidence}"
        if len(self.log_lines) > self.row.limits.log_lines:
            yield f"{len(self.log_lines)} log lines"
        if any("Traceback" in line for line in self.log_lines):
            yield "a traceback in the log"

    def _recovery(self) -> Iterator[str]:
        limits = self.row.limits
        if self.back_s > limits.back_s:
            yield f"back after {self.back_s:.1f} s"
        yield from self.after.leaks(
            self.before, limits.memory_mib, same_processes=limits.same_processes
        )


def measure(row: Row, folder: Path) -> Measured:
    """Run a row in its own sandbox.

    Args:
        row: The row.
        folder: An empty folder.
    """
    with opened(row.rig, folder) as rig:
        quiet = _quiet(rig)
        before = take_footprint(rig)
        values = [evidence.read(rig) for evidence in row.evidence]
        rig.begin_log()
        loads = rig.load_web(), rig.load_cart(), rig.load_direct()
        start = now()
        with row.fault(rig):
            shown = _watch(row, rig, values, start)
            repair = now()
        back_s = _recover(row, rig, repair)
        web, cart, direct = (load.stop() for load in loads)
        back_s = max(back_s, web.back_after(repair), cart.back_after(repair))
        after = _settle(row, rig, before)
        return Measured(
            row,
            quiet,
            web.since(start).until(repair),
            cart.since(start),
            direct.since(start),
            shown,
            back_s,
            rig.log_lines(),
            before,
            after,
            rig.agent.process is not None and rig.agent.process.poll() is None,
            rig.figures,
            rig.complaints,
        )


def _quiet(rig: Rig) -> Outcome:
    loads: list[Load] = [rig.load_web(), rig.load_cart()]
    # The first connections are excluded, because caches are cold.
    pass_time(2 * QUIET_S)
    web, cart = (load.stop() for load in loads)
    assert not web.failed, f"the rig doesn't serve: {web.failed}\n{rig.agent.log()}"
    return cart.since(cart.attempts[0].start + QUIET_S)


def _watch(row: Row, rig: Rig, values: Sequence[object], start: float) -> list[str]:
    """Wait until the end of the fault; return the text of each piece of evidence."""
    shown = [""] * len(row.evidence)

    def look() -> bool:
        for number, evidence in enumerate(row.evidence):
            shown[number] = shown[number] or _find(evidence, rig, values[number])
        return all(shown) and now() - start >= row.limits.fault_s

    with contextlib.suppress(DeadlineExceededError):
        wait_for("evidence", look, deadline_s=max(EVIDENCE_S, row.limits.fault_s))
    return shown


def _find(evidence: Evidence, rig: Rig, value: object) -> str:
    try:
        return evidence.find(rig, value)
    except OSError:
        # The status page can't be read at this moment.
        return ""


def _recover(row: Row, rig: Rig, repair: float) -> float:
    """Wait until the proxy has recovered; return the seconds since the repair."""
    deadline_s = PATIENCE * max(row.limits.back_s, row.limits.settle_s)
    try:
        wait_for("recovery", rig.is_well, deadline_s=deadline_s)
    except DeadlineExceededError:
        rig.complaints.append("the proxy still reports a problem")
    back_s = now() - repair
    pass_time(AFTERWARDS_S)
    return back_s


def _settle(row: Row, rig: Rig, before: Footprint) -> Footprint:
    """Return the footprint once it equals the earlier footprint, or at the deadline."""
    limits, taken = row.limits, [take_footprint(rig)]

    def is_settled() -> bool:
        taken.append(take_footprint(rig))
        leaks = taken[-1].leaks(before, limits.memory_mib, same_processes=limits.same_processes)
        return not list(leaks)

    with contextlib.suppress(DeadlineExceededError):
        wait_for("a footprint as before", is_settled, deadline_s=limits.settle_s)
    return taken[-1]
