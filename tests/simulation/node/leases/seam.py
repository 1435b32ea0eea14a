"""The seam: names that modules of the product refer to, replaced by those of simulated nodes."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from userspace_proxy import state_file
from userspace_proxy.scaling import holder_lease
from userspace_proxy.sources.kubernetes import source

from ...seam import logging_to
from ..disk import Disk
from ..seam import clocks

if TYPE_CHECKING:
    from .world import World


class _Bugs(logging.Handler):
    """Takes what the product calls a bug of its own."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Part of logging.Handler."""
        current = self._world.machine.current
        if current is None or current.is_dead:
            # Its tasks are closed, which is no end that it can have.
            return
        exc = record.exc_info[1] if record.exc_info else None
        self._world.machine.violate(f"{record.getMessage()}: {exc!r}")


class _Disks:
    """Parts of os: those of the disk of the node whose process runs."""

    def __init__(self, world: World) -> None:
        self._world = world

    def names(self) -> dict[str, Any]:
        """Return the names of the module that reads and writes files, with what replaces them."""
        of_one = self._world.nodes[0].disk.names()
        calls = ("open", "close", "fstat", "fsync", "utime", "unlink", "rename")
        found = {name: self._of_current(name) for name in calls}
        return {
            **of_one,
            "os": SimpleNamespace(**{**vars(os), **found, "geteuid": lambda: 0}),
            "open": self._of_current("_open_file"),
        }

    def _of_current(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(self._disk(), name)(*args, **kwargs)

        return call

    def _disk(self) -> Disk:
        return self._world.disk


@contextlib.contextmanager
def installed(world: World) -> Iterator[None]:
    """Have the product call simulated nodes while this lasts."""
    rng = world.rng
    names: list[tuple[Any, str, Any]] = [
        (source, "ApiClient", lambda _credentials, clock: world.make_client()),
        (
            holder_lease,
            "random",
            SimpleNamespace(Random=lambda: random.Random(rng.random()), random=rng.random),
        ),
        (
            holder_lease,
            "uuid",
            SimpleNamespace(uuid4=lambda: uuid.UUID(int=rng.getrandbits(128), version=4)),
        ),
    ]
    names += [(state_file, name, value) for name, value in _Disks(world).names().items()]
    missing = object()
    with (
        clocks(world.timeline.clock, world.unix_now),
        logging_to(_Bugs(world), "userspace_proxy", logging.ERROR),
    ):
        before = [(module, name, vars(module).get(name, missing)) for module, name, _ in names]
        for module, name, value in names:
            setattr(module, name, value)
        try:
            yield
        finally:
            for module, name, value in before:
                if value is missing:
                    delattr(module, name)
                else:
                    setattr(module, name, value)
