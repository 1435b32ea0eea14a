"""Tests of commands and pytest in processes that imitate Python on macOS and Windows."""

import asyncio
import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from yarl import URL

from tests.unit.cli.nodes_world import cluster_at
from tests.unit.nodes.dashboard.names import browsing
from tests.unit.other_systems import SYSTEMS
from tests.unit.sources.kubernetes import certificates
from tests.unit.sources.kubernetes.objects import endpoint_slice, service
from userspace_proxy import Options, Proxy
from userspace_proxy.cli import main
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy_kubectl.cli.table import FORWARD
from userspace_proxy_testing.fakes.agent_answers import FakeAgent
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of
from userspace_proxy_testing.fakes.agents import FakeAgents
from userspace_proxy_testing.fakes.api_server import FakeApiServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "manifests"
BECOME = "import sys; from tests.unit.other_systems import become; become({system!r}); "
LIMITS = """
class Resource:
    RLIMIT_NOFILE, soft = 8, 256

    def getrlimit(what):
        return Resource.soft, 2**63 - 1

    def setrlimit(what, limits):
        if limits[0] > 24_576:
            raise ValueError
        Resource.soft = limits[0]

if sys.platform == "darwin":
    sys.modules["resource"] = Resource
from userspace_proxy.linux import raise_descriptor_limit
raise_descriptor_limit()
print(Resource.soft)
"""
COMMAND = "from userspace_proxy.cli import main; sys.exit(main())"
ALL = (
    "from userspace_proxy.cli import main; "
    "[print(end=f'\\f{main(words.split())}\\f') for words in sys.argv[1:]]"
)
HINT = "(use a Linux container, a virtual machine or WSL)"

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.parametrize("system", SYSTEMS)


@pytest.fixture(autouse=True)
def same_start(monkeypatch):
    """Set the program name, which commands print, to the name that :func:`python` uses."""
    monkeypatch.setattr(sys, "argv", ["-c"])


def python(system, code, *words, **environment):
    """Run code in a Python process that imitates another system; return the ended process."""
    command = [sys.executable, "-c", BECOME.format(system=system) + code, *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


async def run(system, *commands, **environment):
    """Run commands in one process; return the exit status and output of each."""
    done = await asyncio.to_thread(python, system, ALL, *commands, **environment)
    assert done.stderr == ""
    parts = done.stdout.split("\f")
    return [(int(status), out) for out, status in zip(parts[::2], parts[1::2], strict=False)]


def run_here(capsys, *commands):
    return [(main(words.split()), capsys.readouterr().out) for words in commands]


def test_the_open_file_limit_is_raised_as_far_as_the_system_allows(system):
    done = python(system, LIMITS)
    assert (done.stdout.strip(), done.stderr) == ("10240" if system == "darwin" else "256", "")


@pytest.fixture
async def running():
    """Run an embedded proxy with a Service; yield its flag ``--server=…``."""
    async with Proxy(options=Options(admin=("127.0.0.1", 0))) as proxy:
        await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        ip, port = proxy.admin_address
        yield f"--server={ip}:{port}"


@pytest.fixture
def kubeconfig(tmp_path):
    """Return a function that writes a kubeconfig with a certificate and a user."""

    def write(url, **user):
        authority = base64.b64encode(certificates.API_TEST.encode()).decode()
        cluster = {
            "server": url,
            "certificate-authority-data": authority,
            "tls-server-name": "api.test",
        }
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
        }
        (tmp_path / "config").write_text(json.dumps(content))
        return f"--kubeconfig={tmp_path / 'config'}"

    return write


PRINTING = (
    *("help", "help run", "explain --help", "--help", "man", "--version", "run --version"),
    *("completion bash", "completion zsh", "completion fish"),
)


async def test_commands_that_only_print_work_the_same_on_other_platforms(system, capsys):
    here = run_here(capsys, *PRINTING)
    assert {status for status, _ in here} == {0}
    assert await run(system, *PRINTING) == here


def test_commands_requiring_linux_fail_with_one_line(system):
    commands = (*COMMANDS.values(), FORWARD)
    names = [command.name for command in commands if not command.runs_anywhere]
    assert {"run", "forward", "check", "cleanup"} <= {*names}
    done = python(system, ALL, "--manifests=.", *names)
    lines = [
        f"error: {name} needs Linux: Python on {system} has no epoll {HINT}"
        for name in ("run", *names)
    ]
    assert done.stderr.splitlines() == lines
    assert done.stdout == "\f2\f" * len(lines)


async def test_explain_reads_manifests_and_dials_on_every_platform(system, capsys):
    given = f"--manifests={EXAMPLES} --hostname-override=node-1"
    commands = [
        f"explain shop/web {given}",
        f"explain shop/api -o json --from=192.0.2.1 {given}",
    ]
    dials = f"explain shop/web --manifests={EXAMPLES} --probe"
    *read, (status, out) = await run(system, *commands, dials)
    assert read == run_here(capsys, *commands)
    assert status == 3
    assert "127.0.0.1:8081" in out


async def test_commands_query_a_running_proxy_on_every_platform(system, running):
    commands = "status", "status web -o json", "explain web", "top"
    found = await run(system, *(f"{words} {running}" for words in commands))
    assert [status for status, _ in found] == [0] * len(commands)
    status, as_json, explained, top = (out for _, out in found)
    assert "default/web" in status
    assert [port["service"] for port in json.loads(as_json)["ports"]] == ["web"]
    assert explained.splitlines()[0].startswith("default/web, from the proxy at 127.0.0.1:")
    assert "default/web" in top


def test_errors_are_reported_in_one_line_on_every_platform(system):
    done = python(system, COMMAND, "status", "--server=127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no userspace-proxy answers at 127.0.0.1:1: ")
    assert done.stderr.count("\n") == 1


# Windows reads pipes of child processes differently, so only darwin runs a credential plugin.
VERSION = "client.authentication.k8s.io/v1beta1"
PLUGINS = {
    "darwin": {"exec": {"apiVersion": VERSION, "command": "./plugin"}},
    "win32": {"token": "secret"},
}
PLUGIN = f"""\
#!/bin/sh
echo '{{"apiVersion": "{VERSION}", "status": {{"token": "secret"}}}}'
"""


@pytest.fixture
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "crt").write_text(certificates.API_TEST)
    (folder / "key").write_text(certificates.API_TEST_KEY)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


async def test_explain_reads_a_cluster_on_every_platform(system, kubeconfig, tls, tmp_path, capsys):
    (tmp_path / "plugin").write_text(PLUGIN)
    (tmp_path / "plugin").chmod(0o755)
    async with FakeApiServer(token="secret", tls=tls) as api:
        objects = (service(), endpoint_slice())
        for item in objects:
            api.put(item)
        FakeAgents(api).add("node-1", FakeAgent(status_of(objects, "node-1")))
        commands = "explain web --pods", "nodes", "status -A", "top -A", "status web -o json"
        given = kubeconfig(api.url, **PLUGINS[system])
        commands = [f"{words} {given}" for words in commands]
        (here,) = await asyncio.to_thread(run_here, capsys, commands[0])
        assert here[1].startswith(f"default/web, from {api.url}\n")
        assert "the node answered" in here[1]
        there, *others = await run(system, *commands, TMPDIR=str(tmp_path))
        assert there == here
        assert len(others) == 4
        assert all("node-1" in out or "default/web" in out for _, out in others)
    # The command has removed its temporary file with the certificate.
    assert {path.name for path in tmp_path.iterdir()} == {"config", "plugin"}


async def test_report_writes_an_archive_on_every_platform(system, kubeconfig, tmp_path):
    path = tmp_path / "a.tar.gz"
    async with FakeApiServer() as api:
        answer = FakeAgent(status_of(service_objects(1), "node-1"))
        FakeAgents(api).add("node-1", answer, log="started\n")
        words = f"report --anonymous --file={path} {kubeconfig(api.url)}"
        ((status, out),) = await run(system, words, NO_PROXY="*")
    assert (status, out.count("missing")) == (0, 0)
    with tarfile.open(path) as archive:
        assert {"a/README.txt", "a/nodes.txt"} <= {*archive.getnames()}


LOADED = ("-p", "userspace_proxy_testing.plugin", "-p", "no:cacheprovider")
# Other pytest plugins may import modules that the system lacks.
PYTEST = f"""
import os, sys
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
sys.path.insert(0, {str(ROOT)!r})
from tests.unit.other_systems import become
become(sys.argv[1])
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""
FILES = {
    "test_it": "def test_it(service_proxy): pass\ndef test_its_network(service_network): pass",
    "test_importing": "import userspace_proxy_testing.backends\ndef test_it(service_proxy): pass",
    "test_other": "def test_it(): pass",
}
NEEDS_LINUX = "userspace-proxy runs on Linux only: Python on {} has no epoll (use a Linux *"


@pytest.fixture
def run_pytest(pytester):
    """Return a function that runs test files in a Python process imitating another system."""

    def run(system, *arguments, **files):
        pytester.makepyfile(**files)
        return pytester.run(sys.executable, "-c", PYTEST, system, *LOADED, *arguments)

    return run


def test_pytest_states_at_collection_why_tests_of_the_proxy_are_skipped(system, run_pytest):
    result = run_pytest(system, "-rs", **FILES)
    result.assert_outcomes(passed=1, skipped=3)
    why = NEEDS_LINUX.format(system)
    line = f"service proxy: tests that need it are skipped: {why}"
    result.stdout.fnmatch_lines(["collected 3 items / 1 skipped", line], consecutive=True)
    result.stdout.fnmatch_lines_random([f"SKIPPED*service_proxy: {why}", f"SKIPPED*py:0: {why}"])


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--service-proxy-require"], id="option"),
        pytest.param(["-o", "service_proxy_require=true"], id="ini"),
    ],
)
def test_a_pytest_flag_turns_skips_into_collection_errors(system, arguments, run_pytest):
    result = run_pytest(system, *arguments, **FILES)
    result.assert_outcomes(errors=2)
    why = NEEDS_LINUX.format(system)
    for lines in (
        ["*ERROR collecting test_it.py*", f"service_network, service_proxy: {why}"],
        ["*ERROR collecting test_importing.py*", why],
    ):
        result.stdout.fnmatch_lines(lines, consecutive=True)
    result.stdout.no_fnmatch_line("*are skipped*")


def test_a_pytest_run_without_tests_of_the_proxy_passes(system, run_pytest):
    result = run_pytest(system, "--service-proxy-require", test_it=FILES["test_other"])
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*Linux*")


async def test_the_dashboard_of_all_nodes_is_served_on_every_platform(system, tmp_path):
    async with cluster_at(tmp_path / "config") as cluster:
        cluster.add("node-1")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BECOME.format(system=system) + COMMAND),
            *("dashboard", "--no-open", cluster.kubeconfig),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            address = (await process.stdout.readline()).decode().split()[-1]
            async with browsing() as session:
                for path in (address, "/services/shop/web", "/map", "/static/dashboard.css"):
                    async with session.get(URL(address).join(URL(path))) as response:
                        assert response.status == 200
        finally:
            process.send_signal(signal.SIGINT)
            _, complaints = await process.communicate()
        assert (process.returncode, complaints) == (0, b"")
