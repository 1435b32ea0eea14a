"""The helper processes of iptables steering, their commands, and their lock."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, WEB_6
from steering_traffic import MANY

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import IPFamily
from userspace_proxy.steering.iptables.helper import FULL_COMPARISON_EVERY

pytestmark = [pytest.mark.long, pytest.mark.netns, pytest.mark.needs("legacy tables")]


@pytest.fixture
def kind():
    return "iptables"


@pytest.fixture
def restore(tmp_path, monkeypatch):
    """Replace iptables-restore by a script; return the file to which that writes its calls."""

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


@pytest.mark.parametrize("works", [True, False], ids=["restore", "python-iptables"])
async def test_a_few_edits_do_not_run_iptables_restore(node, restore, steering, works):
    await steering.apply({WEB: 36001, CART: 36001, WEB_6: 36001})
    used = restore(works=works)
    await steering.change({}, [CART])
    assert not used.exists()
    assert await steering.render() == ("TCP 10.96.7.1:80 -> :36001\nTCP [fd00:96::1]:80 -> :36001")
    assert not any([await steering.repair() for _ in range(FULL_COMPARISON_EVERY)])


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_helper_survives_signals_that_end_the_agent(steering, number):
    await steering.apply({WEB: 36001})
    before = dict(steering.helper_pids)
    os.kill(before[IPFamily.IPV4], number)
    assert await steering.repair() == 0
    assert steering.helper_pids == before
    await steering.clean_up()


async def test_killing_the_agent_ends_its_helper_and_its_rules_are_recovered(node, steering):
    program = dedent("""
        import asyncio, os, signal
        from userspace_proxy.model import Frontend, Protocol
        from userspace_proxy.steering import SteeringFacts, make_steering

        async def main():
            steering = make_steering("iptables", SteeringFacts(refuse_port=35999))
            await steering.apply({Frontend("10.96.7.1", 80, Protocol.TCP): 36001})
            print(*steering.helper_pids.values(), flush=True)
            await asyncio.get_running_loop().run_in_executor(None, input)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """)
    assert nodes.run_until_killed(program)
    assert await steering.start() == {WEB: 36001}
