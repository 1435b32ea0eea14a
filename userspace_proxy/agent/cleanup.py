"""Removes this program's state from the kernel, and nothing else.

cleanup                             rules, routes and programs of all proxies, whatever their names
cleanup --service-proxy-name NAME   only the state of the proxy with that name
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator

from ..config import Settings
from ..errors import SteeringError
from ..log_fields import FieldLogger
from ..state_file import state_dir_of
from ..steering import (
    GUARD_TABLES,
    REPLY_TABLES,
    IptablesSteering,
    ReplyRouting,
    Steering,
    SteeringFacts,
    make_steering,
    nftables_labels_here,
    proxy_label,
    remove_local_routes,
)
from ..steering.iptables.legacy import tables_in_use
from ..steering.local import is_present
from ..steering.selection import has_python_iptables
from .lock import NodeLock, running_proxies
from .node_setup import end_programs, program_labels, tracking_timeouts

_log = FieldLogger("userspace_proxy.agent")


def cleanup(settings: Settings) -> int:
    """Remove the kernel state and workers of proxies, and log each part; return exit status 0.

    Raises:
        LockHeld: A proxy whose state would be removed is running, and would restore it.
            Nothing was removed.
        SteeringError: The kernel refused a change, or some tables can't be read.
    """
    return asyncio.run(_cleanup(settings.service_proxy_name, state_dir_of(settings.state_dir)))


async def _cleanup(proxy_name: str, state_dir: str) -> int:
    can_see_rules = has_python_iptables()
    tables, chains = (
        set(nftables_labels_here()),
        set(await _labels_of_chains() if can_see_rules else ()),
    )
    replies = set(REPLY_TABLES.labels_here())
    if proxy_name:
        labels = {proxy_label(proxy_name)}
    else:
        # Include running proxies, so that locking fails: routes don't show which proxy added them.
        labels = {"", *tables, *chains, *replies, *GUARD_TABLES.labels_here(), *running_proxies()}
        labels |= program_labels()
    removed = _Removed()
    with _locked(labels):
        async for fields in end_programs(labels, with_abandoned=not proxy_name):
            removed.note(True, **fields)
        for label in sorted(filter(is_present, labels)):
            await _clean_up_steering("local", label, removed)
        if not proxy_name:
            removed.note(remove_local_routes(), part="routes")
        removed.note(_put_back_timeouts(state_dir, labels), part="changed conntrack timeout")
        # Look for routes even without a table: the kernel removes a table when its owner exits.
        for label in sorted(labels & replies) if replies else [proxy_name]:
            with_replies = await _clean_up(ReplyRouting(label))
            removed.note(with_replies, part="reply routing", proxy_name=label)
        for label in sorted(labels & tables):
            await _clean_up_steering("nftables", label, removed)
        for label in sorted(labels & chains):
            await _clean_up_steering("iptables", label, removed)
    if not can_see_rules and _has_legacy_tables():
        raise SteeringError(
            "cannot look for this proxy's rules in the legacy tables: python-iptables is missing",
            hint="pip install .[iptables] in the checkout",
        )
    if not removed.count:
        _log.info("nothing to clean up", extra={"proxy_name": proxy_name})
    return 0


class _Removed:
    """Counts removed parts, and logs one line for each."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, was_there: object, part: str, **fields: str) -> None:
        """Count and log a part, if it existed."""
        if was_there:
            self.count += 1
            fields = {name: text for name, text in fields.items() if text}
            _log.info("cleaned up leftover %(part)s", extra={"part": part, **fields})


async def _labels_of_chains() -> list[str]:
    steering = IptablesSteering(SteeringFacts())
    try:
        return await steering.labels()
    finally:
        await steering.close()


@contextlib.contextmanager
def _locked(labels: Iterable[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for label in sorted(labels):
            lock = NodeLock(label, is_cleanup=True)
            lock.take()
            stack.callback(lock.release)
        yield


async def _clean_up_steering(name: str, label: str, removed: _Removed) -> None:
    await _clean_up(make_steering(name, SteeringFacts(proxy_name=label)))
    removed.note(True, f"{name} steering", proxy_name=label)


async def _clean_up(part: Steering | ReplyRouting) -> bool | None:
    try:
        return await part.clean_up()
    finally:
        await part.close()


def _put_back_timeouts(state_dir: str, labels: Collection[str]) -> bool:
    """Restore a conntrack timeout left raised by a killed process; return whether it was restored.

    That process recorded the previous value in its state file.
    """
    timeouts = tracking_timeouts(0.0, state_dir, labels)
    timeouts.hold()
    return timeouts.put_back()


def _has_legacy_tables() -> bool:
    """Return whether legacy tables are in use here, or can't be read."""
    with contextlib.suppress(OSError):
        return any(map(tables_in_use, (4, 6)))
    return True
