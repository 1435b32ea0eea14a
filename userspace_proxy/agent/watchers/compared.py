"""Collects the facts for comparing a cluster's nodes: digests of the plan, settings, resource use.

    applied snapshot ──▶ Digests ───┐
    /proc of the proxy and workers ─┼─▶ facts
    settings ───────────────────────┘

Rule 1: digests are updated and /proc is read on request, never by a timer. Digests are computed in
a thread, because the first digests of 10,000 Services take a fraction of a second.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from ...facts import StatusFacts
from ...facts.node import PlanFacts
from ...facts.processes import ProcessFacts
from ...plan.digest import FORM, Digests
from ...plane import Plane
from ...status.answers import plain_setting
from ..rounds.changes import Progress
from ..rounds.component import Component
from ..rounds.options import Options

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Compared(Component):
    """Collects the facts by which readers compare nodes.

    Args:
        source: The kind of the Services' source.
    """

    def __init__(
        self,
        progress: Progress,
        plane: Plane,
        source: str,
        options: Options,
        proc: Path = Path("/proc"),
    ) -> None:
        self._progress = progress
        self._plane = plane
        self._digests = Digests()
        settings = differing_settings(options)
        # Plans are comparable only if all nodes read the same objects from an API server.
        from_pods = bool(settings.get("endpoints_from_pods"))
        self._is_comparable = source == "kubernetes" and not from_pods
        self._plan = PlanFacts()
        self._settings = settings
        self._process = ProcessFacts()
        self._proc = proc
        self._cpu_s: dict[int, float] = {}
        """CPU seconds of the processes at the last check."""
        self._ended_cpu_s = 0.0
        """CPU seconds of workers that have exited."""

    async def refresh(self) -> None:
        self._process = self._usage()
        in_force = self._progress.in_force
        if in_force is None or not self._is_comparable:
            return
        await asyncio.to_thread(self._digests.follow, in_force.services)
        digest, buckets = self._digests.summary
        count = sum(map(len, self._digests.buckets))
        self._plan = PlanFacts(FORM, digest, count, buckets)

    def show(self, facts: StatusFacts) -> None:
        facts.plan, facts.digests = self._plan, self._digests.buckets
        facts.process, facts.settings = self._process, self._settings

    def _usage(self) -> ProcessFacts:
        pids = [os.getpid(), *(one.pid for one in self._plane.state().workers if one.pid)]
        looks = {pid: look for pid in pids if (look := self._look(pid)) is not None}
        self._ended_cpu_s += sum(s for pid, s in self._cpu_s.items() if pid not in looks)
        self._cpu_s = {pid: cpu_s for pid, (cpu_s, _) in looks.items()}
        cpu_s = self._ended_cpu_s + sum(self._cpu_s.values())
        return ProcessFacts(round(cpu_s, 2), sum(memory for _, memory in looks.values()))

    def _look(self, pid: int) -> tuple[float, int] | None:
        """Return a process's CPU seconds and memory in bytes; None if /proc doesn't show it."""
        try:
            text = (self._proc / f"{pid}/stat").read_text("latin-1")
        except OSError:
            return None
        # utime, stime and rss: fields 14, 15 and 24 of proc_pid_stat(5). The process name before
        # them may contain spaces and brackets, so split the line at the last bracket.
        fields = text.rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return ticks / _TICKS_PER_S, int(fields[21]) * _PAGE_BYTES


def differing_settings(options: Options) -> dict[str, object]:
    """Return the settings that differ from their defaults, with values as in ``/configz``."""
    if not options.config:
        return {}
    # Import settings only here, because a program that embeds the proxy has none.
    from ...config import Settings

    defaults = {name: value for name, value, _ in Settings().as_rows()}
    return {
        name: plain_setting(value)
        for name, value, _ in options.config
        if value != defaults.get(name)
    }
