"""Services for tests, as a test author uses them."""

import doctest
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.error import HTTPError

import pytest

from userspace_proxy_testing.backends import echo
from userspace_proxy_testing.service_proxy import ServiceProxy

from .clusters import get, refuses


def test_backends_of_a_service_take_turns(proxy):
    web = proxy.service("web", backends=2)
    assert [get(web) for _ in range(4)] == ["web-1", "web-2", "web-1", "web-2"]
    assert (web.host, web.port) == web.address
    assert web.url == f"http://{web.address}"
    assert proxy.services == (web,)


def test_random_choices_repeat_with_the_same_seed(proxy):
    def chosen(seed):
        web = proxy.service("web", backends=3, balance="random", seed=seed)
        return [get(web) for _ in range(12)]

    first = chosen(7)
    assert set(first) == {"web-1", "web-2", "web-3"}
    assert chosen(7) == first
    assert chosen(8) != first


def test_draining_a_backend_does_not_restart_round_robin(proxy):
    web = proxy.service("web", backends=3, seed=2)
    assert get(web) == "web-3"
    web.drain(web.backends[0])
    assert [get(web) for _ in range(4)] == ["web-3", "web-2", "web-3", "web-2"]


def test_a_dead_backend_fails_no_request_and_its_connections_are_counted_as_saved(proxy):
    web = proxy.service("web", backends=2)
    web.backends[0].stop()
    assert [get(web) for _ in range(3)] == ["web-2"] * 3
    assert web.stats.saved == 1
    assert web.stats["web-1"].failures == 1
    assert web.stats["web-2"].connections == 3


def test_a_function_may_block_and_call_another_service_and_the_proxy(proxy):
    db = proxy.service("db", backends=[lambda request: "data"])
    front = proxy.service("front", backends=[lambda request: f"{get(db)} {db.stats.connections}"])
    assert get(front) == "data 1"


def test_a_hanging_function_does_not_block_other_services(proxy):
    began, may_end = threading.Event(), threading.Event()

    def hang(request):
        began.set()
        may_end.wait(60)
        return "late"

    web, other = proxy.service("web", backends=[hang]), proxy.service("other")
    with socket.create_connection(web.address) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert began.wait(60)
        assert get(other) == "other-1"
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    may_end.set()


def test_the_text_of_stats_lists_counters_and_endpoints(proxy):
    web = proxy.service("web")
    get(web)
    web.eventually(lambda web: web.stats.active == 0)
    assert repr(web.stats) == (
        "<default/web: 1 connection, 0 open, 0 saved, 0 failed dials, 0 refused; "
        "web-1: 1 connection, 0 failed dials; Served by 1 endpoint>"
    )


def test_clients_refused_by_the_kernel_are_not_counted_as_refused_by_the_proxy(proxy):
    none, stopped = proxy.service("none", backends=0), proxy.service("stopped")
    stopped.backends[0].stop()
    assert refuses(none.address)
    with pytest.raises(OSError, match="reset by peer"):
        get(stopped)
    assert (none.stats.refused, stopped.stats.refused) == (0, 1)


def test_a_draining_backend_serves_its_open_connections_but_no_new_clients(proxy):
    web = proxy.service("web", backends=[echo, echo])
    with socket.create_connection(web.address, timeout=60) as open_one:
        open_one.sendall(b"a")
        assert open_one.recv(1) == b"a"
        web.drain(web.backends[0])
        for _ in range(3):
            with socket.create_connection(web.address, timeout=60) as client:
                client.sendall(b"b")
                assert client.recv(1) == b"b"
        assert web.stats["web-1"].connections == 1
        open_one.sendall(b"c")
        assert open_one.recv(1) == b"c"
    web.undrain(web.backends[0])
    with socket.create_connection(web.address, timeout=60), socket.create_connection(web.address):
        web.eventually(lambda web: web.stats["web-1"].connections == 2)


def test_the_endpoints_of_a_service_can_be_assigned(proxy):
    web = proxy.service("web", backends=2)
    web.endpoints = [web.backends[1].address]
    assert [get(web) for _ in range(2)] == ["web-2"] * 2
    assert web.endpoints == [web.backends[1].address]
    web.endpoints = []
    assert refuses(web.address)


def test_a_test_can_choose_the_next_connections_endpoint(proxy):
    web = proxy.service("web", backends=3)
    web.next_endpoint = web.backends[2]
    assert [get(web) for _ in range(3)] == ["web-3", "web-1", "web-2"]
    web.next_endpoint = web.backends[0].address
    assert [get(web) for _ in range(2)] == ["web-1", "web-3"]
    with pytest.raises(LookupError, match="has no endpoint"):
        web.next_endpoint = "127.0.0.1:1"


@pytest.mark.parametrize("method", ["names", "resolver"])
def test_resolving_names_in_a_namespace_without_services_is_an_error(proxy, method):
    with pytest.raises(LookupError, match="no Service is in namespace nope: there is no Service"):
        getattr(proxy, method)("nope")
    proxy.service("web", namespace="shop")
    proxy.service("db", namespace="data")
    with pytest.raises(LookupError, match="in namespace nope: Services are in data, shop"):
        getattr(proxy, method)("nope")
    with pytest.raises(ValueError, match="namespace: 'Nope' is not a DNS label"):
        getattr(proxy, method)("Nope")
    getattr(proxy, method)()
    getattr(proxy, method)("shop")


def test_a_fault_at_an_unknown_endpoint_is_an_error(proxy):
    web = proxy.service("web", backends=1)
    with pytest.raises(LookupError, match="default/web has no endpoint 127"):
        proxy.add_fault(web.key, "refuse", endpoint="127.0.0.1:1")


def test_a_service_replaces_an_earlier_service_with_the_same_name(proxy):
    first = proxy.service("web", backends=1)
    second = proxy.service("web", backends=2)
    assert refuses(first.backends[0].address)
    assert get(second) == "web-1"
    assert proxy.services == (second,)


def test_removing_a_service_ends_its_backends(proxy):
    web = proxy.service("web")
    address = web.address
    web.remove()
    web.remove()
    assert refuses(address)
    assert refuses(web.backends[0].address)
    assert proxy.services == ()


def test_closing_the_proxy_leaves_no_port_and_no_thread():
    before = threading.active_count()
    with ServiceProxy() as proxy:
        web = proxy.service("web")
        addresses = [web.address, web.backends[0].address]
        assert repr(proxy) == "<ServiceProxy, 1 Service>"
    assert [refuses(address) for address in addresses] == [True, True]
    assert threading.active_count() == before


def test_an_address_taken_over_after_the_close_is_an_error():
    class TakenOver(ServiceProxy):
        def end_services(self):
            address = self.services[0].address
            super().end_services()
            self.other = socket.create_server(address)

    proxy = TakenOver()
    proxy.start()
    address = proxy.service("web").address
    with pytest.raises(AssertionError, match=f"still served after the end of the proxy: {address}"):
        proxy.close()
    proxy.other.close()


def test_a_service_that_cannot_be_served_leaves_no_backend(proxy):
    with pytest.raises(ValueError, match="name: 'Web' is not a DNS label"):
        proxy.service("Web", backends=1)
    assert proxy.services == ()


def test_a_proxy_can_be_started_and_closed_without_a_with_block():
    proxy = ServiceProxy()
    proxy.close()
    with pytest.raises(RuntimeError, match="isn't running: use it in a `with` block, or call st"):
        proxy.service("web")
    proxy.start()
    web = proxy.service("web")
    with pytest.raises(RuntimeError, match="is running"):
        proxy.start()
    assert get(web) == "web-1"
    proxy.close()
    proxy.close()
    assert refuses(web.backends[0].address)


def test_a_proxy_stopped_by_the_test_leaves_no_program():
    serve = [sys.executable, "-m", "http.server", "--bind={host}", "{port}"]
    proxy = ServiceProxy()
    proxy.start()
    backends = [proxy.service(name, backends=[serve]).backends[0] for name in ("web", "db")]
    proxy.stop()
    with pytest.raises(RuntimeError, match="isn't running"):
        proxy.close()
    assert [backend.state for backend in backends] == ["stopped"] * 2
    assert [refuses(backend.address) for backend in backends] == [True] * 2


def test_a_function_that_exits_or_fails_the_test_affects_only_its_client(proxy):
    async def exits(reader, writer):
        raise SystemExit

    def fails(request):
        pytest.fail("unexpected")

    with socket.create_connection(proxy.service("exits", backends=[exits]).address) as client:
        assert client.recv(1) == b""
    with pytest.raises(HTTPError, match="500") as caught:
        get(proxy.service("fails", backends=[fails]))
    with caught.value as answer:
        assert answer.read() == b"Failed: unexpected\n"
    assert get(proxy.service("web")) == "web-1"


PAGES = ["docs/in-tests.md", "pytest-userspace-proxy/README.md"]


def examples(page, language, marker):
    """Return the code blocks of a page that contain a text."""
    text = (Path(__file__).parents[2] / page).read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [block for block in blocks if marker in block]


@pytest.mark.parametrize("page", PAGES)
def test_the_unittest_example_runs_without_pytest(tmp_path, page):
    (example,) = examples(page, "python", "unittest.TestCase")
    (tmp_path / "test_shop.py").write_text(example)
    command = [sys.executable, "-m", "unittest", "test_shop"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    count = example.count("def test_")
    assert (ran.returncode, f"Ran {count} test" in ran.stderr) == (0, True), ran.stderr
    assert "ResourceWarning" not in ran.stderr


def test_the_documented_interpreter_session_prints_the_documented_output():
    page = "pytest-userspace-proxy/README.md"
    (session,) = examples(page, "pycon", "ServiceProxy")
    parsed = doctest.DocTestParser().get_doctest(session, {}, page, None, 0)
    printed = []
    results = doctest.DocTestRunner().run(parsed, out=printed.append)
    assert (results.failed, results.attempted > 3) == (0, True), "".join(printed)
    assert "userspace-proxy" not in {thread.name for thread in threading.enumerate()}


def test_the_package_imports_the_proxy_on_first_use():
    program = (
        "import sys, userspace_proxy_testing\n"
        "assert 'asyncio' not in sys.modules and 'msgspec' not in sys.modules\n"
        "from userspace_proxy_testing import ServiceProxy\n"
        "from userspace_proxy_testing.service_proxy import ServiceProxy as same\n"
        "assert ServiceProxy is same and not hasattr(userspace_proxy_testing, 'Other')\n"
        "assert 'userspace_proxy_testing.service_network' not in sys.modules\n"
        "names = userspace_proxy_testing.__all__\n"
        "assert [getattr(userspace_proxy_testing, name).__name__ for name in names] == names\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
