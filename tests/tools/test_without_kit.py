"""A node works where only its own wheel is installed: nothing on a node needs the test kit.

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
    """The command of an environment that has the node's wheel and what it depends on."""
    return install_node(tmp_path_factory.mktemp("node"))


@pytest.fixture(autouse=True)
def only_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no program see the packages of a checkout."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


def test_the_kit_is_not_there(program: Path) -> None:
    code = "import importlib.util as u; print(u.find_spec('userspace_proxy_testing'))"
    assert run([str(program.with_name("python")), "-c", code], Path("/")) == "None\n"


def test_a_worker_carries_connections_the_page_answers_and_explain_works(
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
