"""Dropping privileges, in a child process because they can't be regained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from userspace_proxy.plane.privileges import CAP_NET_RAW, WORKER_ID

SCRIPT = """
from pathlib import Path
from userspace_proxy.plane.privileges import become_unprivileged
for _ in range(2):
    become_unprivileged(**OPTIONS)
print(Path("/proc/self/status").read_text())
"""
# The user namespace maps only the current user.
ALONE = ("unshare", "--user", "--map-root-user")


def is_root_of_many():
    """Return whether this is root, and other users are mapped."""
    maps = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and any(int(first) + int(n) > WORKER_ID for first, _, n in maps)


def status_of(*prefix, options="{}", **kwargs):
    """Return /proc/self/status of a process that has dropped its privileges.

    Args:
        prefix: The prefix of the command.
        options: The options of dropping privileges, as the text of a Python dict.
    """
    said = subprocess.run(
        [*prefix, sys.executable, "-c", f"OPTIONS = {options}{SCRIPT}"],
        check=True,
        text=True,
        capture_output=True,
        **kwargs,
    )
    return dict(line.split(":\t", 1) for line in said.stdout.splitlines() if line)


@pytest.fixture(scope="module")
def plain():
    return status_of(**({"extra_groups": [4, 27]} if is_root_of_many() else {}))


@pytest.fixture(scope="module")
def alone():
    tried = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no user namespace: {tried.stderr.strip()}")
    return status_of(*ALONE)


def test_a_worker_started_by_root_changes_to_the_worker_user(plain):
    user = WORKER_ID if is_root_of_many() else os.geteuid()
    group = WORKER_ID if is_root_of_many() else os.getegid()
    assert plain["Uid"].split() == [str(user)] * 4
    assert plain["Gid"].split() == [str(group)] * 4


@pytest.mark.skipif(not is_root_of_many(), reason="only root has groups to give up")
def test_root_drops_its_supplementary_groups(plain):
    assert plain["Groups"].strip() == ""


def test_a_worker_keeps_the_only_user_of_a_user_namespace(alone):
    assert alone["Uid"].split() == ["0"] * 4


@pytest.mark.parametrize("who", ["plain", "alone"])
@pytest.mark.parametrize("name", ["CapEff", "CapPrm", "CapInh", "CapAmb"])
def test_a_worker_has_no_capabilities(request, who, name):
    assert int(request.getfixturevalue(who)[name], 16) == 0


@pytest.mark.parametrize("who", ["plain", "alone"])
def test_a_worker_cannot_gain_new_privileges(request, who):
    assert request.getfixturevalue(who)["NoNewPrivs"] == "1"


@pytest.mark.parametrize("prefix", [pytest.param((), id="plain"), pytest.param(ALONE, id="alone")])
def test_only_the_capability_to_bind_client_addresses_may_be_kept(request, prefix):
    request.getfixturevalue("alone" if prefix else "plain")
    said = status_of(*prefix, options="{'keeps_net_raw': True}")
    kept = 1 << CAP_NET_RAW if prefix or os.geteuid() == 0 else 0
    sets = {name: int(said[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
    assert sets == {"CapEff": kept, "CapPrm": kept, "CapInh": 0, "CapAmb": 0}
    assert said["NoNewPrivs"] == "1"
