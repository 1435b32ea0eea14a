"""Fixtures for event loops, a network namespace and a fake API server; coverage by module."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.netns import Net
from userspace_proxy.loops import LoopFactory
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy_testing.fakes.api_server import FakeApiServer

_MEASURED = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if "coverage" not in sys.modules:
        return
    from coverage import Coverage

    measured, module = Coverage.current(), item.path.relative_to(item.config.rootpath).as_posix()
    # Each switch writes to a database, so the context is switched only between modules.
    if measured is not None and module != item.config.stash.get(_MEASURED, ""):
        item.config.stash[_MEASURED] = module
        measured.switch_context(module)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """A network namespace that the test's thread has entered."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    net = Net("node")
    with net:
        yield net
    net.close()


@pytest.fixture
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial fakes directly, and skip the machine's certificates, which take 56 ms to load."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/dev/null")


@pytest.fixture
async def api(nothing_of_this_machine: None) -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as api:
        yield api


@pytest.fixture
async def client(api: FakeApiServer) -> AsyncIterator[ApiClient]:
    client = ApiClient(Credentials(master=api.url))
    await client.open()
    yield client
    await client.close()


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
IN_BOTH_LOOPS = [
    pytest.mark.asyncio(loop_factories=tuple(LOOPS)),
    pytest.mark.timeout(60),
]
"""The marks of a module whose tests run in both kinds of event loop."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """Run unmarked tests only in asyncio's loop, without the loop's name in their ids."""
    marker = item.get_closest_marker("asyncio")
    is_in_both = marker is not None and "loop_factories" in marker.kwargs
    return LOOPS if is_in_both else {"default": asyncio.new_event_loop}


@pytest.fixture(params=LOOPS.values(), ids=LOOPS)
def run(request):
    """Return a function that runs a coroutine, for each kind of event loop."""

    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 60))

    return run


@pytest.fixture
def clean_logging() -> Iterator[None]:
    """Restore the handlers and levels that existed before the test."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    names = ("", "userspace_proxy", "userspace_proxy.connections")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
