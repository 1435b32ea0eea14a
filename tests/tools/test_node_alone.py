"""A node works with only its own wheel.

virtual environment: requirements.lock, the wheel of userspace-proxy ── run, status, explain
"""

from __future__ import annotations

import socket
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


@pytest.mark.parametrize("words", [["help"], ["man"], ["completion", "bash"]], ids="-".join)
def test_help_manual_page_and_completion_show_only_the_nodes_commands(
    words: list[str], program: Path
) -> None:
    shown = run([str(program), *words], Path("/"))
    assert "explain" in shown
    assert [name for name in ("dashboard", "sandbox") if name in shown] == []


def test_agent_and_worker_serve_on_asyncio_and_log_their_event_loop(tmp_path: Path) -> None:
    """For some machines, uvloop has no wheel. This test's folders aren't named after it."""
    program = install_node(tmp_path / "node", without={"uvloop"})
    code = "import importlib.util as u; print(u.find_spec('uvloop'))"
    assert run([str(program.with_name("python")), "-c", code], Path("/")) == "None\n"
    with (
        backend() as port,
        serving(program, port, tmp_path) as served,
        socket.create_connection(served.address, timeout=60) as client,
    ):
        assert client.recv(100) == b"one"
    log = served.log.read_text()
    assert log.count("uvloop") == 1
    assert " INFO uvloop is not installed, using asyncio's event loop\n" in log
