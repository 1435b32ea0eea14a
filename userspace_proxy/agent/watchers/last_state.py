"""Saves the state to disk, and serves it after a restart until the source has answered.

    start    file ──▶ snapshot ──▶ sync loop            before the source is opened
    later    source ─▶ sync loop ─▶ applied ──▶ file    the source replaces the saved state

Rule 1: a snapshot of the source always replaces the saved state.
Rule 2: only an applied state is written, so that no later run serves a state that this node
refused.
Rule 3: failing to read or write the file causes one log line, and never stops the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from ...clocks import Clocks
from ...cluster import Snapshot
from ...cluster.encoding import StateOwner, decode_state, encode_state
from ...errors import InputError, UserspaceProxyError
from ...facts import LastStateFacts, StatusFacts
from ...facts.units import format_seconds
from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ...sources import Source
from ...state_file import StateBytes, StateFile, StateFileError, file_of_proxy
from ...steering import proxy_label
from ..rounds.component import Component
from ..rounds.options import Options
from ..rounds.sync import SyncLoop
from ..rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

CONFIRM_S = 60.0
"""The interval in seconds at which an unchanged state is recorded as current."""
# The minimum pause between two writes, in which further changes accumulate.
_PERIOD_S = 5.0
# The maximum average rate of writes: 9 GB a day in a large cluster, which changes all the time.
_BYTES_PER_S = 100_000
_RETRY_S = 30.0
# The maximum time for the last write when the proxy stops: the disk may be slow or hang.
_STOP_S = 2.0
# The longest time that the source waits for the first round, which takes a second with 10,000
# Services. If the kernel refuses the round, the source starts after this time anyway.
_HEAD_START_S = 3.0


class LastState(Component):
    """Saves the state of one proxy, and serves it after a restart until the source has answered.

    Args:
        source: The source of Services, which isn't running yet.
        options: The options, with the folder; without a folder, nothing is read or written.
    """

    def __init__(
        self,
        sync: SyncLoop,
        source: Source,
        options: Options,
        *,
        clock: Callable[[], float] = Clocks.time,
        pause: Callable[[float], Awaitable[None]] = pause,
    ) -> None:
        proxy_name = options.proxy_name or ""
        self._sync = sync
        self._source = source
        self._max_age_s = options.state_max_age_s
        self._owner = StateOwner(source.kind, source.identity, options.node_name, proxy_name)
        self._file = file_of_proxy(options.state_dir, "state.json.gz", proxy_label(proxy_name))
        self._clock = clock
        self._pause = pause
        self._served_at = 0.0
        """Unix time at which the served saved state was current; 0 if none is served."""
        self._kept: Snapshot | None = None
        """The snapshot that the file contains."""
        self._data = b""
        """The content of the file."""
        self._known_at = 0.0
        """Unix time at which the applied state was last known to equal the source's state."""
        self._condition = LoggedCondition[str](
            _log,
            "the state is not saved to disk: %(cause)s",
            "the state is saved to disk again",
        )
        self._failing_since = 0.0
        self._failures = 0

    def view(self) -> LastStateFacts:
        return LastStateFacts(
            path=str(self._file.path) if self._file else "",
            served_at=self._served_at,
            problem=str(self._condition),
            failing_since=self._failing_since,
            failures=self._failures,
        )

    def show(self, facts: StatusFacts) -> None:
        facts.last_state = self.view()

    async def start(self, supervisor: Supervisor) -> None:
        await self.serve()
        supervisor.start("saved state", self.run)

    def publish(self, snapshot: Snapshot) -> None:
        """Publish a snapshot of the source, and stop serving the saved state."""
        if self._served_at:
            self._served_at = 0.0
            _log.info("received current state from the source, no longer serving the saved state")
        # Some objects may be older: one kind's watch may have failed while another was listed, so
        # use the time of the oldest kind.
        self._known_at = self._clock() - self._source.status().behind_s
        self._sync.publish(snapshot)

    async def serve(self) -> None:
        """Publish a usable saved state, wait some seconds until it is served, resume the source."""
        if self._file is None or not await self._publish(self._file):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEAD_START_S):
                await self._sync.progress.caught_up()
        if self._kept is not None:
            self._source.resume(self._kept)

    async def run(self) -> None:
        """Save the applied state after changes, and confirm an unchanged state, until cancelled."""
        if self._file is None:
            return
        try:
            while True:
                await self._save(self._file, await self._next_in_force())
                period_s = max(_PERIOD_S, len(self._data) / _BYTES_PER_S)
                await self._pause(_RETRY_S if self._condition else period_s)
        finally:
            await self._save_at_stop(self._file)

    async def _publish(self, file: StateFile) -> bool:
        """Publish the state in the file if it is usable; return whether it was published."""
        try:
            found = await asyncio.to_thread(self._read, file)
        except UserspaceProxyError as exc:
            _log.warning("saved state ignored: %(cause)s", extra={"cause": str(exc)})
            return False
        if found is None:
            return False
        (self._data, current_at), snapshot = found
        self._kept, self._served_at, self._known_at = snapshot, current_at, current_at
        _log.info(
            "serving the saved state until the source answers",
            extra={
                "age_s": round(self._age_s(current_at), 1),
                "services": len(snapshot.services),
                "location": self._source.location,
            },
        )
        self._sync.publish(snapshot)
        return True

    def _read(self, file: StateFile) -> tuple[StateBytes, Snapshot] | None:
        found = file.read()
        if found is None:
            return None
        age_s = self._age_s(found.current_at)
        if age_s > self._max_age_s:
            raise StateFileError(
                f"cannot use {file.path}: it is {format_seconds(age_s)} old",
                hint="the limit is --state-max-age",
            )
        try:
            return found, decode_state(found.data, self._owner)
        except InputError as exc:
            raise StateFileError(f"cannot use {file.path}: {exc}") from exc

    def _age_s(self, current_at: float) -> float:
        # The age would be negative if the clock was set back.
        return max(0.0, self._clock() - current_at)

    async def _next_in_force(self) -> Snapshot | None:
        """Wait up to CONFIRM_S for an applied snapshot that isn't saved; return it, or None."""
        try:
            async with asyncio.timeout(CONFIRM_S):
                return await self._sync.progress.in_force_after(self._kept)
        except TimeoutError:
            return None

    async def _save(self, file: StateFile, snapshot: Snapshot | None) -> None:
        """Write a snapshot; for None, record that the file is still current if the source is."""
        is_current = self._source.status().is_current
        if snapshot is None and (self._kept is None or not is_current):
            return
        if is_current:
            self._known_at = self._clock()
        try:
            if snapshot is not None:
                # Record when the state was current: the write may be late, as after a full disk.
                self._data = await asyncio.to_thread(self._write, file, snapshot, self._known_at)
                self._kept = snapshot
            else:
                await asyncio.to_thread(file.confirm, self._known_at)
        except UserspaceProxyError as exc:
            self._failures += 1
            self._failing_since = self._failing_since or self._clock()
            self._condition.set(str(exc))
        else:
            self._failing_since = 0.0
            self._condition.clear()

    async def _save_at_stop(self, file: StateFile) -> None:
        newest = self._sync.progress.in_force
        saving = self._save(file, None if newest is self._kept else newest)
        try:
            # Don't use asyncio.timeout, whose error until Python 3.11.3 isn't a TimeoutError in a
            # task that has been cancelled. Source: python/cpython#102780.
            await asyncio.wait_for(saving, _STOP_S)
        except TimeoutError:
            text = "timed out writing the saved state, so %(path)s may be outdated"
            _log.warning(text, extra={"path": str(file.path)})

    def _write(self, file: StateFile, snapshot: Snapshot, current_at: float) -> bytes:
        data = encode_state(snapshot, self._owner)
        if data == self._data:
            file.confirm(current_at)
        else:
            file.write(data, current_at=current_at)
        return data
