"""Runs ``check`` and ``run`` on kernels that lack a feature, each in its own machine.

    left out ──▶ machine without these modules ──▶ crippled.py there ──▶ matrix.json

The machines run User Mode Linux, which starts quickly, and whose modules are prepared once."""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import argparse
import functools
import json
import shlex
import signal
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.build import BuildError
from tests.tools.clones import CloneError

from .__main__ import results_folder
from .crippled import STEERINGS
from .kernels import Kernel
from .machine import MachineError, run_machine
from .root import Root, ensure_root
from .uml import NO_INET, NO_INET_NO_LEGACY, WHOLE, ensure_uml

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Without:
    """A kernel, and the features that it lacks.

    Args:
        name: The name of the missing feature.
        modules: The missing modules.
        breaks: The steering modes that can't serve; all others must.
        arguments: Kernel arguments.
        kernel: The kernel.
    """

    name: str
    modules: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    kernel: Kernel = WHOLE


_LEGACY = ("ip_tables", "ip6_tables")
_NFTABLES = ("nftables", "local")
_ALL_RULES = ("auto", "nftables", "local", "iptables")
_TRACKED = ("auto", "nftables", "iptables")
MATRIX = (
    Without("nothing"),
    Without("inet tables, nft_nat, nft_fib", (), _NFTABLES, kernel=NO_INET),
    Without(
        "inet tables, nft_nat, nft_fib, legacy tables", (), _ALL_RULES, kernel=NO_INET_NO_LEGACY
    ),
    Without("nf_tables", ("nf_tables",), _NFTABLES),
    Without("legacy tables", _LEGACY, ("iptables",)),
    Without("legacy tables of IPv6", ("ip6_tables",)),
    Without("nf_tables, legacy tables", ("nf_tables", *_LEGACY), _ALL_RULES),
    Without("nft_nat", ("nft_nat",), ("nftables",)),
    Without("nft_ct", ("nft_ct",), ("nftables",)),
    Without("nft_reject", ("nft_reject",), _NFTABLES),
    Without("nft_socket", ("nft_socket",)),
    Without("nft_fib", ("nft_fib",)),
    Without("nft_numgen", ("nft_numgen",)),
    Without("conntrack netlink", ("nf_conntrack_netlink",), _TRACKED),
    Without("conntrack", ("nf_conntrack",), _TRACKED),
    Without("IPv6", arguments=("ipv6.disable=1",)),
)


# The image is built once, because another build may hold the lock for minutes.
_ready = functools.cache(ensure_uml)


def try_kernel(
    without: Without, root: Root, target: Path, steerings: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a kernel's cells from crippled.py, a mapping for each steering mode.

    Raises:
        BuildError: The kernel can't be built.
        MachineError: The kernel doesn't start here, or returned no results.
    """
    kernel, way = _ready(without.kernel)
    words = ["python", "-m", "tests.kernels.crippled", "/result", without.name, *steerings]
    run_machine(
        kernel,
        root,
        f"{shlex.join(words)} >/result/output 2>&1",
        way=way,
        target=target,
        left_out=without.modules,
        arguments=without.arguments,
        timeout=_TIMEOUT_S,
    )
    written = target / "matrix.json"
    if not written.exists():
        raise MachineError((target / "output").read_text())
    return judged(json.loads(written.read_text()), without.breaks)


def judged(cells: Sequence[dict[str, Any]], breaks: Collection[str]) -> list[dict[str, Any]]:
    """Return a kernel's cells, with a fault where a mode doesn't serve, or serves unexpectedly."""
    judged = []
    for cell in cells:
        serves, should = cell["run"] == "serves", cell["steering"] not in breaks
        fault = "" if serves == should else f"it {'should serve' if should else 'cannot serve'}"
        judged.append(cell | {"fault": cell["fault"] or fault})
    return judged


def table(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each kernel with each steering mode's outcome, and a line per fault."""
    lines = [f"{'without':<46}" + "".join(f"{name:<10}" for name in STEERINGS)]
    for without in dict.fromkeys(cell["without"] for cell in cells):
        of_kernel = {cell["steering"]: cell for cell in cells if cell["without"] == without}
        runs = [of_kernel.get(name, {"run": "-", "fault": ""}) for name in STEERINGS]
        marks = [f"{cell['run']}{'!' if cell['fault'] else ''}" for cell in runs]
        lines.append(f"{without:<46}" + "".join(f"{mark:<10}" for mark in marks))
    lines += [
        f"! {cell['without']}, {cell['steering']}: {cell['fault']}: {cell['words']}"
        for cell in cells
        if cell["fault"]
    ]
    return lines


def main(words: Sequence[str]) -> int:
    """Test the matrix, write ``matrix.json``, and print the table; return 1 on any fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.matrix")
    parser.add_argument("--target", type=Path, default=results_folder(), help="for the results")
    parser.add_argument("--without", action="append", help="a name; default: each")
    parser.add_argument("--steering", action="append", choices=STEERINGS, help="default: each")
    given = parser.parse_args(words)
    # SIGTERM raises an exception, which stops machines and unmounts file systems.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        root = ensure_root(WHOLE.root)
    except (BuildError, CloneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    cells: list[dict[str, Any]] = []
    failed = []
    for without in MATRIX:
        if given.without and without.name not in given.without:
            continue
        began = time.monotonic()
        try:
            folder = given.target / "matrix" / without.name.replace(" ", "-").replace(",", "")
            cells += try_kernel(without, root, folder, given.steering or STEERINGS)
        except (BuildError, MachineError) as error:
            failed.append(f"without {without.name}: {error}")
        print(f"without {without.name}: {time.monotonic() - began:.0f} s", flush=True)
        (given.target / "matrix.json").write_text(json.dumps(cells, indent=1))
    print(*table(cells), *failed, sep="\n")
    return 1 if failed or any(cell["fault"] for cell in cells) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
