"""A node works without uvloop, as on machines for which uvloop has no wheel."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from .clones import run
from .installed import backend, install_node, serving

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_node(tmp_path_factory.mktemp("node"), without={"uvloop"})


def test_agent_and_worker_serve_on_asyncio_and_log_their_event_loop(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
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
