"""Processes of agents that run in pods, seen from the nodes of a cluster."""

from __future__ import annotations

from pathlib import Path

from .node import ClusterNode


def find_agent(node: ClusterNode, program: str) -> int | None:
    """Return the first process of our container on a node; None: it has none.

    Args:
        program: The path of the container's entrypoint.
    """
    network = Path(f"/proc/{node.holder.pid}/ns/net").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            is_ours = words[0].endswith(b"python") and program.encode() in words
            is_first = process_status(int(entry.name))["NSpid"].split()[-1] == "1"
            if is_ours and is_first and (entry / "ns/net").readlink() == network:
                return int(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def process_status(pid: int) -> dict[str, str]:
    """Return the lines of a process's ``/proc/PID/status`` by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
