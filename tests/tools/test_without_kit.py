"""A node works where only its own wheel is installed: nothing on a node needs the test kit.

virtual environment: requirements.lock, the wheel of userspace-proxy ── run, status, explain
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from .wheels import ROOT, build, run

pytestmark = pytest.mark.long

PAGE = "127.0.0.7:10249"
"""Only this process and its children use its network namespace."""
MANIFESTS = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.7.1, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [127.0.0.1]}]
"""


def link_locked_packages(site: Path) -> None:
    """Install what requirements.lock names, as links to what is installed here."""
    for name in re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            # For another platform.
            continue
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "bin")}
        for top in tops - {"__pycache__"}:
            (site / top).symlink_to(Path(str(found.locate_file(top))))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the node's wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("node")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    (site,) = folder.glob("lib/python3*/site-packages")
    link_locked_packages(site)
    wheel = build("wheel", tmp_path_factory.mktemp("wheel"))
    pip = [sys.executable, "-m", "pip", f"--python={python}", "--disable-pip-version-check"]
    run([*pip, "install", "--no-index", "--no-deps", str(wheel)])
    return folder / "bin/userspace-proxy"


@pytest.fixture(autouse=True)
def only_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no program see the packages of a checkout."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture
def backend() -> Iterator[int]:
    """The port of a server that answers one client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"one")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]


@pytest.fixture
def served(program: Path, backend: int, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of a Service that an agent of that environment serves."""
    manifests = tmp_path / "services.yaml"
    manifests.write_text(MANIFESTS % backend)
    command = [
        str(program), "run", f"--manifests={manifests}", "--steering=none", "--workers=1",
        "--state-dir=disabled", "--healthz-bind-address=disabled",
        f"--metrics-bind-address={PAGE}", "--print-addresses=json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout is not None, "a pipe"
            line = json.loads(agent.stdout.readline())
            host, _, port = line["address"].rpartition(":")
            yield host, int(port)
        finally:
            agent.send_signal(signal.SIGTERM)
    assert agent.returncode == 0


def test_the_kit_is_not_there(program: Path) -> None:
    code = "import importlib.util as u; print(u.find_spec('userspace_proxy_testing'))"
    assert run([str(program.with_name("python")), "-c", code], Path("/")) == "None\n"


def test_a_worker_carries_connections_the_page_answers_and_explain_works(
    program: Path, served: tuple[str, int]
) -> None:
    with socket.create_connection(served, timeout=60) as client:
        assert client.recv(100) == b"one"
    asked = Request(f"http://{PAGE}/", headers={"Accept": "text/html"})
    assert "<html" in urlopen(asked).read().decode()
    assert "shop/web" in run([str(program), "status", f"--server={PAGE}"], Path("/"))
    explained = run([str(program), "explain", "shop/web", f"--server={PAGE}"], Path("/"))
    assert "shop/web" in explained


@pytest.mark.parametrize("command", ["demo", "sandbox"])
def test_a_command_of_the_kit_says_in_one_line_what_to_install(command: str, program: Path) -> None:
    done = subprocess.run([program, command], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {command} is a command of pytest-userspace-proxy, which isn't installed "
        "(in a checkout: pip install . ./pytest-userspace-proxy)\n"
    )


@pytest.mark.parametrize("words", [["help"], ["man"], ["completion", "bash"]])
def test_help_manual_page_and_completion_show_only_the_nodes_commands(
    words: list[str], program: Path
) -> None:
    shown = run([str(program), *words], Path("/"))
    assert "explain" in shown
    assert "sandbox" not in shown
