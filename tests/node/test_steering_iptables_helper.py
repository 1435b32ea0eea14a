"""The helper processes of iptables steering, their commands, and their lock."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import steering_nodes as nodes
from steering_contract import DNS, WEB
from steering_traffic import MANY

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import IPFamily

pytestmark = [pytest.mark.long, pytest.mark.netns, pytest.mark.needs("legacy tables")]


@pytest.fixture
def kind():
    return "iptables"


@pytest.fixture
def restore(tmp_path, monkeypatch):
    """Return a function that replaces iptables-restore and returns a file that its runs create."""

    command, used = tmp_path / "iptables-legacy-restore", tmp_path / "used"
    real = shutil.which("iptables-legacy-restore")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def replace(*, works: bool, first: str = "") -> Path:
        used.unlink(missing_ok=True)
        then = f'exec {real} "$@"' if works else "exit 1"
        command.write_text(f"#!/bin/sh\necho >{used}\n{first}\n{then}\n", encoding="ascii")
        command.chmod(0o755)
        return used

    replace(works=True)
    return replace


async def test_a_new_helper_gets_the_whole_state_after_a_failed_repair(node, steering, lock_file):
    await steering.apply({WEB: 36001})
    pid = steering.helper_pids[IPFamily.IPV4]
    os.kill(pid, signal.SIGKILL)
    nodes.wait_until_dead(pid)
    node.run("iptables-legacy -t nat -F")
    lock_file.unlink()
    lock_file.mkdir()
    with pytest.raises(SteeringError, match="cannot open"):
        await steering.repair()
    lock_file.rmdir()
    await steering.change({DNS: 36002}, ())
    assert await steering.render() == "TCP 10.96.7.1:80 -> :36001\nUDP 10.96.0.10:53 -> :36002"


@pytest.mark.parametrize("its_child", ["commits", "dies-too"])
async def test_a_replacement_helper_completes_an_interrupted_apply(
    node, restore, steering, tmp_path, its_child
):
    await steering.apply({WEB: 36001})
    killed = tmp_path / "killed"
    restore(
        works=True,
        first=f"test -e {killed} || {{ echo >{killed}; kill -9 $PPID; "
        f"{'exit 1;' if its_child == 'dies-too' else ''} }}",
    )
    await steering.apply(MANY)
    assert killed.exists()
    assert len((await steering.render()).splitlines()) == len(MANY)
    assert steering.helper_restarts == 1
    assert await steering.repair() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["sigint", "sigterm"])
async def test_signals_that_end_the_agent_do_not_end_a_helper(steering, number):
    await steering.apply({WEB: 36001})
    before = dict(steering.helper_pids)
    os.kill(before[IPFamily.IPV4], number)
    assert await steering.repair() == 0
    assert steering.helper_pids == before
    await steering.clean_up()
