"""toxiproxy's HTTP API, with Services that only record calls."""

import asyncio
import contextlib
from dataclasses import replace

import aiohttp
import pytest

from userspace_proxy.errors import ListenError
from userspace_proxy_testing.faults.toxiproxy import ProxyInfo, ToxiproxyApi


class Services:
    """A substitute, in memory, for the Services that the API changes."""

    def __init__(self):
        self.proxies = {}

    def all(self):
        return list(self.proxies.values())

    async def create(self, name, listen, upstream, *, enabled):
        if ":" not in upstream:
            raise ValueError(f"upstream {upstream!r}")
        # Yields to the event loop, like a DNS lookup.
        await asyncio.get_running_loop().run_in_executor(None, int)
        self.proxies[name] = ProxyInfo(name, listen.replace(":0", ":7"), upstream, enabled, ())

    async def update(self, name, listen, upstream, enabled):
        given = {"listen": listen, "upstream": upstream, "enabled": enabled}
        new = {key: value for key, value in given.items() if value is not None}
        self.proxies[name] = replace(self.proxies[name], **new)

    async def delete(self, name):
        del self.proxies[name]

    def is_at(self, name, listen, upstream):
        made = self.proxies[name]
        return (made.listen, made.upstream) == (listen.replace(":0", ":7"), upstream)

    def set_toxic(self, name, toxic):
        self.remove_toxic(name, toxic.name)
        old = self.proxies[name]
        self.proxies[name] = replace(old, toxics=(*old.toxics, toxic))

    def remove_toxic(self, name, toxic):
        old = self.proxies[name]
        left = tuple(each for each in old.toxics if each.name != toxic)
        self.proxies[name] = replace(old, toxics=left)


@pytest.fixture
async def call():
    """Yield a function that calls the API, and returns status and JSON."""
    api = ToxiproxyApi(Services())
    host, port = await api.serve(("127.0.0.1", 0))
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:

        async def call(method, path, body=None, **options):
            async with session.request(method, path, json=body, **options) as answer:
                is_json = answer.content_type == "application/json"
                return answer.status, await answer.json() if is_json else await answer.text()

        yield call
    await api.close()


WEB = {"name": "web", "upstream": "127.0.0.1:80", "listen": "127.0.0.1:0"}
MADE = {**WEB, "listen": "127.0.0.1:7", "enabled": True, "toxics": []}
SLOW = {
    "name": "latency_downstream",
    "type": "latency",
    "stream": "downstream",
    "toxicity": 1.0,
    "attributes": {"latency": 10, "jitter": 0},
}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_proxy_can_be_updated(call, method):
    await call("POST", "/proxies", WEB)
    assert await call(method, "/proxies/web", {"enabled": False}) == (
        200,
        {**MADE, "enabled": False},
    )
    changed = {"enabled": True, "upstream": "127.0.0.1:81"}
    assert await call(method, "/proxies/web", changed) == (200, {**MADE, **changed})


async def test_a_reset_enables_all_proxies_and_removes_all_toxics(call):
    await call("POST", "/proxies", {**WEB, "enabled": False})
    await call("POST", "/proxies/web/toxics", SLOW)
    assert await call("POST", "/reset") == (204, "")
    assert await call("GET", "/proxies/web") == (200, MADE)


async def test_populate_replaces_a_proxy_that_has_another_upstream(call):
    await call("POST", "/proxies", WEB)
    other = {**WEB, "upstream": "127.0.0.1:81"}
    status, answer = await call("POST", "/populate", [other, {**WEB, "name": "db"}])
    assert (status, [proxy["name"] for proxy in answer["proxies"]]) == (201, ["web", "db"])
    assert (await call("GET", "/proxies/web"))[1]["upstream"] == "127.0.0.1:81"


async def test_populate_changes_nothing_if_any_proxy_is_invalid(call):
    status, answer = await call("POST", "/populate", [WEB, {"name": "db"}])
    assert (status, answer["error"]) == (400, "missing required field: upstream at proxy 2")
    assert await call("GET", "/proxies") == (200, {})


async def test_only_one_of_simultaneous_creations_of_a_proxy_succeeds(call):
    answers = await asyncio.gather(*[call("POST", "/proxies", WEB) for _ in range(20)])
    assert sorted(status for status, _ in answers) == [201] + [409] * 19


async def test_a_slow_request_body_does_not_block_other_changes(call):
    has_sent, may_end = asyncio.Event(), asyncio.Event()

    async def body():
        yield b"{"
        has_sent.set()
        await may_end.wait()

    slow = asyncio.create_task(call("POST", "/proxies", data=body()))
    await has_sent.wait()
    # Once this is answered, the server has also read the other request's head.
    await call("GET", "/version")
    assert (await call("POST", "/proxies", WEB))[0] == 201
    may_end.set()
    assert (await slow)[0] == 400


async def test_a_request_from_a_browser_is_rejected(call):
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    answer = await call("POST", "/proxies", WEB, headers=browser)
    assert answer == (403, "User agent not allowed\n")
    assert await call("GET", "/proxies") == (200, {})


@pytest.mark.parametrize(
    ("host", "expected"),
    [("evil.example", 403), ("evil.example:8474", 403), ("localhost:8474", 200), ("[::1]", 200)],
)
async def test_only_host_headers_that_name_loopback_are_accepted(call, host, expected):
    status, _ = await call("GET", "/proxies", headers={"Host": host})
    assert status == expected


async def test_an_api_not_bound_to_loopback_accepts_any_host_header():
    api = ToxiproxyApi(Services())
    _, port = await api.serve(("0.0.0.0", 0))
    url = f"http://127.0.0.1:{port}/version"
    host = {"Host": "toxiproxy:8474"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=host) as answer:
        assert answer.status == 200
    await api.close()


async def test_a_toxics_stream_may_be_in_upper_case(call):
    await call("POST", "/proxies", WEB)
    given = {**SLOW, "stream": "DOWNSTREAM"}
    assert await call("POST", "/proxies/web/toxics", given) == (200, SLOW)


async def test_responses_have_toxiproxys_status_codes(call):
    assert await call("GET", "/version") == (200, {"version": "2.9.0"})
    assert (await call("POST", "/proxies", WEB))[0] == 201
    assert (await call("POST", "/proxies/web/toxics", SLOW))[0] == 200
    toxic = "/proxies/web/toxics/latency_downstream"
    faster = {**SLOW, "attributes": {"latency": 1, "jitter": 0}}
    assert await call("POST", toxic, {"attributes": {"latency": 1}}) == (200, faster)
    assert await call("GET", toxic) == (200, faster)
    assert await call("DELETE", toxic) == (204, "")
    assert await call("DELETE", "/proxies/web") == (204, "")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        pytest.param("GET", "/proxies/x", None, 404, "proxy not found", id="no-proxy"),
        pytest.param("GET", "/proxies/web/toxics/x", None, 404, "toxic not found", id="no-toxic"),
        pytest.param("POST", "/proxies", WEB, 409, "already exists", id="proxy-exists"),
        pytest.param("POST", "/proxies/web/toxics", SLOW, 409, "already exists", id="toxic-exists"),
        pytest.param("POST", "/proxies", {"name": "a"}, 400, "field: upstream", id="no-upstream"),
        pytest.param(
            "POST", "/proxies", {"name": "a", "upstream": "b"}, 400, "upstream 'b'", id="upstream"
        ),
        pytest.param(
            "POST", "/proxies/web/toxics", {"type": "latancy"}, 400, "did you mean", id="type"
        ),
        pytest.param("POST", "/populate", {}, 400, "expected list", id="no-list"),
        pytest.param(
            "POST", "/proxies/web", {"enabled": "false"}, 400, "enabled: expected bool", id="text"
        ),
        pytest.param(
            "POST",
            "/proxies/web/toxics",
            {"type": "latency", "attributes": [1]},
            400,
            "attributes: expected dict",
            id="attributes",
        ),
        pytest.param(
            "POST",
            "/proxies/web/toxics/latency_downstream",
            {"toxicity": "1"},
            400,
            "toxicity '1' is not a number from 0 to 1",
            id="toxicity",
        ),
    ],
)
async def test_errors_have_toxiproxys_format(call, method, path, body, status, words):
    await call("POST", "/proxies", WEB)
    await call("POST", "/proxies/web/toxics", SLOW)
    got, answer = await call(method, path, body)
    assert (got, answer["status"], words in answer["error"]) == (status, status, True)


@pytest.mark.parametrize(
    ("data", "charset"),
    [
        pytest.param(b"{", "utf-8", id="cut"),
        pytest.param(b"[" * 200_000, "utf-8", id="deep"),
        pytest.param(b"\xff", "utf-8", id="bytes"),
        pytest.param(b"{}", "none-such", id="charset"),
    ],
)
async def test_a_body_that_cannot_be_decoded_is_rejected_with_status_400(call, data, charset):
    type_ = {"Content-Type": f"application/json; charset={charset}"}
    status, answer = await call("POST", "/proxies", data=data, headers=type_)
    assert (status, answer["error"].startswith("bad request body")) == (400, True)


async def test_an_address_in_use_is_an_error():
    first, second = ToxiproxyApi(Services()), ToxiproxyApi(Services())
    with contextlib.suppress(ListenError):
        address = await first.serve(("127.0.0.1", 0))
        with pytest.raises(ListenError, match="choose another address"):
            await second.serve(address)
    await first.close()
    await second.close()
