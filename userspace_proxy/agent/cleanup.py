"""Removes what this program created in the kernel, and nothing else.

cleanup                             of all proxies, whatever their names, and all routes
cleanup --service-proxy-name NAME   only of the proxy with that name
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator

from ..config import Settings
from ..errors import SteeringError
from ..plane.rendezvous import worker_labels
from ..state_file import state_dir_of
from ..steering import (
    GUARD_TABLES,
    REPLY_TABLES,
    STEERING_TABLES,
    IptablesSteering,
    ReplyRouting,
    Steering,
    SteeringFacts,
    make_steering,
    proxy_label,
    remove_local_routes,
)
from ..steering.iptables.legacy import tables_in_use
from ..steering.local import is_present
from ..steering.selection import has_python_iptables
from .hand_over import end_workers
from .lock import NodeLock, running_proxies
from .node_setup import tracking_timeouts

_log = logging.getLogger("userspace_proxy.agent")


def cleanup(settings: Settings) -> int:
    """Remove the rules and routes of every steering; returns the exit status.

    Raises:
        LockHeld: A proxy whose state would be removed runs on this node and would restore it.
            Nothing was removed.
        SteeringError: The kernel refused, or there are tables that can't be read.
    """
    return asyncio.run(_cleanup(settings.service_proxy_name, state_dir_of(settings.state_dir)))


async def _cleanup(proxy_name: str, state_dir: str) -> int:
    can_see_rules = has_python_iptables()
    tables, chains = (
        set(STEERING_TABLES.labels_here()),
        set(await _labels_of_chains() if can_see_rules else ()),
    )
    replies = set(REPLY_TABLES.labels_here())
    if proxy_name:
        labels = {proxy_label(proxy_name)}
    else:
        # No name follows from the number of a route, so any running proxy may have some.
        labels = {"", *tables, *chains, *replies, *GUARD_TABLES.labels_here(), *running_proxies()}
        labels |= worker_labels()
    with _locked(labels):
        for label in sorted(labels):
            await end_workers(label)
        for label in sorted(filter(is_present, labels)):
            await _clean_up_steering("local", label)
        if not proxy_name:
            remove_local_routes()
        _put_back_timeouts(state_dir, labels)
        # Without a table routes may remain: the kernel removes a table with its process.
        for label in sorted(labels & replies) if replies else [proxy_name]:
            await _clean_up(ReplyRouting(label))
        for label in sorted(labels & tables):
            await _clean_up_steering("nftables", label)
        for label in sorted(labels & chains):
            await _clean_up_steering("iptables", label)
    if not can_see_rules and _has_legacy_tables():
        raise SteeringError(
            "cannot look for this proxy's rules in the legacy tables: python-iptables is missing",
            hint="pip install .[iptables] in the checkout",
        )
    return 0


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


async def _clean_up_steering(name: str, label: str) -> None:
    await _clean_up(make_steering(name, SteeringFacts(proxy_name=label)))
    _log.info("cleaned up", extra={"steering": name, "proxy_name": label})


async def _clean_up(part: Steering | ReplyRouting) -> None:
    try:
        await part.clean_up()
    finally:
        await part.close()


def _put_back_timeouts(state_dir: str, labels: Collection[str]) -> None:
    """Restore the timeout that a process has raised, and noted, and not restored."""
    timeouts = tracking_timeouts(0.0, state_dir, labels)
    timeouts.hold()
    timeouts.put_back()


def _has_legacy_tables() -> bool:
    """Return whether legacy tables are in use here, or can't be read."""
    with contextlib.suppress(OSError):
        return bool(tables_in_use(4))
    return True
