"""Removes what this program made in the kernel, and nothing else."""

from __future__ import annotations

import asyncio
import importlib.util
import logging

from ..config import Settings
from ..steering import SteeringFacts, make_steering
from .lock import NodeLock

_log = logging.getLogger("userspace_proxy.agent")


def cleanup(_settings: Settings) -> int:
    """Remove the rules and routes of every steering; returns the exit status.

    Raises:
        LockHeld: A proxy runs on this node; it would put everything back.
        SteeringError: The kernel refused.
    """
    lock = NodeLock()
    lock.take()
    try:
        return asyncio.run(_cleanup())
    finally:
        lock.release()


async def _cleanup() -> int:
    names = ["local"]
    if importlib.util.find_spec("iptc") is None:
        _log.warning("rules of iptables are not looked for: python-iptables is not installed")
    else:
        names.append("iptables")
    for name in names:
        steering = make_steering(name, SteeringFacts(), own_namespace=True)
        try:
            await steering.clean_up()
        finally:
            await steering.close()
        _log.info("cleaned up", extra={"steering": name})
    return 0
