import asyncio
import contextlib
import json
import socket
import sys
import threading
from urllib.request import urlopen

import pytest

from tests.unit.dataplane.waiting import until
from tests.unit.port_numbers import free_port
from tests.unit.status.views import NOW, make_calm_view
from userspace_proxy.cli import main
from userspace_proxy.cli.admin import AdminAddress
from userspace_proxy.cli.command import Given
from userspace_proxy.cli.observe import _lines, _show, observe
from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.status import stream
from userspace_proxy.status.observing import Observing
from userspace_proxy.status.server import StatusServer

from .conftest import Terminal
from .nodes_world import ENDED, POD


class Stopped(Exception):
    """Raised when the first stream ends, to stop the command."""


@pytest.fixture
def proxy():
    """The port of a proxy that sends one connection and stops, and the filters of its observer."""
    filters, serving = [], []
    observing = Observing()
    server = StatusServer(make_calm_view, clock=lambda: NOW, observing=observing)

    async def serve():
        await observing.is_on.wait()
        filters.extend(observing.filters())
        observing.deliver([ENDED])
        (watcher,) = observing._watchers
        await until(lambda: not watcher._ring, "the stream has taken it, and so written it")
        await server.close()

    thread = LoopThread()
    thread.start()
    with contextlib.closing(thread):
        _, port = thread.call(server.serve_admin(("127.0.0.1", 0)))
        thread.do(lambda: serving.append(asyncio.create_task(serve())))
        try:
            yield port, filters
        finally:
            thread.call(server.close())


def watch(port, *arguments, **values):
    """Observe until the proxy stops."""

    def stop(_seconds):
        raise Stopped

    given = Given({"server": f"127.0.0.1:{port}", **values}, arguments)
    with pytest.raises(Stopped):
        observe(given, wait=stop)


def test_a_connection_is_printed_as_one_line(proxy, capsys):
    port, _ = proxy
    watch(port)
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert line.startswith("  ✓ ")
    assert f" {POD} → shop/web:http → 10.244.0.3:8080: 78 B in, " in line
    assert line.endswith("; complete, by the client, after 3.1 s")
    assert err == f"127.0.0.1:{port} has closed the connection; trying again\n"


def test_a_json_record_contains_the_clients_pod(proxy, capsys):
    watch(proxy[0], output="json")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["client_pod"] == POD


def test_lines_fit_an_80_column_terminal_with_colours(proxy, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    watch(proxy[0])
    first, *rest = terminal.getvalue().splitlines()
    assert first.startswith("  \x1b[32m✓\x1b[0m ")
    assert rest
    assert all(line.startswith(" " * 17) and len(line) <= 80 for line in rest)


def test_the_proxy_receives_the_requested_filter(proxy):
    port, filters = proxy
    watch(port, "shop/web", failed="true", slow="1s", **{"from": "10.244.0.7"})
    (wanted,) = filters
    assert (wanted.service, wanted.client) == ("shop/web", "10.244.0.7")
    assert (wanted.failed, wanted.saved, wanted.slow_s) == (True, False, 1.0)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--from=10.244.0"], "error: --from: '10.244.0' is not an IP address\n"),
        (["--slow=1"], "error: --slow: '1' has no unit (write 1s)\n"),
        (
            ["--slow=abc"],
            "error: --slow: 'abc' is not a duration (write 30s, 250ms or 1m30s)\n",
        ),
    ],
)
def test_an_invalid_value_is_a_usage_error(words, error, capsys):
    assert main(["observe", *words]) == 2
    assert capsys.readouterr().err == error


def test_an_unreachable_proxy_is_reported_in_one_line_with_status_1(capsys):
    assert main(["observe", f"--server=:{free_port()}"]) == 1
    assert capsys.readouterr().err.startswith("error: no userspace-proxy answers at 127.0.0.1:")


def test_a_proxy_with_too_many_readers_is_reported_in_one_line(serve_view, capsys, monkeypatch):
    monkeypatch.setattr(stream, "MAX_STREAMS", 1)
    server = serve_view(make_calm_view())
    with urlopen(f"http://{server.partition('=')[2]}/api/v1/connections?watch") as other:
        assert other.readline() == b"\n"
        assert main(["observe", server]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot watch connections at 127.0.0.1:")
    assert error.endswith(": 1 pages are open already; close one of them.\n")


def test_a_connection_line_cut_off_by_the_end_of_the_stream_is_not_shown():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"event":"ended"}\n{"cause":"\xc3')

        thread = threading.Thread(target=serve)
        thread.start()
        lines = list(_lines(AdminAddress(*listener.getsockname()), {}))
        thread.join()
    assert lines == [b'{"event":"ended"}']


def test_an_unknown_record_of_a_newer_proxy_is_not_shown_as_text(capsys):
    _show(b'{"event":"new"}', sys.stdout, is_json=False)
    assert capsys.readouterr().out == ""
