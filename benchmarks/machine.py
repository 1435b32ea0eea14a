"""Collects facts about the machine for the report, without names and paths."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.cluster.nodes.programs import kubernetes_version
from userspace_proxy import __version__

from .tools import ToolMissing, Tools, find_program


def describe_machine(tools: Tools) -> dict[str, str]:
    """Return the facts by their name in the report, in the report's order."""
    return {
        **describe_host(),
        "Go proxy, load generator, backends": f"Go {tools.go_version}",
        "HAProxy": _version_of("haproxy", "-v"),
        "nginx": _version_of("nginx", "-v"),
        "kube-proxy": kubernetes_version().removeprefix("v"),
        "wrk": _version_of("wrk", "--version"),
        "descriptors for each process": f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,}",
        "load average before (1 and 5 minutes)": load_average(),
    }


def describe_host() -> dict[str, str]:
    """Return the facts about the hardware, the kernel and this proxy."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {_leading_numbers(platform.release())}",
        "userspace-proxy": f"{__version__}, Python {platform.python_version()}, "
        f"uvloop {version('uvloop')}",
    }


def load_average() -> str:
    """Return the load averages of 1 and 5 minutes."""
    return " ".join(f"{one:.2f}" for one in os.getloadavg()[:2])


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _version_of(program: str, flag: str) -> str:
    try:
        command = [find_program(program), flag]
    except ToolMissing:
        return "not installed"
    # wrk prints its version together with its usage, and exits with an error.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return _leading_numbers((done.stdout + done.stderr).partition("\n")[0])


def _leading_numbers(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else "unknown"
