"""Removes what this program made in the kernel, and nothing else."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from pathlib import Path

from ..config import Settings
from ..errors import SteeringError
from ..steering import SteeringFacts, make_steering
from .lock import NodeLock

_log = logging.getLogger("userspace_proxy.agent")


def cleanup(_settings: Settings) -> int:
    """Remove the rules and routes of every steering; returns the exit status.

    Raises:
        LockHeld: A proxy runs on this node; it would put everything back.
        SteeringError: The kernel refused, or there are tables that can't be looked into.
    """
    lock = NodeLock()
    lock.take()
    try:
        return asyncio.run(_cleanup())
    finally:
        lock.release()


async def _cleanup() -> int:
    names = ["local"]
    can_see_rules = importlib.util.find_spec("iptc") is not None
    if can_see_rules:
        names.append("iptables")
    for name in names:
        steering = make_steering(name, SteeringFacts(), own_namespace=True)
        try:
            await steering.clean_up()
        finally:
            await steering.close()
        _log.info("cleaned up", extra={"steering": name})
    if not can_see_rules and _has_legacy_tables():
        raise SteeringError(
            "cannot look for our rules in this node's legacy tables: python-iptables is missing",
            hint='pip install "userspace-proxy[iptables]"',
        )
    return 0


def _has_legacy_tables() -> bool:
    """Tell whether legacy tables are in use here, or can't be asked."""
    try:
        return bool(Path("/proc/net/ip_tables_names").read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return False
    except OSError:
        return True
