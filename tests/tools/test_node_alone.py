"""A node works with only its own wheel: nothing on a node needs another wheel.

virtual environment: requirements.lock, the wheel of userspace-proxy ── run, status, explain
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from .clones import run
from .installed import PAGE, backend, install_node, serving

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment with the node's wheel and its dependencies."""
    return install_node(tmp_path_factory.mktemp("node"))


@pytest.fixture(autouse=True)
def only_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a checkout's packages from all programs."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.mark.parametrize("package", ["userspace_proxy_kubectl", "userspace_proxy_testing"])
def test_the_node_distribution_installs_no_other_package(package: str, program: Path) -> None:
    code = f"import importlib.util as u; print(u.find_spec({package!r}))"
    assert run([str(program.with_name("python")), "-c", code], Path("/")) == "None\n"
    assert not program.with_name("kubectl-userspace_proxy").exists()


def test_the_node_distribution_proxies_connections_and_serves_status_and_explain(
    program: Path, tmp_path: Path
) -> None:
    with backend() as port, serving(program, port, tmp_path) as served:
        with socket.create_connection(served.address, timeout=60) as client:
            assert client.recv(100) == b"one"
        asked = Request(f"http://{PAGE}/", headers={"Accept": "text/html"})
        assert "<html" in urlopen(asked).read().decode()
        assert "shop/web" in run([str(program), "status", f"--server={PAGE}"], Path("/"))
        explained = run([str(program), "explain", "shop/web", f"--server={PAGE}"], Path("/"))
        assert "shop/web" in explained


@pytest.mark.parametrize(
    ("words", "what", "distribution"),
    [
        (["demo"], "demo is a command", "pytest-userspace-proxy"),
        (["dashboard"], "dashboard is a command", "kubectl-userspace-proxy"),
        (["status", "--node=a"], "status of all nodes is a part", "kubectl-userspace-proxy"),
    ],
)
def test_a_command_of_an_uninstalled_distribution_fails_with_one_line(
    words: list[str], what: str, distribution: str, program: Path
) -> None:
    done = subprocess.run([program, *words], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {what} of {distribution}, which isn't installed "
        f"(in a checkout: pip install . ./{distribution})\n"
    )


@pytest.mark.parametrize("words", [["help"], ["man"], ["completion", "bash"]])
def test_help_manual_page_and_completion_show_only_the_nodes_commands(
    words: list[str], program: Path
) -> None:
    shown = run([str(program), *words], Path("/"))
    assert "explain" in shown
    assert [name for name in ("dashboard", "sandbox") if name in shown] == []
