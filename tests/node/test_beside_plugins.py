"""The test kit beside other plugins, and without IPv6, each case in its own pytest run."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import pytest

from tests.kit.test_plugin import PLUGIN
from tests.netns import Net
from userspace_proxy.linux import files_replaced_by, replaced_by

pytest_plugins = ["pytester"]

TESTS = """
from urllib.request import urlopen

def test_a_dead_backend_fails_no_request(service_proxy):
    web = service_proxy.service("web", backends=2)
    web.backends[0].stop()
    with urlopen(web.url, timeout=30) as answer:
        assert answer.read() == b"web-2\\n"

def test_a_service_with_latency_answers(service_proxy):
    web = service_proxy.service("web")
    web.backends[0].fault("latency", latency=100)
    with urlopen(web.url, timeout=30) as answer:
        assert answer.status == 200
"""
COROUTINE = """
import asyncio
import pytest

MARK
async def test_a_coroutine_is_served(service_proxy):
    web = service_proxy.service("web")
    reader, writer = await asyncio.open_connection(*web.address)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    assert b"200" in await reader.readline()
    writer.close()
"""
TRIO = """
import trio

def test_a_client_of_trio_is_served(service_proxy):
    web = service_proxy.service("web")

    async def ask():
        async with await trio.open_tcp_stream(*web.address) as stream:
            await stream.send_all(b"GET / HTTP/1.0\\r\\n\\r\\n")
            return await stream.receive_some(9)

    assert trio.run(ask).startswith(b"HTTP/1")
"""


def frozen(with_what: str, module: str) -> str:
    """Return the tests with a decorator that stops or shifts time."""
    return f"import {module}\n" + TESTS.replace("def test", f"@{with_what}\ndef test")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Bypass HTTP proxies, and undo this repository's setting that turns warnings into errors."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)


@pytest.fixture
def run(pytester):
    """Return a function that runs tests in their own pytest process with the kit's plugin."""

    def run(text, *arguments):
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess(*PLUGIN, *arguments)

    return run


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(frozen('freezegun.freeze_time("2026-01-01")', "freezegun"), id="freezegun"),
        pytest.param(
            frozen('time_machine.travel("2026-01-01", tick=False)', "time_machine"),
            id="time-machine",
        ),
    ],
)
def test_the_kit_works_with_frozen_time(run, text):
    run(text).assert_outcomes(passed=2)


@pytest.mark.long
@pytest.mark.parametrize("text", [TESTS, TRIO], ids=["threads", "trio"])
def test_tests_pass_without_warnings_in_pythons_development_mode(pytester, text):
    pytester.makepyfile(text)
    words = ["-X", "dev", "-m", "pytest", *PLUGIN, "-W", "error"]
    result = pytester.run(sys.executable, *words)
    result.assert_outcomes(passed=text.count("def test"))
    result.stdout.no_fnmatch_line("*Warning*")


@pytest.mark.long
@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        pytest.param("@pytest.mark.asyncio", ["-o", "asyncio_mode=strict"], id="asyncio-strict"),
        pytest.param("", ["-o", "asyncio_mode=auto"], id="asyncio-auto"),
        pytest.param("@pytest.mark.anyio", ["-p", "no:asyncio"], id="anyio"),
        pytest.param("", ["-p", "no:asyncio"], id="none"),
    ],
)
def test_coroutine_tests_can_use_the_fixture(pytester, mark, arguments):
    backend = 'import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    pytester.makepyfile(COROUTINE.replace("MARK", mark) + backend)
    plugin = PLUGIN[:2]
    result = pytester.runpytest_subprocess(*plugin, "-p", "no:randomly", *arguments)
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--allow-hosts=127.0.0.0/8,::1"], id="hosts"),
        pytest.param(
            ["--disable-socket", "--force-enable-socket"], id="forced", marks=pytest.mark.long
        ),
    ],
)
def test_pytest_socket_works_with_the_documented_settings(run, arguments):
    run(TESTS, *arguments).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("argument", "outcomes"),
    [
        pytest.param("--disable-socket", {"errors": 2}, id="all-sockets"),
        pytest.param("--allow-hosts=127.0.0.1", {"failed": 2}, id="ipv6", marks=pytest.mark.long),
    ],
)
def test_a_call_forbidden_by_pytest_socket_fails_with_the_remedy(run, argument, outcomes):
    result = run(TESTS, argument)
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines(["*--allow-hosts=127.0.0.0/8,::1*"])


@pytest.mark.parametrize(
    "patched", ["", pytest.param("thread=False, select=False", id="few", marks=pytest.mark.long)]
)
def test_gevent_is_an_error_with_the_remedy_and_not_a_skip(pytester, patched):
    pytester.makepyfile(TESTS)
    program = f"from gevent import monkey; monkey.patch_all({patched})\nimport pytest, sys\n"
    words = [*PLUGIN]
    result = pytester.run(sys.executable, "-c", f"{program}sys.exit(pytest.main({words}))")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*gevent has replaced*start the tests that use it without*"])


@pytest.mark.parametrize(
    ("library", "replaces"),
    [
        pytest.param("eventlet", "select.select = fake; del select.epoll", id="select"),
        pytest.param("eventlet", "_thread.start_new_thread = fake", id="threads"),
        pytest.param("httpretty", "socket.socket = Fake", id="sockets"),
    ],
)
def test_a_library_that_replaces_required_functions_is_reported(library, replaces):
    """Otherwise eventlet fails with "no epoll on linux", and httpretty without a message."""
    program = f"""
import _thread, select, socket
from userspace_proxy import Proxy
fake = lambda *_: None
Fake = type("Fake", (), {{}})
fake.__module__ = Fake.__module__ = "{library}.core"
{replaces}
with Proxy.in_thread():
    pass
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert f"where {library} has replaced threads, sockets or select" in ran.stderr
    assert f"before {library} is active" in ran.stderr


def test_a_subclass_of_socket_is_not_a_replacement(monkeypatch):
    class Guarded(socket.socket):
        pass

    monkeypatch.setattr(socket, "socket", Guarded)
    assert replaced_by() == ""


def test_a_library_replacing_file_functions_is_reported(monkeypatch):
    assert files_replaced_by() == ""

    def fake_open():
        """Return nothing."""

    fake_open.__module__ = "pyfakefs.fake_open"
    monkeypatch.setattr("builtins.open", fake_open)
    assert files_replaced_by() == "pyfakefs"


FORBIDDEN = """
import socket, subprocess, sys
import pytest

def forbid(*_):
    raise RuntimeError("not in tests")

@pytest.fixture
def no_network(monkeypatch):
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, forbid)

@pytest.fixture
def no_programs(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", forbid)

COMMAND = [sys.executable, "-m", "http.server", "--bind={host}", "{port}"]
"""
UNDIALLED = """
def test_a_service_runs_and_ends_while_the_test_may_not_connect(service_proxy, no_network):
    web = service_proxy.service("web", backends=[COMMAND, lambda request: "hello"])
    web.backends[1].stop()
"""


def test_blocking_the_network_for_tests_does_not_block_the_kit(pytester):
    """Blockers like pytest-recording's would make commands, and the end of each test, fail."""
    pytester.makepyfile(FORBIDDEN + UNDIALLED)
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


@pytest.mark.netns
def test_a_module_that_replaces_popen_is_named_in_the_error(pytester):
    """Otherwise pytest-subprocess reports that setpriv isn't registered."""
    pytester.makepyfile(
        FORBIDDEN
        + "def test_a_command_backend_is_an_error(no_programs, service_proxy):\n"
        + "    service_proxy.service('web', backends=[COMMAND])\n"
        + "def test_a_network_is_an_error(no_programs, service_network): pass\n"
        + "def test_a_tests_command_fails(no_programs, service_proxy): subprocess.run(COMMAND)\n"
    )
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(failed=2, errors=1)
    said = [line for line in result.outlines if "has replaced subprocess.Popen" in line]
    assert len(said) == 2
    assert all(
        line.startswith("test_a_module_that_replaces_popen_is_named_in_the_error ") for line in said
    )


WITH_IPV6 = """
def test_a_service_has_an_ipv4_address(service_proxy):
    assert service_proxy.service("web").url

def test_a_service_has_an_ipv6_address(service_proxy):
    service_proxy.service("web", cluster_ip="::1")
"""
WITHOUT_IPV6 = "*service proxy: IPv6 is switched off on this machine (sysctl *disable_ipv6=0)*"


@pytest.mark.netns
@pytest.mark.parametrize(
    ("arguments", "outcomes"),
    [
        ((), {"skipped": 1}),
        pytest.param(("--service-proxy-require",), {"failed": 1}, marks=pytest.mark.long),
    ],
)
def test_without_ipv6_a_test_that_requires_it_is_skipped_or_fails_with_the_reason(
    pytester, arguments, outcomes
):
    pytester.makepyfile(WITH_IPV6)
    with contextlib.closing(Net("no-ipv6")) as net:
        net.run("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done")
        with net:
            result = pytester.runpytest_subprocess(*PLUGIN, "-rs", *arguments)
    result.assert_outcomes(passed=1, **outcomes)
    result.stdout.fnmatch_lines([WITHOUT_IPV6])
