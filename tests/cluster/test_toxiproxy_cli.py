"""toxiproxy's own client in Go controls Services of a test: each of its commands, with traffic."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.cluster.tools import TOXIPROXY_CLI, path_of
from userspace_proxy_testing.service_proxy import ServiceProxy

pytestmark = pytest.mark.cluster

Run = Callable[..., str]


@pytest.fixture
def proxy() -> Iterator[ServiceProxy]:
    with ServiceProxy() as proxy:
        yield proxy


@pytest.fixture
def upstream(proxy: ServiceProxy) -> str:
    """The address of a server that answers ``origin-1``."""
    return str(proxy.service("origin").backends[0].address)


@pytest.fixture
def toxiproxy_cli() -> Path:
    path = path_of(TOXIPROXY_CLI)
    if not path.is_file():
        pytest.skip("no toxiproxy-cli (run: make build)")
    return path


@pytest.fixture
def cli(proxy: ServiceProxy, toxiproxy_cli: Path) -> Run:
    """Run a command of the client, and return what it prints."""
    host, port = proxy.serve_toxiproxy(("127.0.0.1", 0))

    def run(*words: str, fails: bool = False) -> str:
        command = [str(toxiproxy_cli), "--host", f"http://{host}:{port}", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        printed = done.stdout + done.stderr
        assert bool(done.returncode) is fails, printed
        return printed.strip()

    return run


def listen_of(cli: Run, name: str) -> str:
    """Return where a proxy listens, from the second column of the list."""
    (line,) = (line for line in cli("list").splitlines() if line.startswith(f"{name}\t"))
    return line.split("\t")[1]


def fetch(address: str) -> bytes:
    """Fetch a page through a proxy."""
    with urlopen(f"http://{address}/", timeout=60) as answer:
        return bytes(answer.read())


def test_proxies_are_created_listed_toggled_and_deleted(cli: Run, upstream: str) -> None:
    assert cli("create", "--listen", "localhost:0", "--upstream", upstream, "db") == (
        "Created new proxy db"
    )
    assert cli("create", "-l", "localhost:0", "-u", upstream, "db", fails=True).startswith(
        "Failed to create proxy: Create: HTTP 409: proxy already exists"
    )
    address = listen_of(cli, "db")
    assert cli("list") == f"db\t{address}\t{upstream}\tenabled\t0"
    assert fetch(address) == b"origin-1\n"
    assert cli("toggle", "db") == "Proxy db is now disabled"
    with pytest.raises(OSError, match="refused"):
        fetch(address)
    assert cli("toggle", "db") == "Proxy db is now enabled"
    assert fetch(address) == b"origin-1\n"
    assert cli("delete", "db") == "Deleted proxy db"
    assert cli("list") == ""
    assert "HTTP 404: proxy not found" in cli("inspect", "db", fails=True)


def test_toxics_are_added_updated_and_removed(cli: Run, upstream: str) -> None:
    cli("create", "-l", "localhost:0", "-u", upstream, "db")
    address = listen_of(cli, "db")
    assert cli("toxic", "add", "-t", "latency", "-a", "latency=1", "-a", "jitter=0", "db") == (
        "Added downstream latency toxic 'latency_downstream' on proxy 'db'"
    )
    update = ("toxic", "update", "-n", "latency_downstream", "-a", "latency=80", "db")
    assert cli(*update) == "Updated toxic 'latency_downstream' on proxy 'db'"
    began = time.monotonic()
    assert fetch(address) == b"origin-1\n"
    assert time.monotonic() - began >= 0.08
    add = ("toxic", "add", "-t", "reset_peer", "-n", "cut", "--upstream", "-a", "timeout=0", "db")
    assert cli(*add) == "Added upstream reset_peer toxic 'cut' on proxy 'db'"
    shown = cli("inspect", "db")
    assert "latency_downstream\ttype=latency\tstream=downstream\ttoxicity=1.00" in shown
    assert "cut\ttype=reset_peer\tstream=upstream\ttoxicity=1.00" in shown
    with pytest.raises(OSError, match="reset by peer"):
        fetch(address)
    assert cli("toxic", "remove", "-n", "cut", "db") == "Removed toxic 'cut' on proxy 'db'"
    assert fetch(address) == b"origin-1\n"
    assert "HTTP 404: toxic not found" in cli("toxic", "remove", "-n", "cut", "db", fails=True)
    wrong = cli("toxic", "add", "-t", "latancy", "db", fails=True)
    assert "HTTP 400: there is no toxic 'latancy' (did you mean latency?)" in wrong
