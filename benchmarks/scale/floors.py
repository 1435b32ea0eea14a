"""Lower bounds: the time in which the kernel's own tools load the proxy's rules."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from userspace_proxy_testing.sandbox import Sandbox, SandboxNode

from ..tools import find_program

ROUNDS = 5
TIMEOUT_S = 120.0


def rules_of(node: SandboxNode, steering: str) -> str:
    """Return a node's rules in the format of the mode's tool; empty if the mode has no tool."""
    if steering == "nftables":
        return node.run([find_program("nft"), "list", "ruleset"], timeout=TIMEOUT_S).stdout
    if steering == "iptables":
        return node.run([find_program("iptables-legacy-save")], timeout=TIMEOUT_S).stdout
    return ""


def load_times(sandbox: Sandbox, steering: str, text: str, folder: Path) -> list[float]:
    """Load rules into a new node repeatedly; return the seconds of each run."""
    node = sandbox.add_node(f"floor-{steering}")
    path = folder / f"floor-{steering}"
    path.write_text(text)
    environment = {**os.environ, "XTABLES_LOCKFILE": str(folder / "floor.lock")}
    restore = find_program("iptables-legacy-restore")
    load: dict[str, Sequence[str]] = {
        "nftables": [find_program("nft"), "-f", str(path)],
        "iptables": [restore, "--noflush", str(path)],
    }
    clear: dict[str, Callable[[], object]] = {
        "nftables": lambda: node.run([find_program("nft"), "flush", "ruleset"]),
        # Without --noflush, iptables-restore empties each table that the input names.
        "iptables": lambda: node.run(
            [restore], input="".join(f"*{t}\nCOMMIT\n" for t in ("nat", "filter")), env=environment
        ),
    }
    times = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        node.run(load[steering], env=environment, timeout=TIMEOUT_S)
        times.append(time.monotonic() - began)
        clear[steering]()
    return times
