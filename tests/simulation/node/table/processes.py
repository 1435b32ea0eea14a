"""Ends the product's processes, and begins the next ones: with the same steering or the other one.

    another steering ─▶ the new process removes what others left, or its start ends
                     ─▶ it starts: nothing of theirs is there

Source: docs/paths.md ("Local steering"); the docstrings of ``steering.selection``.

Rule 1: a process whose start ends is started again, as by whatever supervises it.
Rule 2: where a process dies within a step, another one has begun when that step returns.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from userspace_proxy.steering.selection import Leftovers, remove_leftovers

from ...judgements import Judgements
from . import plan as p
from .local_runs import Call, LocalRuns
from .nftables_runs import NftablesRuns
from .node import Machine
from .oracles import Oracles
from .plan import Step

# Each of those that fail takes a failure that is still to come.
_STARTS = 200


class Processes:
    """The product's processes of one run of a plan, one after another.

    Args:
        nftables: The runs that steer by nftables.
        local: Those that steer by routes and a guard.
        call_local: Runs a step that isn't one of nftables', as :class:`LocalRuns` takes it.
        takes_over: Whether each process looks for what others have left.
    """

    def __init__(
        self,
        node: Machine,
        judgements: Judgements,
        oracles: Oracles,
        *,
        nftables: NftablesRuns,
        local: LocalRuns,
        call_local: Call,
        takes_over: bool,
    ) -> None:
        self._node = node
        self._judgements = judgements
        self._oracles = oracles
        self._nftables = nftables
        self._local = local
        self._call_local = call_local
        self._takes_over = takes_over
        self._wanted = p.NFTABLES
        """The steering of the process that has begun, or begins."""

    def want_other(self) -> None:
        """Have the processes that are still to begin use the other steering."""
        self._wanted = _other(self._wanted)

    def restart(self, step: Step) -> None:
        """End the process, orderly or not, and start another one."""
        if step.name == "close" and self._local.is_on:
            self._local.end()
        elif step.name == "close":
            self._nftables.close()
        if step.port:
            self._node.refuse_port = step.port
        self.come_back()

    def come_back(self) -> None:
        """End the process at once, and begin the next one."""
        self._die()
        self.begin()

    def begin(self) -> None:
        """Begin a run of the steering that is wanted; one that can't start is started again."""
        node = self._node
        for _ in range(_STARTS):
            process = node.process
            is_done = not self._takes_over or self._take_over()
            if node.process != process or self._judgements.violations:
                # It died, and the next one has begun.
                return
            if is_done:
                break
            self._die()
        else:
            raise AssertionError("no start succeeds")
        # Also where it isn't used: a step that is under way sees that another process runs.
        node.steering = node.new_steering()
        if self._wanted == p.LOCAL:
            self._local.begin()
        else:
            self._nftables.begin()

    def clean_up(self) -> None:
        """Have the process remove all that is its own; one that can't is started again."""
        process, steering = self._node.process, self._node.steering
        if self._local.is_on:
            if not self._local.clean_up() and process == self._node.process:
                self.come_back()
        elif not self._nftables.clean_up() and self._node.steering is steering:
            self.come_back()

    def change_steering(self, step: Step) -> None:
        """End the process, orderly or not, and start one that uses the other steering."""
        if step.name == "clean up":
            process = self._node.process
            self.clean_up()
            if process != self._node.process:
                return
        self.want_other()
        self.restart(replace(step, name="close" if step.name == "clean up" else step.name))

    def _die(self) -> None:
        self._node.die()
        self._oracles.restarted()

    def _take_over(self) -> bool:
        """Have a new process remove what others left; return whether it can go on."""
        node, oracles, wanted = self._node, self._oracles, self._wanted
        process, was_local = node.process, self._local.is_on
        is_of_nftables = wanted == p.LOCAL and not was_local
        oracles.may_remove = True
        interrupted, failures = node.routes.interrupted, node.failures
        if was_local and wanted == p.NFTABLES:
            self._local.removing()
        is_there = bool(self._left_by(_other(wanted)))
        found, is_done = self._remove_leftovers(is_of_nftables=is_of_nftables)
        oracles.may_remove = False
        if node.process != process:
            return False
        if not is_done:
            self._look_at_ended_start(str(found), is_of_nftables=is_of_nftables)
            if was_local:
                self._local.died()
            return False
        has_failed = node.failures != failures
        may_be_unread = has_failed or node.routes.interrupted != interrupted
        if not self._look_at_found(found, is_there=is_there, may_be_unread=may_be_unread):
            # An operator who reads that starts it again.
            return False
        if is_of_nftables:
            self._nftables.gone()
            self._local.take_over()
        elif wanted == p.NFTABLES and was_local:
            left = self._local.left
            self._judgements.check("take-over", not left, f"{left} is left")
            self._local.gone()
            oracles.forgotten()
        return True

    def _remove_leftovers(self, *, is_of_nftables: bool) -> tuple[Any, bool]:
        """Have the process remove what others left; return what it found, or what it raised."""
        wanted, name = self._wanted, self._node.node.proxy_name

        def remove() -> Coroutine[Any, Any, Leftovers]:
            return remove_leftovers(wanted, name)

        if is_of_nftables:
            return self._nftables.call("take over", remove, {})
        return self._call_local("take over", remove)

    def _look_at_ended_start(self, text: str, *, is_of_nftables: bool) -> None:
        """Judge a start that ended as something couldn't be removed."""
        name = _other(self._wanted)
        self._judgements.check(
            "take-over",
            text.startswith(f"cannot remove leftovers of steering {name}, "),
            f"a start ended with: {text}",
        )
        if is_of_nftables:
            self._oracles.doubt("a refused take-over")
            left = self._local.left
            self._judgements.check("take-over", not left, f"{left} is there before the start")

    def _left_by(self, steering: str) -> list[str]:
        """Return what a steering of the product has in the kernel."""
        return self._local.left if steering == p.LOCAL else self._nftables.left

    def _look_at_found(self, found: Leftovers, *, is_there: bool, may_be_unread: bool) -> bool:
        """Judge what is said of others' leftovers; return whether all could be read."""
        is_read = not found.unseen
        wanted = (_other(self._wanted),) if is_there and is_read else ()
        self._judgements.check(
            "take-over", found.removed == wanted, f"said to be removed: {found.removed}"
        )
        self._judgements.check(
            "take-over", is_read or may_be_unread, f"can't be read: {found.unseen}"
        )
        return is_read


def _other(steering: str) -> str:
    return p.NFTABLES if steering == p.LOCAL else p.LOCAL
