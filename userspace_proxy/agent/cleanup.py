"""Removes what this program created in the kernel, and nothing else.

cleanup                             of all proxies, whatever their names, and the routes
cleanup --service-proxy-name NAME   those of the proxy of that name alone
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..config import Settings
from ..errors import SteeringError
from ..steering import (
    IptablesSteering,
    ReplyRouting,
    SteeringFacts,
    local_labels,
    make_steering,
    nftables_labels,
    proxy_label,
    remove_local_routes,
    reply_routing_labels,
)
from .lock import NodeLock, running_proxies

_log = logging.getLogger("userspace_proxy.agent")


def cleanup(settings: Settings) -> int:
    """Remove the rules and routes of every steering; returns the exit status.

    Raises:
        LockHeld: A proxy of which something is to be removed runs on this node; it would put
            everything back. Nothing was removed.
        SteeringError: The kernel refused, or there are tables that can't be looked into.
    """
    return asyncio.run(_cleanup(settings.service_proxy_name))


async def _cleanup(proxy_name: str) -> int:
    can_see_rules = importlib.util.find_spec("iptc") is not None
    tables, guards = set(nftables_labels()), set(local_labels())
    answers = set(reply_routing_labels())
    if proxy_name:
        labels = {proxy_label(proxy_name)}
    else:
        # Routes bear a number that no name can be made of: whoever runs may have some.
        in_use = await _labels_in_use() if can_see_rules else ()
        labels = {"", *tables, *guards, *answers, *in_use, *running_proxies()}
    with _locked(labels):
        for label in sorted(labels & guards if not proxy_name else labels):
            await _clean_up("local", label)
        if not proxy_name:
            remove_local_routes()
        for label in sorted(labels & answers):
            await _clean_up_reply_routing(label)
        if not answers:
            # The table went with its process, and routes are left.
            await _clean_up_reply_routing(proxy_name)
        for label in sorted(labels & tables):
            await _clean_up("nftables", label)
        if can_see_rules:
            for label in sorted(labels):
                await _clean_up("iptables", label)
    if not can_see_rules and _has_legacy_tables():
        raise SteeringError(
            "cannot look for this proxy's rules in the legacy tables: python-iptables is missing",
            hint="pip install .[iptables] in the checkout",
        )
    return 0


async def _labels_in_use() -> list[str]:
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


async def _clean_up(name: str, label: str) -> None:
    steering = make_steering(name, SteeringFacts(proxy_name=label))
    try:
        await steering.clean_up()
    finally:
        await steering.close()
    _log.info("cleaned up", extra={"steering": name, "proxy_name": label})


async def _clean_up_reply_routing(label: str) -> None:
    answers = ReplyRouting(label)
    try:
        await answers.clean_up()
    finally:
        await answers.close()


def _has_legacy_tables() -> bool:
    """Tell whether legacy tables are in use here, or can't be asked."""
    try:
        return bool(Path("/proc/net/ip_tables_names").read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return False
    except OSError:
        return True
