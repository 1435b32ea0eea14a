"""Tests of the embedded proxy in programs without an event loop."""

import errno
import inspect
import pydoc
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from userspace_proxy import Proxy
from userspace_proxy.embedding.blocking import BlockingProxy, BlockingService
from userspace_proxy.embedding.embedded_proxy import AddedService, EmbeddedProxy
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import ServiceKey

WEB = ServiceKey("default", "web")
PAGE = Path(__file__).parents[3] / "docs" / "scale-to-zero-for-tcp-and-udp.md"


@pytest.fixture
def one():
    """The address of a server that sends ``one`` to each client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.sendall(b"one")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


def ask(address):
    with socket.create_connection(address, timeout=60) as client:
        return client.recv(100)


def test_observed_connections_are_returned_as_a_list(one):
    with Proxy.in_thread() as proxy:
        web = proxy.add_service("web", port=8080, endpoints=[one])
        with proxy.observe(web.key, failed=True) as failed, proxy.observe() as seen:
            assert ask(web.address) == b"one"
            web.set_endpoints([("127.0.0.1", 1)])
            with pytest.raises(ConnectionResetError):
                ask(web.address)
        assert (len(seen), [str(each.event) for each in failed]) == (2, ["refused"])


def test_the_blocking_proxy_has_the_calls_of_the_proxy_without_await(one):
    with Proxy.in_thread() as proxy:
        web = proxy.add_service("web", port=8080, endpoints=[one])
        assert ask(web.address) == b"one"
        assert proxy.address_of(WEB) == web.address
        assert repr(web) == f"<Service default/web at {web.address}, 1 endpoint>"
        assert repr(proxy) == "<BlockingProxy of <Proxy, 1 Service port>>"
        web.set_endpoints([])
        with pytest.raises(ConnectionRefusedError):
            ask(web.address)
        proxy.settled()
        assert [port.connections for port in proxy.status().ports] == [1]
        web.remove()
        assert proxy.status().ports == ()
        with pytest.raises(LookupError, match="default/web is not served"):
            _ = web.address


def test_leaving_the_block_closes_the_ports_and_stops_the_thread(one):
    before = threading.active_count()
    with Proxy.in_thread() as proxy:
        address = proxy.add_service("web", port=8080, endpoints=[one]).address
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with socket.socket() as client:
        assert client.connect_ex(address) == errno.ECONNREFUSED
    proxy.close()


def test_an_error_at_startup_is_raised_and_stops_the_thread():
    before = threading.active_count()
    with pytest.raises(SteeringError, match="no such steering"), Proxy.in_thread(steering="x"):
        pass
    assert threading.active_count() == before


def test_an_error_at_shutdown_is_raised_and_stops_the_thread():
    async def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    before = threading.active_count()
    with pytest.raises(OSError, match="No space left"), Proxy.in_thread() as proxy:
        proxy._thread.do(lambda: proxy._object.at_end(fail))
    assert threading.active_count() == before


def test_several_threads_can_close_the_blocking_proxy_at_the_same_time():
    def close(proxy, begun):
        begun.wait()
        proxy.close()

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            with Proxy.in_thread() as proxy:
                begun = threading.Barrier(2)
                for closed in [pool.submit(close, proxy, begun) for _ in range(2)]:
                    closed.result(60)


def test_a_function_in_the_proxy_thread_cannot_close_the_proxy():
    with Proxy.in_thread() as proxy:
        with pytest.raises(RuntimeError, match="would wait for itself"):
            proxy._thread.do(proxy.close)
        assert proxy.status().ports == ()


PAIRS = [(BlockingProxy, EmbeddedProxy), (BlockingService, AddedService)]
# The blocking proxy lacks these methods, which are for other parts of the proxy, and start().
OTHERS = {"abandon", "admin_address", "at_end", "has_put"}
OTHERS |= {"is_awaited", "start"}


@pytest.mark.parametrize(("blocking", "embedded"), PAIRS)
def test_each_blocking_call_has_the_proxys_signature_and_docstring(blocking, embedded):
    names = {name for name in dir(embedded) if not name.startswith("_")}
    for name in names - OTHERS:
        call, awaited = getattr(blocking, name), getattr(embedded, name)
        assert not inspect.iscoroutinefunction(call), name
        assert inspect.getdoc(call) == inspect.getdoc(awaited), name
        if not isinstance(awaited, property):
            parameters = inspect.signature(awaited).parameters
            assert inspect.signature(call).parameters == parameters, name


def test_help_shows_the_arguments_and_result_of_a_call():
    shown = " ".join(re.sub("['|]", "", pydoc.plain(pydoc.render_doc(BlockingProxy))).split())
    # The number of lines depends on the version of Python.
    assert re.search(r"add_service\( ?self, name: str, \*, port: int, ", shown)
    assert "-> BlockingService" in shown
    assert "choose_next(self, service: ServiceKey, endpoint: EndpointAddress)" in shown
    assert "Send the next connection of each" in shown


def test_the_documented_program_prints_the_documented_output():
    page = PAGE.read_text()
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    shown = re.search(r"```console\n\$ python zero.py\n(.*?)```", page, re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    seconds = re.compile(r"^\d+ s", re.MULTILINE)
    assert seconds.sub("", done.stdout) == seconds.sub("", shown), done.stderr


def test_a_plain_with_block_raises_an_error_naming_both_alternatives():
    words = r"use `async with Proxy\(…\)`, or `with Proxy.in_thread\(…\)`"
    with pytest.raises(TypeError, match=words), Proxy():
        pass


def test_none_as_the_steering_mode_is_an_error_with_an_example():
    with pytest.raises(TypeError, match="steering: expected a name such as 'none'"):
        Proxy(steering=None)


def test_using_the_proxy_on_an_unsupported_system_raises_an_error_of_one_sentence():
    code = "from tests.unit.other_systems import become; become('darwin'); import userspace_proxy"
    words = [sys.executable, "-c", f"{code}; print('imported'); userspace_proxy.Proxy"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "imported\n"
    assert done.stderr.splitlines()[-1] == (
        "userspace_proxy.errors.PlatformError: userspace-proxy runs on Linux only: "
        "Python on darwin has no epoll (use a Linux container, a virtual machine or WSL)"
    )
