"""Exec plugins as real processes: their output, credentials and termination."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from datetime import UTC, datetime

import pytest

from tests.processes import started
from tests.shell import write_program
from userspace_proxy.sources.kubernetes import plugin as module
from userspace_proxy.sources.kubernetes.kubeconfig import Content, ExecPlugin, KubeCluster
from userspace_proxy.sources.kubernetes.plugin import (
    PluginCredential,
    PluginError,
    cluster_info,
    plugin_credential,
    run_plugin,
)

WITHIN_S = 20
VERSION = "client.authentication.k8s.io/v1"
NOW = 1_000_000.0


def answer_of(**status):
    return json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status})


ANSWER = answer_of(token="secret")
CREDENTIAL = PluginCredential("secret", b"", b"", NOW, None)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a plugin: Python, or a shell script, which starts faster."""

    def write(script, **more):
        if script.startswith("#!"):
            (tmp_path / "plugin").write_text(script)
            (tmp_path / "plugin").chmod(0o755)
        else:
            write_program(tmp_path / "plugin", script)
        return ExecPlugin(str(tmp_path / "plugin"), VERSION, **more)

    return write


@pytest.fixture
def run(write):
    """Return a coroutine function that runs a Python script as a plugin."""

    async def run(script, *, within_s=WITHIN_S, cluster=None, **more):
        plugin = write(script, **more)
        return await run_plugin(plugin, cluster, within_s=within_s, clock=lambda: NOW)

    return run


async def ended(pid):
    """Wait for the exit of a process that may not be a child of this one."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, gone.set)
        await asyncio.wait_for(gone.wait(), WITHIN_S)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_a_plugin_provides_a_token_or_a_certificate_with_its_key(run):
    assert await run(f"print({ANSWER!r})") == CREDENTIAL
    pair = {"clientCertificateData": "certificate", "clientKeyData": "key"}
    answer = answer_of(**pair, expirationTimestamp="2001-09-09T01:46:40Z")
    credential = await run(f"print({answer!r})")
    assert credential == PluginCredential("", b"certificate", b"key", NOW, 1e9)
    assert (await run(f"print({answer_of(**pair, token='secret')!r})")).token == "secret"


async def test_a_plugins_output_may_be_yaml(run):
    assert await run(f"print('apiVersion: {VERSION}\\nstatus:\\n  token: secret')") == CREDENTIAL


@pytest.mark.parametrize("cluster", [None, {"server": "https://api.test", "config": {"a": 1}}])
async def test_a_plugin_receives_its_arguments_environment_and_exec_info(run, tmp_path, cluster):
    script = f"""
import json, os, pathlib, sys
said = [sys.argv[1:], os.environ["EXTRA"], json.loads(os.environ["KUBERNETES_EXEC_INFO"])]
pathlib.Path({str(tmp_path / "said")!r}).write_text(json.dumps([*said, sys.stdin.read()]))
print({ANSWER!r})
"""
    await run(script, args=("--cluster", "7"), env=(("EXTRA", "more"),), cluster=cluster)
    spec = {"interactive": False} | ({} if cluster is None else {"cluster": cluster})
    asked = {"apiVersion": VERSION, "kind": "ExecCredential", "spec": spec}
    said = json.loads((tmp_path / "said").read_text())
    assert said == [["--cluster", "7"], "more", asked, ""]


def test_a_plugin_receives_the_same_cluster_info_as_from_kubectl(tmp_path):
    """tests/cluster/test_kubeconfig.py compares this with kubectl itself."""
    (tmp_path / "ca.crt").write_text("authority")
    server = "https://api.test/"
    assert cluster_info(KubeCluster(server[:-1], server)) == {"server": server, "config": None}
    cluster = KubeCluster(
        server[:-1],
        server,
        Content(path=str(tmp_path / "ca.crt")),
        "name.test",
        is_insecure=True,
        proxy_url="http://proxy.test",
        is_uncompressed=True,
        extension={"a": 1},
    )
    assert cluster_info(cluster) == {
        "server": server,
        "tls-server-name": "name.test",
        "insecure-skip-tls-verify": True,
        "certificate-authority-data": "YXV0aG9yaXR5",
        "proxy-url": "http://proxy.test",
        "disable-compression": True,
        "config": {"a": 1},
    }


async def test_plugin_output_on_stderr_is_logged_up_to_a_limit(run, caplog):
    caplog.set_level("INFO", "userspace_proxy.sources")
    script = f"import sys; sys.stderr.write('enter\\nABCD' + 'x' * 5000); print({ANSWER!r})"
    assert await run(script) == CREDENTIAL
    (record,) = caplog.records
    assert record.message.startswith("credential plugin plugin wrote to stderr: enter ABCDxxx")
    assert record.__dict__["plugin"] == "plugin"
    assert record.__dict__["text"].startswith("enter ABCDxxx")
    assert len(record.__dict__["text"]) == 1000


async def test_a_plugin_writing_a_lot_to_stderr_does_not_hang(run):
    script = f"import sys; sys.stderr.write('x' * 5_000_000); print({ANSWER!r})"
    assert await run(script) == CREDENTIAL


async def test_a_hanging_plugin_is_killed_with_its_children(run, tmp_path):
    script = f"#!/bin/sh\nsleep 1000 &\necho $$ $! >'{tmp_path}/pids'\nwait\n"
    with pytest.raises(PluginError, match=r"exec: plugin did not exit within 2 s"):
        await run(script, within_s=2)
    for pid in (tmp_path / "pids").read_text().split():
        await ended(int(pid))


async def test_a_plugin_whose_child_keeps_its_output_open_is_killed(run, tmp_path):
    script = f"#!/bin/sh\nsleep 1000 &\necho $! >'{tmp_path}/pid'\necho '{ANSWER}'\n"
    with pytest.raises(PluginError, match="did not exit within"):
        await run(script, within_s=2)
    await ended(int((tmp_path / "pid").read_text()))


async def test_a_hanging_plugin_times_out_even_if_its_daemon_holds_its_output(run, tmp_path):
    script = f"#!/bin/sh\nsetsid sleep 1000 &\necho $! >'{tmp_path}/pid'\nwait\n"
    try:
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(PluginError, match="did not exit within"):
                await run(script, within_s=2)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("code", [0, 1], ids=["succeeds", "fails"])
async def test_children_left_by_a_plugin_are_killed(run, tmp_path, code):
    script = f"""
import pathlib, subprocess, sys
quiet = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
child = subprocess.Popen(["sleep", "1000"], **quiet)
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
print({ANSWER!r})
sys.exit({code})
"""
    with contextlib.suppress(PluginError):
        assert await run(script) == CREDENTIAL
    await ended(int((tmp_path / "pid").read_text()))


async def test_only_the_first_mib_of_a_plugins_output_is_kept(run):
    """The output is read to its end, so that the plugin doesn't block."""
    blanks = f"import sys; print({ANSWER!r} + ' ' * 2**20 * %d)"
    assert await run(blanks % 2) == CREDENTIAL
    with pytest.raises(PluginError):
        await run(f"print(' ' * 2**20 * 2 + {ANSWER!r})")


async def test_a_plugin_is_killed_when_its_caller_is_cancelled(run, tmp_path):
    pid = tmp_path / "pid"
    script = f"#!/bin/sh\necho $$ >'{pid}.new'\nmv '{pid}.new' '{pid}'\nexec sleep 1000\n"
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
        ("import sys; sys.exit('no ticket\\nmore')", "exec: plugin ended with 1: no ticket"),
        ("raise SystemExit(3)", "exec: plugin ended with 3"),
        ("print('[secret')", "exec: plugin did not print an ExecCredential as JSON or YAML"),
        ("print('[]')", "exec: plugin printed no ExecCredential with a"),
        (
            'print(\'{"status": {}, "apiVersion": "v9"}\')',
            "exec: plugin printed another apiVersion than client",
        ),
        (
            f"print({ANSWER.replace('ExecCredential', 'TokenReview')!r})",
            "printed another kind than ExecCredential",
        ),
        (
            f"print({answer_of(token='secret', expirationTimestamp='2030-01-01')!r})",
            "an expirationTimestamp that is no time",
        ),
        (f"print({answer_of()!r})", "neither a token nor a cert"),
        (f"print({answer_of(clientKeyData='secret')!r})", "only one of"),
        (f"print({answer_of(token=7)!r})", "a field that is not text"),
        (f"print({answer_of(token='a' + chr(10) + 'b')!r})", "a line break"),
    ],
)
async def test_an_invalid_result_is_reported_in_one_line_without_the_output(run, script, words):
    with pytest.raises(PluginError, match=words) as caught:
        await run(script)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["/nowhere/plugin", "not-in-any-path"])
async def test_a_missing_program_is_reported_with_its_install_hint(command):
    plugin = ExecPlugin(command, VERSION, install_hint="brew install plugin")
    with pytest.raises(PluginError) as caught:
        await run_plugin(plugin, None, within_s=1)
    assert str(caught.value) == (
        f"exec: {command} can't be started: No such file or directory (brew install plugin)"
    )


async def test_an_always_interactive_plugin_without_a_terminal_is_an_error(run):
    for within_s in (WITHIN_S, None):
        with pytest.raises(PluginError, match="plugin needs a terminal"):
            await run(f"print({ANSWER!r})", mode="Always", within_s=within_s)


AT_TERMINAL = f"""
import asyncio, sys
from userspace_proxy.sources.kubernetes.kubeconfig import ExecPlugin
from userspace_proxy.sources.kubernetes.plugin import run_plugin
plugin = ExecPlugin(sys.argv[1], {VERSION!r}, mode=sys.argv[2])
print("token", asyncio.run(run_plugin(plugin, None, within_s=None)).token)
"""


def run_at_terminal(plugin, typed=b""):
    """Run a plugin with a terminal, in a new process; return the terminal's output."""
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-c", AT_TERMINAL, plugin.command, plugin.mode]
    with (
        os.fdopen(terminal, "r+b", buffering=0) as stream,
        started(command, stdin=theirs, stdout=theirs, stderr=theirs) as process,
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):
            while data := stream.read(4096):
                shown += data
                if typed and b"code: " in shown:
                    stream.write(typed)
                    typed = b""
        process.wait(WITHIN_S)
    return shown.decode()


def test_a_plugin_at_a_terminal_may_prompt(write):
    script = f"""
import json, os, sys
sys.stderr.write("code: ")
assert json.loads(os.environ["KUBERNETES_EXEC_INFO"])["spec"]["interactive"]
code = input()
print(json.dumps({{"apiVersion": {VERSION!r}, "status": {{"token": code}}}}))
"""
    assert "token ABCD" in run_at_terminal(write(script, mode="Always"), b"ABCD\n")


def test_at_a_terminal_a_plugin_that_never_prompts_receives_no_input(write):
    script = f"""
import json, os, sys
sys.stderr.write("please wait")
interactive = json.loads(os.environ["KUBERNETES_EXEC_INFO"])["spec"]["interactive"]
token = f"{{interactive}}{{sys.stdin.read()}}"
print(json.dumps({{"apiVersion": {VERSION!r}, "status": {{"token": token}}}}))
"""
    shown = run_at_terminal(write(script, mode="Never"))
    assert "please wait" in shown
    assert "token False" in shown


@pytest.fixture
def counted(write, tmp_path):
    """Return a function that writes a plugin, which numbers its tokens."""

    def counted(**status):
        return write(f"""
import json, pathlib
runs = pathlib.Path({str(tmp_path / "runs")!r})
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
status = {{"token": f"token-{{len(runs.read_text())}}", **{status!r}}}
print(json.dumps({{"apiVersion": {VERSION!r}, "status": status}}))
""")

    return counted


async def shared(plugin, *, now=NOW, **more):
    return await plugin_credential(plugin, None, is_attended=False, clock=lambda: now, **more)


async def test_simultaneous_and_later_callers_share_a_single_plugin_run(counted):
    plugin = counted()
    credentials = await asyncio.gather(*(shared(plugin) for _ in range(3)))
    assert {c.token for c in (*credentials, await shared(plugin))} == {"token-1"}


def test_a_plugins_credential_is_shared_with_later_event_loops(counted):
    plugin = counted()
    assert [asyncio.run(shared(plugin)).token for _ in range(2)] == ["token-1"] * 2


async def test_a_rejected_credential_of_a_plugin_is_replaced_once(counted):
    plugin = counted()
    first = await shared(plugin)
    second = await shared(plugin, refused=first)
    assert second.token == "token-2"
    assert await shared(plugin, refused=first) is second


@pytest.mark.parametrize(
    ("lasts_s", "at_s", "runs"),
    [
        pytest.param(3600, 3539, 1, id="an-hour-long-before-its-end"),
        pytest.param(3600, 3540, 2, id="an-hour-a-minute-before-its-end"),
        pytest.param(120, 107, 1, id="two-minutes-before-its-last-tenth"),
        pytest.param(120, 108, 2, id="two-minutes-at-its-last-tenth"),
        pytest.param(-5, 4, 1, id="expired-from-the-start"),
        pytest.param(-5, 5, 2, id="expired-from-the-start-and-soon-again"),
    ],
)
async def test_a_plugin_runs_again_before_its_credential_expires(counted, lasts_s, at_s, runs):
    end = datetime.fromtimestamp(NOW + lasts_s, UTC).isoformat()
    plugin = counted(expirationTimestamp=end)
    await shared(plugin)
    assert (await shared(plugin, now=NOW + at_s)).token == f"token-{runs}"


async def test_an_abandoned_request_does_not_end_a_shared_run(counted):
    plugin = counted()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await shared(plugin)
    assert (await shared(plugin)).token == "token-1"


async def test_a_failed_run_of_a_plugin_is_retried(write, counted):
    failing = write("raise SystemExit(3)")
    with pytest.raises(PluginError, match="ended with 3"):
        await shared(failing)
    assert counted() == failing
    assert (await shared(failing)).token == "token-1"


async def test_a_credential_is_used_until_it_expires_while_renewal_fails(write, counted):
    plugin = counted(expirationTimestamp=datetime.fromtimestamp(NOW + 3600, UTC).isoformat())
    first = await shared(plugin)
    assert write("raise SystemExit(3)") == plugin
    assert await shared(plugin, now=NOW + 3599) is first
    for expected in ({"now": NOW + 3600}, {"now": NOW + 3599, "refused": first}):
        with pytest.raises(PluginError, match="ended with 3"):
            await shared(plugin, **expected)


async def test_the_zero_time_of_go_is_not_an_expiry_date(run):
    answer = answer_of(token="secret", expirationTimestamp="0001-01-01T00:00:00Z")
    assert await run(f"print({answer!r})") == CREDENTIAL


async def test_waiting_for_a_shared_plugin_times_out(write, monkeypatch):
    monkeypatch.setattr(module, "PLUGIN_S", 0.1)
    with pytest.raises(PluginError, match=r"plugin did not exit within 0\.1 s"):
        await shared(write("import signal; signal.pause()"))


async def test_without_process_groups_a_hanging_plugin_is_killed(run, tmp_path, monkeypatch):
    monkeypatch.delattr("os.killpg")
    script = f"#!/bin/sh\necho $$ >'{tmp_path}/pid'\nexec sleep 1000\n"
    with pytest.raises(PluginError, match="did not exit within"):
        await run(script, within_s=2)
    await ended(int((tmp_path / "pid").read_text()))
