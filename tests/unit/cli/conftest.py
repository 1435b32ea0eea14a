"""Replaces the functions behind commands, and serves views and a cluster to commands."""

import contextlib
import io
import sys
from types import ModuleType

import pytest

from tests.unit.cli.nodes_world import cluster_at
from tests.unit.status.views import NOW
from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.status.server import StatusServer


@pytest.fixture
def substitutes(monkeypatch):
    """Return a function that replaces what commands call, and returns a list of the calls."""
    calls = []

    def substitute(module, function, outcome):
        def called(*args):
            calls.append((function, *args))
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        replacement = ModuleType(module)
        setattr(replacement, function, called)
        monkeypatch.setitem(sys.modules, module, replacement)

    def set_outcome(outcome=0):
        substitute("userspace_proxy.agent.run", "run_agent", outcome)
        substitute("userspace_proxy.agent.cleanup", "cleanup", outcome)
        substitute("userspace_proxy_testing.commands.demo", "demo", outcome)
        return calls

    return set_outcome


@pytest.fixture
def serve_view():
    """Yield a function that serves a view on loopback and returns its flag ``--server=…``."""
    with contextlib.ExitStack() as stack:
        yield lambda view: f"--server=127.0.0.1:{stack.enter_context(_serving(view))}"


@pytest.fixture
async def cluster(monkeypatch, tmp_path):
    """A cluster without nodes."""
    monkeypatch.setenv("NO_PROXY", "*")
    async with cluster_at(tmp_path / "kubeconfig") as cluster:
        yield cluster


class Terminal(io.StringIO):
    """An output stream that claims to be a terminal."""

    def isatty(self):
        return True


@contextlib.contextmanager
def _serving(view):
    """Serve a view, or a function's result for each request; yield the port."""
    server = StatusServer(view if callable(view) else lambda: view, clock=lambda: NOW)
    thread = LoopThread()
    thread.start()
    with contextlib.closing(thread):
        _, port = thread.call(server.serve_admin(("127.0.0.1", 0)))
        try:
            yield port
        finally:
            thread.call(server.close())
