"""Exec plugins as real processes: what they answer, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

import pytest

from tests.shell import write_program
from userspace_proxy.sources.kubernetes.plugin import PluginError, run_plugin

WITHIN_S = 20
STATUS = {"token": "secret"}
ANSWER = json.dumps({"apiVersion": "v1", "kind": "ExecCredential", "status": STATUS})


@pytest.fixture
def run(tmp_path):
    """Run a Python script as a plugin."""

    async def run(script, *, within_s=WITHIN_S, **more):
        write_program(tmp_path / "plugin", script)
        spec = {"apiVersion": "v1", "command": "./plugin", **more}
        return await run_plugin(spec, folder=tmp_path, within_s=within_s)

    return run


async def ended(pid):
    """Wait for the end of a process that may not be a child of this one."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, gone.set)
        await asyncio.wait_for(gone.wait(), WITHIN_S)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_its_answer_is_the_status(run):
    assert await run(f"print({ANSWER!r})") == STATUS


async def test_it_gets_arguments_environment_and_what_it_is_asked_for(run):
    script = """
import json, os, sys
said = [sys.argv[1:], os.environ["EXTRA"], json.loads(os.environ["KUBERNETES_EXEC_INFO"])]
print(json.dumps({"apiVersion": "v1", "status": {"said": [*said, sys.stdin.read()]}}))
"""
    env = [{"name": "EXTRA", "value": "more"}]
    asked = {"apiVersion": "v1", "kind": "ExecCredential", "spec": {"interactive": False}}
    assert await run(script, args=["--cluster", 7], env=env) == {
        "said": [["--cluster", "7"], "more", asked, ""]
    }


async def test_one_that_writes_much_to_stderr_does_not_hang(run):
    script = f"import sys; sys.stderr.write('x' * 5_000_000); print({ANSWER!r})"
    assert await run(script) == STATUS


async def test_one_that_hangs_is_killed_with_its_children(run, tmp_path):
    script = f"""
import os, pathlib, signal, subprocess, sys
child = subprocess.Popen(["sleep", "1000"])
pathlib.Path({str(tmp_path / "pids")!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
signal.pause()
"""
    with pytest.raises(PluginError, match=r"exec: ./plugin did not exit within 2 s"):
        await run(script, within_s=2)
    for pid in (tmp_path / "pids").read_text().split():
        await ended(int(pid))


async def test_a_plugin_with_a_child_that_keeps_its_output_open_is_killed(run, tmp_path):
    script = f"""
import pathlib, subprocess
child = subprocess.Popen(["sleep", "1000"])
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
print({ANSWER!r})
"""
    with pytest.raises(PluginError, match="did not exit within"):
        await run(script, within_s=2)
    await ended(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("code", [0, 1], ids=["succeeds", "fails"])
async def test_children_that_one_leaves_behind_are_killed(run, tmp_path, code):
    script = f"""
import pathlib, subprocess, sys
quiet = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
child = subprocess.Popen(["sleep", "1000"], **quiet)
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
print({ANSWER!r})
sys.exit({code})
"""
    with contextlib.suppress(PluginError):
        assert await run(script) == STATUS
    await ended(int((tmp_path / "pid").read_text()))


async def test_of_an_answer_of_two_mib_the_first_one_is_kept(run):
    """It is read to the end, so that the plugin isn't held up."""
    blanks = f"import sys; print({ANSWER!r} + ' ' * 2**20 * %d)"
    assert await run(blanks % 2) == STATUS
    with pytest.raises(PluginError):
        await run(f"print(' ' * 2**20 * 2 + {ANSWER!r})")


async def test_a_plugin_is_killed_when_its_caller_is_cancelled(run, tmp_path):
    pid = tmp_path / "pid"
    script = f"""
import os, pathlib, signal
pathlib.Path({str(pid) + ".new"!r}).write_text(str(os.getpid()))
os.rename({str(pid) + ".new"!r}, {str(pid)!r})
signal.pause()
"""
    task = asyncio.ensure_future(run(script))
    async with asyncio.timeout(WITHIN_S):
        while not pid.exists():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(int(pid.read_text()))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(
            "import sys; sys.exit('no ticket\\nmore')",
            "exec: ./plugin ended with 1: no ticket",
            id="fails",
        ),
        pytest.param("raise SystemExit(3)", "exec: ./plugin ended with 3", id="fails-in-silence"),
        pytest.param(
            "print('secret')",
            "exec: ./plugin did not print an ExecCredential as JSON",
            id="no-json",
        ),
        pytest.param("print('[]')", "exec: ./plugin printed no ExecCredential with a", id="list"),
        pytest.param(
            'print(\'{"status": {}, "apiVersion": "v9"}\')',
            "exec: ./plugin printed another apiVersion than v1",
            id="another-version",
        ),
    ],
)
async def test_an_invalid_result_is_one_line_without_the_output(run, script, words):
    with pytest.raises(PluginError, match=words) as caught:
        await run(script)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["command", "apiVersion"])
async def test_a_kubeconfig_without_what_is_needed_names_it(key):
    spec = {"command": "x", "apiVersion": "v1"}
    del spec[key]
    with pytest.raises(PluginError, match=f"exec: missing key '{key}'"):
        await run_plugin(spec, folder=Path(), within_s=1)


async def test_a_program_that_is_not_there_is_an_oserror():
    spec = {"command": "/nowhere/plugin", "apiVersion": "v1"}
    with pytest.raises(FileNotFoundError):
        await run_plugin(spec, folder=Path(), within_s=1)


async def test_without_process_groups_the_plugin_alone_is_killed(run, tmp_path, monkeypatch):
    monkeypatch.delattr("os.killpg")
    script = f"""
import os, pathlib, signal
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
signal.pause()
"""
    with pytest.raises(PluginError, match="did not exit within"):
        await run(script, within_s=2)
    await ended(int((tmp_path / "pid").read_text()))
