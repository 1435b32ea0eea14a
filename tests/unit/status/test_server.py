import asyncio
import contextlib
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.errors import ListenError
from userspace_proxy.facts import RejectedFacts, SourceFacts
from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.status.connections import MAX_CONNECTIONS, LimitedServer
from userspace_proxy.status.sampling import RenderThread
from userspace_proxy.status.server import StatusServer
from userspace_proxy.status.wrapping import LEAST_COLUMNS

from ..dataplane.waiting import until
from .views import NOW, make_calm_view, make_port, make_troubled_view, make_view

ADMIN_PATHS = ("/", "/metrics", "/proxyMode", "/healthz", "/livez", "/configz", "/api/v1/status")


class Client:
    """Sends requests to the two servers of one StatusServer."""

    def __init__(self, session, admin, health):
        self._session = session
        self.admin = admin
        self.health = health

    async def ask(self, path, *, port=None, method="GET", **headers):
        port = port or self.admin
        url = f"http://127.0.0.1:{port}{path}"
        async with self._session.request(method, url, headers=headers) as response:
            return response, await response.text()


@contextlib.asynccontextmanager
async def serving(view, **options):
    server = StatusServer(lambda: view, clock=lambda: NOW, **options)
    try:
        _, admin = await server.serve_admin(("127.0.0.1", 0))
        _, health = await server.serve_health(("127.0.0.1", 0))
        async with aiohttp.ClientSession() as session:
            yield Client(session, admin, health)
    finally:
        await server.close()


@pytest.mark.parametrize("path", ADMIN_PATHS)
async def test_every_admin_path_has_the_security_headers(path):
    async with serving(make_calm_view()) as client:
        response, text = await client.ask(path)
        assert response.status == 200
        assert text
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Server"] == "userspace-proxy"


async def test_the_proxy_mode_endpoint_returns_userspace():
    async with serving(make_view()) as client:
        response, text = await client.ask("/proxyMode")
        assert (text, response.content_type) == ("userspace", "text/plain")


async def test_the_page_shows_services_and_its_static_files_are_served():
    async with serving(make_troubled_view()) as client:
        response, text = await client.ask("/?q=cart")
        assert response.content_type == "text/html"
        assert "Clients are refused: 3 endpoints: 3 not ready" in text
        for columns, widest in ((100, 100), (1, LEAST_COLUMNS)):
            _, text = await client.ask(f"/?columns={columns}", Accept="text/plain")
            assert widest - 15 < max(map(len, text.splitlines())) <= widest
        style, _ = await client.ask("/static/style.css")
        icon, _ = await client.ask("/static/icon-trouble.svg")
        script, _ = await client.ask("/static/page.js")
        types = [part.content_type for part in (style, icon, script)]
        assert types == ["text/css", "image/svg+xml", "text/javascript"]


async def test_metrics_can_be_scraped():
    async with serving(make_troubled_view()) as client:
        await client.ask("/healthz", port=client.health)
        response, text = await client.ask("/metrics")
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        found = {
            (s.name, *s.labels.values()): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }
        assert found["kubeproxy_proxy_healthz_total", "503"] == 1
        assert found["userspace_proxy_steering_repairs_total",] == 3


async def test_the_status_is_json_and_can_be_filtered():
    async with serving(make_troubled_view()) as client:
        response, text = await client.ask("/api/v1/status?q=cart")
        assert response.content_type == "application/json"
        assert [port["service"] for port in json.loads(text)["ports"]] == ["cart"]


async def test_the_status_is_compressed_for_clients_accepting_gzip():
    async with serving(make_troubled_view()) as client:
        _, plain = await client.ask(
            "/api/v1/status?view=summary", **{"Accept-Encoding": "identity"}
        )
        response, text = await client.ask("/api/v1/status?view=summary")
        assert response.headers["Content-Encoding"] == "gzip"
        assert text == plain


async def test_service_digests_can_be_requested_by_bucket():
    view = make_view(plan=PlanFacts(1, "ab", 3))
    view.digests = ({"shop/web": "8ce2ffdc"}, {}, {"shop/db": "561a28b6"})
    async with serving(view) as client:
        _, every = await client.ask("/api/v1/plan")
        _, some = await client.ask("/api/v1/plan?bucket=2&bucket=1&bucket=x")
    assert json.loads(every)["digests"] == {"shop/web": "8ce2ffdc", "shop/db": "561a28b6"}
    assert json.loads(some) == {"form": 1, "digests": {"shop/db": "561a28b6"}}


async def test_a_terminal_gets_the_status_as_text():
    async with serving(make_troubled_view()) as client:
        response, text = await client.ask("/", **{"User-Agent": "curl/8.5.0"})
        assert response.content_type == "text/plain"
        assert response.headers["X-Userspace-Proxy-Level"] == "trouble"
        assert text.startswith("node-a  nftables  10 Service ports, 6 need attention")
        _, wide = await client.ask("/?wide=yes", Accept="text/plain")
        assert "endpoint  10.244.1.193:8080" in wide


async def test_an_incident_has_a_url_for_browsers_and_terminals():
    view = make_troubled_view()
    incident = Incidents(view).all()[0]
    async with serving(view) as client:
        response, text = await client.ask(f"/incidents/{incident.id}")
        assert (response.status, response.content_type) == (200, "text/html")
        assert '<h2 id="to-do">What to do</h2>' in text
        style, _ = await client.ask("/static/incident.css")
        assert style.content_type == "text/css"
        plain, text = await client.ask(f"/incidents/{incident.id}", Accept="text/plain")
        assert (plain.status, plain.content_type) == (200, "text/plain")
        assert text.startswith("  ✕ cannot listen on 10.96.7.30:80/TCP")
        assert text.endswith(f"      {incident.command}\n")


async def test_a_resolved_incident_returns_404():
    async with serving(make_view()) as client:
        response, text = await client.ask("/incidents/0123456789ab")
        assert (response.status, response.content_type) == (404, "text/html")
        assert "This is over" in text
        response, text = await client.ask("/incidents/0123456789ab", Accept="text/plain")
        assert (response.status, text) == (404, "No Service has this cause any more.\n")


async def test_probes_are_served_during_a_flood_and_the_newest_connections_stay_open(monkeypatch):
    monkeypatch.setitem(LimitedServer.__init__.__kwdefaults__, "first_request_s", 3600.0)
    async with serving(make_calm_view()) as client:
        with contextlib.ExitStack() as stack:
            flood = [stack.enter_context(socket.socket()) for _ in range(2 * MAX_CONNECTIONS)]
            for sock in flood:
                sock.setblocking(False)
                # Connect one at a time: a full accept queue would drop SYNs for half a minute.
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", client.health))
            assert (await client.ask("/healthz", port=client.health))[0].status == 200
            await until(lambda: [*map(is_open, flood)].count(True) == MAX_CONNECTIONS - 1)
            assert all(map(is_open, flood[-MAX_CONNECTIONS // 2 :]))


def is_open(sock):
    try:
        return bool(sock.recv(1))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


async def test_an_unknown_state_is_rejected_in_all_formats_except_the_page():
    async with serving(make_troubled_view()) as client:
        for path in ("/?q=is:refusd", "/api/v1/status?q=is:refusd"):
            response, text = await client.ask(path, Accept="text/plain")
            assert (response.status, text) == (
                400,
                "there is no state is:refusd (did you mean is:refused?)\n",
            )
        response, _ = await client.ask("/?q=is:refusd", Accept="text/html")
        assert response.status == 200


async def test_a_terminal_can_search_and_get_rates():
    async with serving(make_troubled_view()) as client:
        _, text = await client.ask("/?q=is:refused", Accept="text/plain")
        assert text.startswith("node-a  nftables  3 Service ports, 3 need attention")
        _, text = await client.ask("/?top&q=web", Accept="text/plain")
        assert text.splitlines()[1].split()[-1] == "FAILED/S"
        assert [line.split()[1] for line in text.splitlines()[2:]] == ["shop/web:http"] * 2


@pytest.mark.parametrize("path", ["/", "/api/v1/status"])
async def test_the_status_of_a_single_service_can_be_requested(path):
    view = make_troubled_view()
    async with serving(view) as client:
        _, text = await client.ask(f"{path}?service=shop/cart", Accept="text/plain")
        assert "cart" in text
        assert "payments:http" not in text
        response, text = await client.ask(f"{path}?service=shop/crt", Accept="text/plain")
        assert (response.status, text) == (
            404,
            "there is no Service shop/crt (did you mean shop/cart?); not everything can be read: "
            f"{view.source.problems[0]}\n",
        )


@pytest.mark.parametrize("path", ["/?", "/api/v1/status?", "/api/v1/status?watch&"])
async def test_a_missing_service_is_explained_outside_the_event_loop(path, monkeypatch):
    threads = []

    def say(_view, service):
        threads.append(threading.current_thread())
        return service

    monkeypatch.setattr("userspace_proxy.status.server.say_missing", say)
    async with serving(make_calm_view()) as client:
        asked = [client.ask(f"{path}service=a/{i}", Accept="text/plain") for i in range(3)]
        answers = await asyncio.gather(*asked)
    assert [text for _, text in answers] == ["a/0\n", "a/1\n", "a/2\n"]
    assert threading.current_thread() not in threads


async def test_a_rejected_service_returns_404_with_its_mistake():
    typo = RejectedFacts(
        "z.yaml:5: spec.prots: unknown field", "Service shop/typo", services=("shop/typo",)
    )
    source = SourceFacts("manifests", "/m", problems=(typo.line,), rejected=(typo,))
    async with serving(make_view(make_port(), source=source)) as client:
        response, text = await client.ask("/?service=shop/typo", Accept="text/plain")
        assert (response.status, text) == (404, f"shop/typo is not served: {typo.line}\n")
        _, text = await client.ask("/api/v1/status?service=shop/typo")
        answer = json.loads(text)
        assert (answer["ports"], answer["source"]["rejected"][0]["line"]) == ([], typo.line)


@pytest.mark.parametrize(
    ("service", "search"), [("shop/cart", "service:shop/cart"), ("kube-system", "ns:kube-system")]
)
async def test_a_browser_that_requests_a_service_is_redirected_to_a_search(service, search):
    async with serving(make_troubled_view()) as client:
        response, text = await client.ask(f"/?service={service}&refresh=off", Accept="text/html")
        assert (str(response.url.query_string), response.history[0].status) == (
            f"q={search}&refresh=off",
            302,
        )
        assert ("shop/</span>cart" in text) is (service == "shop/cart")
        assert "shop/</span>payments" not in text


@pytest.mark.parametrize("path", ["/api/v1/status?q=web", "/metrics", "/configz", "/api/v1/demand"])
async def test_waiting_requests_refresh_the_view_at_most_three_times_and_probes_do_not_wait(path):
    taken, first, release = [], asyncio.Event(), asyncio.Event()

    async def refresh():
        taken.append(path)
        first.set()
        await release.wait()

    async with serving(make_view(make_port()), refresh=refresh) as client:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(client.ask(path))]
            await first.wait()
            for n in range(8):
                headers = {"Accept": f"text/x{n}", "Accept-Encoding": f"gzip, x{n}"}
                asked.append(tasks.create_task(client.ask(path, **headers)))
            for port in (client.admin, client.health):
                for probe in ("/livez", "/healthz"):
                    assert (await client.ask(probe, port=port))[0].status == 200
            release.set()
        assert {task.result()[0].status for task in asked} == {200}
        assert len(taken) <= 3


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
async def test_a_flood_of_searches_does_not_delay_other_kinds_of_requests(accept, monkeypatch):
    monkeypatch.setattr("userspace_proxy.status.sampling._RECENT_S", 60.0)
    searches, done, release = 60, [], threading.Event()

    async def ask(client, path):
        await client.ask(path, Accept=accept)
        done.append(path)

    rendered = []

    async def work(self, render, work=RenderThread.work):
        rendered.append(render)
        return await work(self, render)

    monkeypatch.setattr(RenderThread, "work", work)
    with ThreadPoolExecutor(1) as thread:
        asyncio.get_running_loop().set_default_executor(thread)
        async with (
            serving(make_view(make_port())) as client,
            asyncio.TaskGroup() as tasks,
            contextlib.AsyncExitStack() as stack,
        ):
            stack.callback(release.set)
            await client.ask("/")
            thread.submit(release.wait)
            before = len(rendered)
            for n in range(searches):
                tasks.create_task(ask(client, f"/?q=web{n}"))
            await until(lambda: len(rendered) == before + 1)
            # Once these requests are answered, all searches have arrived.
            for _ in range(5):
                await client.ask("/livez")
            tasks.create_task(ask(client, "/metrics"))
            await until(lambda: len(rendered) == before + 2)
    assert len(done) == searches + 1
    assert done.index("/metrics") < searches / 2


@pytest.mark.parametrize(
    ("changes", "healthz", "livez"),
    [
        pytest.param({}, 200, 200, id="healthy"),
        pytest.param({"node_is_eligible": False}, 503, 200, id="node-leaves"),
    ],
)
async def test_both_status_servers_answer_probes(changes, healthz, livez):
    async with serving(make_view(**changes)) as client:
        for port in (client.admin, client.health):
            response, text = await client.ask("/healthz", port=port)
            assert response.status == healthz
            assert json.loads(text)["nodeEligible"] is (healthz == 200)
            assert response.content_type == "application/json"
            assert (await client.ask("/livez", port=port))[0].status == livez


@pytest.mark.parametrize("path", ["/", "/metrics", "/configz", "/api/v1/status", "/static/x"])
async def test_the_health_port_serves_only_probes(path):
    async with serving(make_view()) as client:
        response, text = await client.ask(path, port=client.health)
        assert (response.status, text) == (404, "Not Found\n")
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_probes_are_answered_from_the_health_view_without_services():
    def everything():
        raise AssertionError("a probe asked for every Service")

    server = StatusServer(everything, health=make_view, clock=lambda: NOW)
    _, port = await server.serve_health(("127.0.0.1", 0))
    async with aiohttp.ClientSession() as session:
        response, _ = await Client(session, port, port).ask("/healthz")
    await server.close()
    assert response.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_only_the_methods_get_and_head_are_allowed(method):
    async with serving(make_view()) as client:
        response, _ = await client.ask("/", method=method)
        assert response.status == 405
        assert response.headers["Allow"] == "GET,HEAD"


async def test_a_head_response_has_headers_and_no_body():
    async with serving(make_view()) as client:
        response, text = await client.ask("/", method="HEAD")
        assert (response.status, text) == (200, "")


@pytest.mark.parametrize("path", [*ADMIN_PATHS, "/nowhere"])
async def test_an_unknown_host_header_is_rejected_on_loopback(path):
    async with serving(make_troubled_view()) as client:
        response, text = await client.ask(path, Host="evil.example")
        assert response.status == 403
        assert "DNS rebinding" in text
        assert "cart" not in text


async def test_a_load_balancers_probe_is_answered_for_any_host_header():
    async with serving(make_view()) as client:
        response, _ = await client.ask("/healthz", port=client.health, Host="lb.example")
        assert response.status == 200


async def test_the_connection_of_a_probe_is_closed_after_the_response():
    async with serving(make_view()) as client:
        response, _ = await client.ask("/healthz", port=client.health)
        assert response.headers["Connection"] == "close"


@pytest.mark.parametrize("path", ["/static/..%2Fserver.py", "/static/page.html", "/static/"])
async def test_unknown_static_files_return_404(path):
    async with serving(make_view()) as client:
        assert (await client.ask(path))[0].status == 404


@pytest.mark.parametrize(
    "query",
    ["?page=-1", "?page=1e9", "?show=%00", "?q=%FF%FE", "?q=" + "x" * 5000, "?q=a&q=b"],
    ids=["negative", "exponent", "nul", "no-utf-8", "long-search", "two-searches"],
)
async def test_a_query_with_malformed_parameters_is_answered(query):
    async with serving(make_view(make_port())) as client:
        assert (await client.ask(f"/{query}"))[0].status == 200
        assert (await client.ask(f"/api/v1/status{query}"))[0].status == 200


async def test_views_with_invalid_text_and_numbers_are_served():
    nan = float("nan")
    odd = make_view(
        make_port("\ud800\x00", active=nan, sent_bytes=float("inf")),
        node="\ud800",
        started=nan,
        config=(("a", object, "flag"), ("b", {1: nan}, "file")),
    )
    async with serving(odd) as client:
        assert [(await client.ask(path))[0].status for path in ADMIN_PATHS] == [200] * 7


async def test_a_port_in_use_is_reported_with_the_flag_that_changes_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        server = StatusServer(make_view)
        with pytest.raises(ListenError, match="--metrics-bind-address"):
            await server.serve_admin(address)
        with pytest.raises(ListenError, match="--healthz-bind-address"):
            await server.serve_health(address)
        await server.close()


async def test_a_listening_socket_from_the_caller_is_served_and_closed():
    sock = socket.create_server(("127.0.0.1", 0))
    server = StatusServer(make_view)
    address = await server.serve_admin(sock)
    assert address == sock.getsockname()
    async with aiohttp.ClientSession() as session:
        response, _ = await Client(session, address[1], 0).ask("/proxyMode")
    await server.close()
    assert response.status == 200
    assert sock.fileno() == -1


async def test_close_closes_all_sockets_and_is_idempotent():
    server = StatusServer(make_view)
    address = await server.serve_admin(("127.0.0.1", 0))
    await server.close()
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


async def test_requests_of_other_protocols_are_rejected_without_a_log_line(caplog):
    async with serving(make_view()) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.health)
        writer.write(b"\x16\x03\x01\x00\xa5 hello\r\n\r\n")
        assert b"400" in await reader.read()
        writer.close()
    assert caplog.text == ""
