"""The file that keeps allocations across restarts.

    {"version": 1, "clusterIPs": {"IPv4": {"shop/web": "10.96.67.208"}, "IPv6": {}},
     "nodePorts": {"shop/web:80": 31407, "shop/web:health": 30512},
     "contestedNodePorts": {"30080/TCP": "shop/web"}}

Rule 1: it is replaced as a whole (written beside, synced, renamed): never half of it is read.
Rule 2: what can't be read costs one warning; allocation starts afresh, and hashes give most
names the same again.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_log = logging.getLogger("userspace_proxy.sources")

VERSION = 1
FILE_BYTES_MAX = 64 << 20
"""As for a manifest: 64 bytes a name, so a million of them."""


@dataclass(frozen=True, slots=True)
class Given:
    """Who has what."""

    cluster_ips: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By family, as ``IPv4``; then by ``namespace/name``."""
    node_ports: Mapping[str, int] = field(default_factory=dict)
    """By ``namespace/name:port``."""
    contested: Mapping[str, str] = field(default_factory=dict)
    """Which Service has a node port that several name: by ``30080/TCP``."""


class AllocationFile:
    """Reads and writes one file; one thread at a time.

    Args:
        path: Where; missing folders are made when there is something to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: str | None = None

    def load(self) -> Given:
        """Return what was saved last; nothing, with a warning, where that can't be read."""
        try:
            with self._path.open(encoding="utf-8") as file:
                text = file.read(FILE_BYTES_MAX + 1)
            given = _parse(text)
        except FileNotFoundError:
            return Given()
        except (OSError, ValueError, RecursionError) as exc:
            problem = exc.strerror if isinstance(exc, OSError) else str(exc)
            _log.warning(
                "cannot read allocations, starting without them",
                extra={"path": str(self._path), "problem": problem},
            )
            return Given()
        self._written = text
        return given

    def save(self, given: Given) -> str:
        """Write down what is given, unless it stands there already.

        Returns:
            What went wrong, as one line; empty when nothing did.
        """
        content: dict[str, Any] = {
            "version": VERSION,
            "clusterIPs": {family: dict(ips) for family, ips in given.cluster_ips.items()},
            "nodePorts": dict(given.node_ports),
        }
        if given.contested:
            content["contestedNodePorts"] = dict(given.contested)
        text = json.dumps(content, indent=1) + "\n"
        if text == self._written:
            return ""
        try:
            _replace(self._path, text)
        except OSError as exc:
            return f"{self._path}: cannot save allocations: {exc.strerror or exc}"
        self._written = text
        return ""


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(beside).unlink()
        raise


def _parse(text: str) -> Given:
    """Return what a text says.

    Raises:
        ValueError: It isn't what this program writes.
    """
    if len(text) > FILE_BYTES_MAX:
        raise ValueError(f"it is larger than {FILE_BYTES_MAX >> 20} MiB")
    content: Any = json.loads(text)
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ValueError(f"its version is not {VERSION}")
    families = content.get("clusterIPs", {})
    node_ports = content.get("nodePorts", {})
    contested = content.get("contestedNodePorts", {})
    if not (
        isinstance(families, dict)
        and all(_is_table(table, str) for table in families.values())
        and _is_table(node_ports, int)
        and _is_table(contested, str)
    ):
        raise ValueError("clusterIPs or nodePorts are malformed")
    return Given(families, node_ports, contested)


def _is_table(value: object, type_: type) -> bool:
    return isinstance(value, dict) and all(type(item) is type_ for item in value.values())
