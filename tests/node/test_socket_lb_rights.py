"""Hooks start with the chart's capabilities, and report a missing one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.node.test_bpf import rights as rights
from tests.node.test_other_hooks import cgroup as cgroup
from tests.node.test_other_hooks import names as names

pytestmark = [pytest.mark.kernel, pytest.mark.netns, pytest.mark.needs("connect hooks")]

# The capabilities of charts/userspace-proxy, with and without socketLB.
WITHOUT = "+net_admin,+net_raw,+setuid,+setgid,+kill"
WITH = f"{WITHOUT},+bpf"
# As in a container, the only bpffs isn't at the usual path; other tests' mounts are hidden here.
IN_A_CONTAINER = (
    """awk '$3 == "bpf" { print $2 }' /proc/mounts | grep -Fxv "$5" | xargs -r umount; """
    'exec setpriv --bounding-set="-all,$1" --inh-caps=-all "$2" -c "$3" "$4"'
)
START = """
import sys
from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.socket_lb.programs import find_bpffs
from userspace_proxy.kernel.offers import FOR_SOCKET_LB, read_kernel_offers
from userspace_proxy.steering.socket_lb import HookOptions
from userspace_proxy.steering.socket_lb import Hooks

options = HookOptions(is_required=True, cgroup=sys.argv[1])
hooks = Hooks(options, "", read_kernel_offers(FOR_SOCKET_LB))
try:
    hooks.start()
except SteeringError as exc:
    print(exc)
else:
    print(hooks.state.is_attached, find_bpffs())
    hooks.remove()
hooks.close()
"""


def start(capabilities: str, cgroup: Path, names: Path) -> str:
    command = ["unshare", "--mount", "sh", "-c", IN_A_CONTAINER, "sh"]
    arguments = [capabilities, sys.executable, START, cgroup, names]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout.strip()


def test_hooks_start_with_the_charts_capabilities(cgroup: Path, names: Path) -> None:
    assert start(WITH, cgroup, names) == f"True {names}"


def test_a_missing_capability_is_reported_in_one_line(cgroup: Path, names: Path) -> None:
    assert start(WITHOUT, cgroup, names).startswith(
        "cannot translate connect(): CAP_BPF missing: connect() can't be hooked (run as root, or "
    )
