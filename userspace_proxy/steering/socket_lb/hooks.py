"""The BPF programs and maps that translate connect() of this node's programs for one proxy.

    change ─▶ desired state ─▶ counters, slots ─▶ frontends ─▶ unused elements are deleted
    ring ─▶ events      counters, ejections ◀── programs
    a failed dial ─▶ ejected for its network namespace ─a probe fails, too─▶ eject: for all

Rule 1: failures are recorded, and the next repair compares the maps and writes missing elements, so
callers needn't handle failures.
Rule 2: programs stop translating if their term isn't renewed, so after a crash, rules steer all
clients.
Rule 3: if an endpoint has just died, a client's dial fails: a hook can't try another endpoint.
Further clients in its network namespace are sent to other endpoints for 5 s. If dials fail after
that, the time is doubled, up to 60 s. All clients are sent to other endpoints once a probe of the
control process has also failed (``HookedConnections``).
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ...balance.ejection import lasts_s
from ...clocks import Clocks
from ...errors import SteeringError
from ...facts.node import SocketLbFacts
from ...kernel.bpf import calls
from ...kernel.bpf.ring import Ring
from ...kernel.offers import LACKS_NOTHING, KernelOffers
from ...kernel.trials import SO_NETNS_COOKIE
from ...log_fields import FieldLogger
from ...log_limit import SERVICE_LINES, LogLimit
from ...model import Frontend, PortKey, SocketAddress
from ...pacing import Pacing
from ..base import Target
from .desired import (
    COUNTERS,
    FRONTENDS,
    LED,
    NO_COUNTS,
    SLOTS,
    At,
    DesiredHooks,
    Edits,
    FoundService,
    Room,
)
from .hook_rights import read_rights
from .other_hooks import OtherHook, attached_at, judge_hooks, read_hooks
from .programs import TERM_NS, Programs, find_bpffs, find_cgroup, remove_hooks
from .socket_maps import (
    SETTINGS_KEY,
    DialCounts,
    DialSettings,
    Ejection,
    EjectionScope,
    EventKind,
    FrontendValue,
    RingEvent,
    SlotValue,
    frontend_of,
    number_key,
    number_of,
)

_log = FieldLogger("userspace_proxy.steering")

# The share of a thread's time that comparisons may take. Comparing all elements takes 40 ms with
# 10,000 Services.
_SHARE = 0.025
# The maximum number of removed endpoints that are kept while connections to them are open, and the
# number that is checked per second (one after another, 5 µs each).
_LEFT_MAX, _LEFT_EACH = 16_384, 1_024


class HookOptions(NamedTuple):
    """The options for translating connect() of this node's programs."""

    is_required: bool = False
    """Whether startup fails if hooks can't work; otherwise rules steer all clients."""
    cgroup: str = ""
    """The cgroup v2 directory whose programs are covered; empty for the root, which covers all."""
    host_only: bool = False
    """Whether only programs in this network namespace are covered."""


class SocketEvent(NamedTuple):
    """A ring event, and the Service port and endpoint that it is about."""

    name: PortKey
    endpoint: SocketAddress
    seen: RingEvent


class Hooks:
    """One proxy's programs and maps.

    Methods before ``counts`` must be called in one thread; ``counts`` and the methods after it may
    be called in any thread. ``counts`` and ``ejected`` raise an OSError if the maps can't be read.

    Args:
        names: The mount of bpffs; None to search for it.
    """

    def __init__(
        self,
        options: HookOptions,
        proxy_name: str,
        kernel: KernelOffers = LACKS_NOTHING,
        names: Path | None = None,
    ) -> None:
        self._options = options
        self._names = names or find_bpffs()
        self._proxy_name = proxy_name
        self._kernel = kernel
        self._programs: Programs | None = None
        self._ring: Ring | None = None
        self._desired = DesiredHooks(Room(0, 0, 0))
        self._settings = DialSettings()
        self._settings_lock = threading.Lock()
        self._is_attached = False
        self._is_begun = False
        """Whether the first state was accepted."""
        self._first: dict[Frontend, Target] | None = None
        """The first state while an earlier process's elements can't be read; otherwise None."""
        self._is_unsure = False
        """Whether the maps may differ from the desired state."""
        self._comparing = Pacing(_SHARE)
        self._lacks_counters = False
        self._problem = ""
        self._problem_lines = LogLimit()
        self._repairs = 0
        self._attached: Sequence[tuple[str, int, bool]] = ()
        """Programs that were attached at the last check, including other proxies' programs."""
        self._others: Sequence[OtherHook] = ()
        self._other_lines = LogLimit(SERVICE_LINES)
        self.inherited: Mapping[At, DialCounts] = {}
        """The counts of an earlier process; set once the first state is accepted."""

    def start(self) -> None:
        """Load and attach programs; replace an earlier run's programs, and take over its maps.

        Raises:
            SteeringError: The programs can't be loaded or attached here. If loading began, this
                proxy's programs, even an earlier run's, have been removed as far as possible.
        """
        cgroup, names, others = find_place(self._options, self._kernel, self._names)
        self._note_others(others)
        programs = Programs(cgroup, names, self._proxy_name)
        try:
            programs.load()
            self._begin(programs)
            self._ring = Ring(programs.maps["events"], programs.specs["events"].entries)
            programs.attach()
        except OSError as exc:
            self.close()
            programs.close()
            with suppress(SteeringError):
                remove_hooks(self._proxy_name, self._names)
            raise SteeringError(f"cannot translate connect() in {cgroup}: {_words(exc)}") from exc
        self._is_attached = True

    def replace(self, wanted: Mapping[Frontend, Target]) -> None:
        """Translate exactly these frontends, as far as they can be offloaded."""
        with self._noting_problems():
            if self._is_begun:
                self._write(self._desired.replace(wanted))
            else:
                self._lead_first(dict(wanted))

    def leave_all_but(self, wanted: Mapping[Frontend, Target]) -> None:
        """Stop translating frontends that aren't wanted, or can't be offloaded now."""
        self.leave({**dict.fromkeys(self._desired.hooked()), **wanted})

    def leave(self, affected: Mapping[Frontend, Target | None]) -> None:
        """Stop translating frontends whose new targets must not be offloaded."""
        if leaving := self._desired.leaving(affected):
            self.change(leaving)

    def change(self, affected: Mapping[Frontend, Target | None]) -> None:
        """Set new targets for some frontends; None for a frontend that is no longer steered."""
        with self._noting_problems():
            if self._first is None:
                self._write(self._desired.change(affected))
            else:
                wanted = {**self._first, **affected}
                self._lead_first({f: target for f, target in wanted.items() if target is not None})

    def repair(self) -> None:
        """Repair changes by other programs, retry failed writes, and renew the term."""
        if self._programs is None or not self._is_attached:
            return
        with self._noting_problems():
            if restored := self._programs.repair():
                self._note_repair(restored)
            if self._first is not None:
                self._lead_first(self._first)
            elif self._is_unsure:
                self._put_right()
            elif self._has_drifted() and (changed := self._put_right()):
                self._note_repair([f"{changed} elements"])
            self._forget_left()
            self._look_for_others()
            self._write_settings(valid_until_ns=time.monotonic_ns() + TERM_NS)

    def remove(self) -> None:
        """Detach and remove everything; idempotent; may be called without ``start``.

        Counts can be read until :meth:`close`.

        Raises:
            SteeringError: The hooks can't be removed.
        """
        self._is_attached = False
        remove_hooks(self._proxy_name, self._names)

    def close(self) -> None:
        """Close descriptors; attached programs continue for the rest of their term. Idempotent."""
        programs, self._programs = self._programs, None
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()
        if programs is not None:
            programs.close()

    def counts(self) -> Mapping[At, DialCounts]:
        """Return the results of dials, by Service port and endpoint.

        Removed endpoints are included until the last connection to them ends. Until then the counts
        never decrease; they continue an earlier process's counts.
        """
        found = self._counts_in(self._elements(COUNTERS))
        # New endpoints also cause a difference; the next comparison handles both cases.
        self._lacks_counters = len(found) < len(self._desired.at)
        return found

    def _counts_in(self, elements: Iterable[tuple[bytes, bytes]]) -> Mapping[At, DialCounts]:
        none, found = DialCounts(), {}
        for key, value in elements:
            if at := self._desired.at.get(number_of(key)):
                found[at] = none if value == NO_COUNTS else DialCounts.unpack(value)
        return found

    @property
    def event_descriptor(self) -> int:
        """The descriptor that is readable while events are pending."""
        return self._running().maps["events"]

    def take_events(self) -> list[SocketEvent]:
        """Return new events of known endpoints, oldest first; for one thread only."""
        records = [] if self._ring is None else map(RingEvent.unpack, self._ring.take())
        known = self._desired.at
        return [SocketEvent(*at, one) for one in records if (at := known.get(one.endpoint))]

    def ejected(self) -> Mapping[At, float]:
        """Return the endpoints that are ejected in all network namespaces.

        An endpoint's value is the number of seconds until a dial serves as a probe; 0 if the next
        dial does, or if a probe is in progress.
        """
        now, found = time.monotonic_ns(), {}
        for key, value in self._elements("ejected"):
            number, netns = EjectionScope.unpack(key)
            if not netns and (at := self._desired.at.get(number)):
                known = Ejection.unpack(value)
                is_pending = known.kind is EventKind.PROBED
                found[at] = 0.0 if is_pending else max(0, known.until_ns - now) / 1e9
        return found

    def eject(self, name: PortKey, endpoint: SocketAddress, kind: EventKind) -> float | None:
        """Eject an endpoint for all clients; for longer if it was ejected and a probe has failed.

        Args:
            kind: ``REFUSED`` or ``UNANSWERED``.

        Returns: The monotonic time in seconds of the next probe; None if nothing has changed.
        """
        number = self._desired.number_of((name, endpoint))
        if number is None or self._programs is None:
            return None
        table, spec = self._programs.maps["ejected"], self._programs.specs["ejected"]
        key, now = EjectionScope(number).pack(), time.monotonic_ns()
        with suppress(OSError):
            value = calls.lookup(table, key, spec.value_bytes)
            known = Ejection.unpack(value) if value else None
            if known and known.kind is not EventKind.PROBED and now < known.until_ns:
                return None
            times = known.times + 1 if known else 1
            until = now + int(lasts_s(times) * 1e9)
            calls.update(table, key, Ejection(until, times, kind).pack())
            return until / 1e9
        return None

    def readmit(self, name: PortKey, endpoint: SocketAddress) -> None:
        """Try to end an endpoint's ejection for all clients, if there is one."""
        number = self._desired.number_of((name, endpoint))
        if number is not None and self._programs is not None:
            with suppress(OSError):
                calls.delete(self._programs.maps["ejected"], EjectionScope(number).pack())

    def observe(self, is_on: bool) -> None:
        """Try to start or stop reporting each closed connection as an event."""
        if self._programs is not None:
            with suppress(OSError):
                self._write_settings(observing=int(is_on))

    def not_offloaded(self, frontend: Frontend) -> str:
        """Return why a frontend isn't translated; empty if it is."""
        return self._desired.not_offloaded(frontend)

    @property
    def state(self) -> SocketLbFacts:
        """The state of the hooks, without the maps' memory."""
        return self._facts()

    def shown(self) -> SocketLbFacts:
        """Return :attr:`state` with the maps' memory, which takes some system calls."""
        with suppress(OSError):
            return self._facts(self._programs.map_bytes() if self._programs is not None else 0)
        return self._facts()

    def _facts(self, map_bytes: int = 0) -> SocketLbFacts:
        if (programs := self._programs) is None:
            return SocketLbFacts(is_attached=False, problem=self._problem)
        where, frontends = str(programs.cgroup), self._desired.frontends
        return SocketLbFacts(
            self._is_attached, self._problem, where, frontends, self._repairs, map_bytes
        )

    def _running(self) -> Programs:
        if self._programs is None:
            raise RuntimeError("hooks of connect() are used before their start, or after their end")
        return self._programs

    def _begin(self, programs: Programs) -> None:
        """Begin without desired elements, and write the programs' settings; attach nothing yet."""
        settings = programs.maps["settings"], programs.specs["settings"]
        value = calls.lookup(settings[0], SETTINGS_KEY, settings[1].value_bytes)
        next_number = max(1, DialSettings.unpack(value).next_number) if value else 1
        host_only = int(self._options.host_only)
        self._settings = DialSettings(host_only, _own_netns(), 0, next_number)
        self._desired = DesiredHooks(Room.of(programs.specs))
        self._programs = programs
        self._write_settings(valid_until_ns=time.monotonic_ns() + TERM_NS)

    def _write_settings(self, **changed: int) -> None:
        with self._settings_lock:
            programs = self._running()
            self._settings = self._settings._replace(**changed)
            calls.update(programs.maps["settings"], SETTINGS_KEY, self._settings.pack())

    def _read_found(self) -> tuple[dict[SocketAddress, FoundService], list[int]]:
        """Return an earlier run's entries, by frontend, and the numbers of services with slots."""
        slots: dict[int, dict[int, SlotValue]] = {}
        for key, value in self._elements(SLOTS):
            service, index = divmod(number_of(key), 1 << 32)
            slots.setdefault(service, {})[index] = SlotValue.unpack(value)
        found = {}
        for name in FRONTENDS:
            for key, value in self._elements(name):
                to = FrontendValue.unpack(value)
                of_service = slots.get(to.number, {})
                if all(index in of_service for index in range(to.slots)):
                    found[frontend_of(key)] = FoundService(
                        to, tuple(of_service[index] for index in range(to.slots))
                    )
        return found, list(slots)

    def _lead_first(self, wanted: dict[Frontend, Target]) -> None:
        """Accept the first state, and write it over the elements of an earlier process.

        Counters stay, and no frontend is interrupted. If elements can't be read, they stay
        unchanged, at most for the rest of their term.
        """
        self._first, self._is_unsure = wanted, True
        found, counters = self._read_found(), self._elements(COUNTERS)
        self._desired.adopt(*found, self._settings.next_number)
        self._desired.replace(wanted)
        self.inherited = self._counts_in(counters)
        self._first, self._is_begun = None, True
        self._put_right()

    def _write(self, edits: Edits) -> None:
        """Write a difference; if the maps' state is unknown, the next repair writes it instead.

        If a frontend's new target can't be written, the frontend isn't offloaded until the repair;
        removing its entries needs no memory.
        """
        if self._is_unsure:
            self._leave(edits)
            return
        self._is_unsure = True
        try:
            self._put(edits.put)
        except OSError:
            self._leave(edits)
            raise
        self._remove(edits.removed)
        self._delete("ejected", edits.readmitted)
        self._is_unsure = False

    def _leave(self, edits: Edits) -> None:
        for name in FRONTENDS:
            self._delete(name, (*edits.put.get(name, ()), *edits.removed.get(name, ())))

    def _has_drifted(self) -> bool:
        """Compare elements if that is due; return whether they differ, or counters are missing."""
        began = Clocks.monotonic()
        if not self._is_begun or began < self._comparing.due:
            return False
        wanted = self._desired.elements
        is_as_wanted = all(dict(self._elements(name)) == wanted[name] for name in LED)
        self._comparing.note(began, Clocks.monotonic())
        return not is_as_wanted or self._lacks_counters

    def _put_right(self) -> int:
        """Repair the maps; return the number of differing elements."""
        self._is_unsure = True
        wanted = {**self._desired.elements, COUNTERS: self._desired.counters()}
        put: dict[str, dict[bytes, bytes]] = {}
        removed: dict[str, list[bytes]] = {}
        for name, elements in wanted.items():
            have = dict(self._elements(name))
            if name == COUNTERS:
                # Compare only keys, because programs write the values.
                have = dict.fromkeys(have, NO_COUNTS)
            if have != elements:
                put[name] = {k: v for k, v in elements.items() if have.get(k) != v}
                removed[name] = [key for key in have if key not in elements]
        self._put(put)
        self._remove(removed)
        self._is_unsure = self._lacks_counters = False
        return sum(map(len, (*put.values(), *removed.values())))

    def _put(self, put: Mapping[str, Mapping[bytes, bytes]]) -> None:
        if self._desired.next_number != self._settings.next_number:
            self._write_settings(next_number=self._desired.next_number)
        for name in (COUNTERS, *LED):
            if elements := put.get(name):
                table = self._running().maps[name]
                keys, values = b"".join(elements), b"".join(elements.values())
                calls.update_batch(table, keys, values, len(elements))

    def _remove(self, removed: Mapping[str, Iterable[bytes]]) -> None:
        for name in (*FRONTENDS, SLOTS, COUNTERS):
            self._delete(name, removed.get(name, ()))

    def _delete(self, name: str, keys: Iterable[bytes]) -> None:
        calls.delete_batch(self._running().maps[name], list(keys))

    def _elements(self, name: str) -> list[tuple[bytes, bytes]]:
        programs = self._running()
        return calls.elements(programs.maps[name], programs.specs[name])

    def _forget_left(self) -> None:
        """Remove counters of removed endpoints without open connections, or beyond the maximum."""
        desired = self._desired
        too_many = max(0, desired.without_service - _LEFT_MAX)
        looked = desired.next_without_service(too_many + _LEFT_EACH)
        ended = looked[:too_many]
        ended += [number for number in looked[too_many:] if not self._is_connected(number)]
        if ended:
            self._write(desired.forget(ended))

    def _is_connected(self, number: int) -> bool:
        key = number_key(number)
        value = calls.lookup(self._running().maps[COUNTERS], key, len(NO_COUNTS))
        counts = DialCounts.unpack(value) if value else DialCounts()
        return counts.established > counts.ended

    def _look_for_others(self) -> None:
        """Log programs that were attached since the last check."""
        programs, names = self._running(), self._names
        attached = attached_at(programs.cgroup)
        if names is not None and attached != self._attached:
            self._attached = attached
            self._note_others(judge_hooks(read_hooks(programs.cgroup, names), programs.ids()))

    def _note_others(self, others: Sequence[OtherHook]) -> None:
        """Log programs that are new in the list, at a limited rate."""
        for other in others:
            if other not in self._others and self._other_lines.take(Clocks.monotonic()):
                fields = {"what": other.what, "where": other.where}
                text = "BPF program may interfere with socket load balancing: %(what)s (%(where)s)"
                _log.warning(text, extra=fields)
        self._others = others

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            self._problem = _words(exc)
            if self._problem_lines.take(Clocks.monotonic()):
                _log.warning(
                    "cannot update connect() hooks, retrying: %(cause)s",
                    extra={"cause": self._problem},
                )
        else:
            if not self._is_unsure:
                self._problem = ""

    def _note_repair(self, restored: Iterable[str]) -> None:
        self._repairs += 1
        _log.warning(
            "restored parts of connect() hooks that another program changed: %(what)s",
            extra={"what": ", ".join(restored)},
        )


class HookPlace(NamedTuple):
    """The cgroup and the mount where hooks can be attached and pinned, and other programs there."""

    cgroup: Path
    names: Path
    """The mount of bpffs."""
    others: Sequence[OtherHook]
    """Other programs that may interfere, none of which prevents the hooks."""


def find_place(options: HookOptions, kernel: KernelOffers, names: Path | None = None) -> HookPlace:
    """Return where hooks can be attached, without changing anything.

    Args:
        names: The mount of bpffs; None to search for it.

    Raises:
        SteeringError: Hooks can't work here, or another program translates Services.
    """
    cgroup, names = find_cgroup(options.cgroup), names or find_bpffs()
    lack = read_rights(kernel, cgroup, names).lack()
    if lack or cgroup is None or names is None:
        what, hint = lack or ("", "")
        raise SteeringError(f"cannot translate connect(): {what}", hint=hint)
    try:
        others = judge_hooks(read_hooks(cgroup, names))
    except OSError as exc:
        no_cgroup = "it is no folder of cgroup v2" if exc.errno == errno.EBADF else _words(exc)
        what = f"cannot translate connect() in {cgroup}: {no_cgroup}"
        raise SteeringError(what, hint="name one by --socket-lb-cgroup") from exc
    for other in others:
        if other.replaces:
            what = f"cannot translate connect(): {other.what} ({other.where})"
            raise SteeringError(what, hint=other.hint)
    return HookPlace(cgroup, names, others)


def _own_netns() -> int:
    """Return the cookie of this network namespace; 0 before Linux 5.14."""
    with socket.socket() as sock, suppress(OSError):
        cookie = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        return int.from_bytes(cookie, "little")
    return 0


def _words(exc: OSError) -> str:
    return exc.strerror or str(exc)
