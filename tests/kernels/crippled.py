"""Compares ``check`` with ``run`` on a kernel that lacks a feature, for each steering mode.

    check --steering=X ──▶ exit 0 or 1     run --steering=X ──▶ a Service answers, or it exits

Rule 1: a cell is correct if both agree, and if the reason of an exit names the missing feature and
a steering mode. ``auto`` serves or exits.
Rule 2: a start that neither serves nor exits is a fault, because it retries.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from userspace_proxy.kernel.offers import NEEDS

from .smoke import CLUSTER_IPS, PROGRAM, make_node, serve, write_manifests

STEERINGS = ("auto", "nftables", "local", "none", "iptables")
"""iptables is last, because it loads tables that would make auto prefer it."""
END_S = 10.0
"""The CPU seconds within which a failing start must exit; real time depends on other programs."""
_TIMES_CHECK = 4.0
"""A failing start is a fault if it takes more than 10 s and more than ``check`` times this."""
_LIMIT_S = 120.0
"""The timeout of a start in seconds; on a busy machine, Python starts several times slower."""
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Cell:
    """The results of ``check`` and ``run`` on a kernel with one steering mode.

    Args:
        without: The missing feature.
        steering: The flag's value.
        check: ``ok`` or ``error``.
        run: ``serves``, ``ends`` or ``retries``.
        words: Why ``run`` doesn't serve; if it serves, why ``check`` fails; otherwise empty.
        seconds: The CPU time of ``run`` in seconds.
        lasted: The wall-clock time of ``run`` in seconds.
        check_lasted: The wall-clock time of ``check`` in seconds.
    """

    without: str
    steering: str
    check: str
    run: str
    words: str
    seconds: float
    lasted: float
    check_lasted: float

    def fault(self) -> str:
        """Return the fault of the cell; empty if there is none."""
        if (self.check == "ok") != (self.run == "serves"):
            return f"check says {self.check}, run {self.run}"
        if self.run == "retries":
            return "it neither serves nor ends"
        if self.run == "ends" and self.seconds > END_S:
            return f"it ends after {self.seconds:.0f} s"
        if self.run == "ends" and self.lasted > max(END_S, _TIMES_CHECK * self.check_lasted):
            return f"it ends after {self.lasted:.0f} s, check after {self.check_lasted:.0f} s"
        if self.run == "ends" and not _names_a_way_out(self.words):
            return "its words don't name what is missing, and a steering"
        return ""


def _names_a_way_out(words: str) -> bool:
    lacks = re.search(r"this kernel lacks (.+?) \(", words)
    return lacks is not None and lacks[1] in NEEDS and "--steering=" in words


def check(flags: Sequence[str]) -> tuple[str, str]:
    """Return the outcome of ``check`` with these flags, and its error messages."""
    done = subprocess.run(
        [*PROGRAM, "check", "-o", "json", *flags], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        return f"exit {done.returncode}", done.stderr
    findings = json.loads(done.stdout)["findings"]
    errors = [found for found in findings if found["mark"] == "error"]
    words = "; ".join(f"{found['what']} ({found['hint']})" for found in errors)
    return ("error" if done.returncode else "ok"), words


def run(steering: str, flags: Sequence[str], log: Path) -> tuple[str, str, float]:
    """Return the outcome of ``run``, its last log line (empty if it serves), and CPU seconds."""
    is_none = steering == "none"
    command = [*PROGRAM, "run", *flags, *(["--print-addresses=json"] if is_none else [])]
    ends, used = time.monotonic() + _LIMIT_S, _cpu_s()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE if is_none else stream, stderr=stream, text=True
        )
    outcome = "retries"
    try:
        address = _address(process) if is_none else (CLUSTER_IPS["web"], 80)
        while time.monotonic() < ends:
            if _has_ended(process, 0.1):
                outcome = "ends"
                break
            if address and _answers(address):
                outcome = "serves"
                break
    finally:
        _stop(process)
    return outcome, "" if outcome == "serves" else _last_log_line(log), round(_cpu_s() - used, 1)


def _cpu_s() -> float:
    """Return the CPU time of all child processes that have exited."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _has_ended(process: subprocess.Popen[str], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _address(process: subprocess.Popen[str]) -> tuple[str, int] | None:
    """Return the Service's address with steering none; None if the proxy has exited."""
    assert process.stdout is not None
    for line in process.stdout:
        said = json.loads(line)
        if (said["service"], said["protocol"]) == ("web", "TCP"):
            host, _, port = said["address"].rpartition(":")
            return host, int(port)
    return None


def _answers(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, 1.0) as sock:
        sock.settimeout(1.0)
        return sock.recv(100) in (b"a", b"b")
    return False


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_S)


def _last_log_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def main(words: Sequence[str]) -> int:
    """Write a kernel's cells into ``matrix.json`` in a folder; return 1 if one has a fault.

    usage: python -m tests.kernels.crippled FOLDER WITHOUT [STEERING …]
    """
    folder, without, wanted = Path(words[0]), words[1], words[2:] or STEERINGS
    pods = make_node()
    for name in ("a", "b"):
        serve(name, pods[name])
    cells = []
    for steering in (name for name in STEERINGS if name in wanted):
        flags = [
            f"--steering={steering}",
            f"--manifests={write_manifests(folder, steering)}",
            "--hostname-override=node-1",
        ]
        began = time.monotonic()
        checked, errors = check(flags)
        check_lasted = round(time.monotonic() - began, 1)
        log = folder / f"{steering}.log"
        began = time.monotonic()
        ran, last, seconds = run(steering, flags, log)
        lasted = round(time.monotonic() - began, 1)
        cell = Cell(without, steering, checked, ran, last or errors, seconds, lasted, check_lasted)
        cells.append(cell)
        print(f"{steering:<9} check {checked:<6} run {ran:<8} {seconds:5.1f} s  {cell.words}")
        if errors:
            print(f"          check says: {errors}")
        sys.stdout.flush()
        said = [asdict(cell) | {"fault": cell.fault()} for cell in cells]
        (folder / "matrix.json").write_text(json.dumps(said, indent=1))
    print(f"{os.uname().release}: {_cpu_s():.0f} s of CPU time", flush=True)
    return 1 if any(cell.fault() for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
