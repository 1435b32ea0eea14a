"""Tests of ``userspace-proxy forward`` as a process, with a fake API server."""

import asyncio
import contextlib
import os
import resource
import signal
import sys

import pytest

from tests.tcp_servers import serving
from tests.unit.agent.backends import ask
from tests.unit.forward.pods import Pods, service
from tests.unit.model import samples
from tests.unit.plan.planning import the_port
from userspace_proxy.causes.say import say
from userspace_proxy.cli import main
from userspace_proxy.cli.command import Given
from userspace_proxy.config import Settings
from userspace_proxy.errors import ConfigError
from userspace_proxy.facts import StatusFacts, facts_of_plan
from userspace_proxy.model import ServiceKey
from userspace_proxy_kubectl.cli.forward import (
    ForwardedPort,
    forward,
    forwarded_ports,
    make_options,
    render_changes,
    render_left_out,
    render_start,
    wanted_address,
    wanted_services,
)
from userspace_proxy_kubectl.forward.source import ForwardSource
from userspace_proxy_testing.fakes.api_server import FakeApiServer

DEADLINE_S = 120.0
UDP = {"name": "udp", "port": 53, "protocol": "UDP"}


class Forward:
    """A running ``forward`` and its output."""

    def __init__(self, process):
        self.process = process
        self.lines = []

    async def line(self, start):
        """Return the words of the next line that starts with this text."""
        while True:
            async with asyncio.timeout(DEADLINE_S):
                line = (await self.process.stdout.readline()).decode()
            assert line, self.lines
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return line.split()

    async def end(self):
        """Wait until the process exits; return its status and stderr."""
        async with asyncio.timeout(DEADLINE_S):
            _, said = await self.process.communicate()
        return self.process.returncode, said.decode()


@pytest.fixture
async def pods():
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(FakeApiServer())
        api.put(service(ports=[{"name": "http", "port": 80}, UDP]))
        yield Pods(api, stack)


@contextlib.asynccontextmanager
async def forwarding(*words, prefix=()):
    process = await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        # Opening the first stream may be slow on a busy machine.
        *("-m", "userspace_proxy", "forward", "--connect-timeout=20s", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_PROXY": "*", "KUBECONFIG": "", "HOME": "/nonexistent"},
    )
    try:
        yield Forward(process)
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.wait_for(process.wait(), 30)


async def test_forward_prints_service_addresses_and_changes(pods):
    await pods.start()
    limited = "prlimit", "--nofile=512:4096"
    async with forwarding(f"--master={pods.api.url}", "-n", "shop", prefix=limited) as running:
        name, address, *state = await running.line("  web")
        assert (name, state) == ("web.shop:80", ["1", "pod"])
        limits = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        assert limits == (4096, 4096)
        host, _, port = address.rpartition(":")
        assert await ask((host, int(port))) == b"web-1"
        assert await running.line("  web") == (
            ["web.shop:53/UDP", "port-forwards", "carry", "TCP", "only"]
        )
        assert (await running.line("names by DNS:"))[-1] == "web.shop.svc.cluster.local"
        await pods.start()
        assert await running.line("  web") == ["web.shop:80:", "2", "pods"]
        pods.api.put(service("cart"))
        assert (await running.line("+"))[:3] == ["+", "cart.shop:80", "at"]
        pods.api.delete("Service", "web", "shop")
        assert await running.line("-") == ["-", "web.shop:80", "is", "gone"]
        running.process.send_signal(signal.SIGTERM)
        assert await running.end() == (0, "")


async def test_a_port_of_a_short_range_reaches_its_pod_and_a_long_range_is_not_forwarded(pods):
    annotations = {"userspace-proxy.io/port-ranges": "http=8000-8099, udp=53-99"}
    for name, ports, of in (
        ("web", [{"name": "http", "port": 8001}, UDP], annotations),
        (
            "long",
            [{"name": "http", "port": 8001}],
            {"userspace-proxy.io/port-ranges": "http=8000-8100"},
        ),
    ):
        item = service(name, ports=ports)
        item["metadata"]["annotations"] = of
        pods.api.put(item)
    await pods.start()

    async def send_name(_reader, writer):
        writer.write(b"within")

    async with (
        serving(send_name) as at,
        forwarding(f"--master={pods.api.url}", "-n=shop") as running,
    ):
        name, address, *_ = await running.line("  web.shop:8001 ")
        host, _, ports = address.rpartition(":")
        assert ports == "8000–8099"
        said = await running.line("  long.shop:http ")
        assert said[1:5] == ["range", "http=8000-8100", "is", "not"]
        await running.line("Ctrl-C")
        assert not any("udp=53-99" in line for line in running.lines)
        pods.api.pods.run("web-1", {8178: at}, "shop")
        assert await ask((host, 8099)) == b"within"


class Served:
    """A proxy with one Service port, which has no endpoints."""

    def __init__(self):
        self.port = facts_of_plan(the_port(samples.service()), (), ())

    def status(self):
        return StatusFacts(ports=[self.port])

    def address_of(self, _key, _port):
        return None


def test_an_unforwarded_port_shows_its_problem_or_its_cause():
    proxy = Served()

    def problem():
        (port,) = forwarded_ports(proxy).values()
        return port.problem

    assert problem() == say(proxy.port.cause)
    proxy.port.problem = "the port is in use"
    assert problem() == "the port is in use"
    proxy.port.hint = "stop that program"
    assert problem() == "the port is in use (stop that program)"


def test_a_missing_kubeconfig_is_a_usage_error(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert main(["forward"]) == 2
    assert capsys.readouterr().err == (
        "error: cannot forward: there is no kubeconfig (give --kubeconfig=FILE)\n"
    )


@pytest.fixture
def of_cart(tmp_path):
    """Settings with a kubeconfig whose context has the namespace cart."""
    path = tmp_path / "config"
    path.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: a, namespace: cart}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
    )
    return Settings(kubeconfig=str(path))


@pytest.mark.parametrize(
    ("words", "flags", "wanted", "namespace"),
    [
        pytest.param([], {}, [], "cart", id="all-of-the-context"),
        pytest.param([], {"namespace": "shop"}, [], "shop", id="all-of-a-namespace"),
        pytest.param([], {"all-namespaces": "true"}, [], "", id="all"),
        pytest.param(["web"], {}, ["cart/web"], "cart", id="a-name"),
        pytest.param(["svc/web"], {"namespace": "shop"}, ["shop/web"], "shop", id="kubectl-form"),
        pytest.param(["web", "shop/db"], {}, ["cart/web", "shop/db"], "", id="several"),
        pytest.param(["https://db.shop.svc:80/x"], {}, ["shop/db"], "shop", id="url"),
        pytest.param(["shop/db"], {"all-namespaces": "true"}, ["shop/db"], "", id="name-and-all"),
    ],
)
def test_the_arguments_of_forward_select_services(words, flags, wanted, namespace, of_cart):
    found = wanted_services(Given(flags, tuple(words)), of_cart)
    assert found == ({ServiceKey(*name.split("/")) for name in wanted}, namespace)


def test_the_address_flag_of_forward_accepts_only_ipv4_loopback_addresses():
    asked = [wanted_address(Given({"address": text})) for text in ("", "127.0.0.1", "localhost")]
    assert asked == ["", "127.0.0.1", "127.0.0.1"]
    for text in ("0.0.0.0", "::1", "192.0.2.1", "here"):
        with pytest.raises(ConfigError, match="no IPv4 address of loopback"):
            wanted_address(Given({"address": text}))


@pytest.mark.parametrize("port", ["8080:80", "8080", ":http", "web:80"])
def test_a_port_in_the_arguments_of_forward_is_rejected(port, of_cart):
    with pytest.raises(ConfigError, match=f"'{port}' is not a Service \\(all ports"):
        wanted_services(Given({}, ("web", port)), of_cart)


def test_explicit_flags_override_the_defaults_of_forward():
    source = ForwardSource(kubeconfig="", master="http://127.0.0.1:1")
    plain = make_options(Settings(), source)
    assert plain.tuning.connect_timeout_s == 5
    assert plain.dns == ("127.0.0.1", 0)
    assert plain.admin is plain.health is plain.workers is None
    origins = {"connect_timeout_s": "flag", "metrics_bind_address": "flag"}
    given = Settings(connect_timeout_s=2, dns_bind_address=("127.0.0.1", 5353), origins=origins)
    made = make_options(given, source)
    assert made.tuning.connect_timeout_s == 2
    assert made.dns == ("127.0.0.1", 5353)
    assert made.admin == given.metrics_bind_address


WEB = ForwardedPort("web.shop:80", "127.70.1.2:8080", 2)
DB = ForwardedPort("db.shop:5432", "127.90.4.4:5432", 0, "no pod is ready")
ONE = ForwardedPort("web.shop:80", "127.70.1.2:8080", 1)
MOVED = ForwardedPort("web.shop:80", "", 1, "the port is in use")


def by_name(*ports):
    return {port.name: port for port in ports}


def test_the_table_shows_names_addresses_and_services_not_forwarded():
    left_out = [("dns.shop:53/UDP", "port-forwards carry TCP only")]
    text = render_start(by_name(WEB, DB), left_out, head="Services of shop", dns="names: none")
    assert text == (
        "Services of shop\n"
        "  NAME          ADDRESS          PODS\n"
        "  web.shop:80   127.70.1.2:8080  2 pods\n"
        "  db.shop:5432  127.90.4.4:5432  no pod is ready\n"
        "not forwarded:\n"
        "  dns.shop:53/UDP  port-forwards carry TCP only\n"
        "names: none\n"
        "Ctrl-C ends it\n"
    )


def test_forward_prints_no_table_without_services():
    assert render_start({}, [], head="none", dns="dns") == "none\ndns\nCtrl-C ends it\n"


def test_a_long_reason_wraps_within_its_column_of_the_table():
    reason = "no pod with an address was found for selector app=wbe,tier=front"
    text = render_start(by_name(WEB), [("db.shop", reason)], head="h", dns="d", columns=60)
    assert text.splitlines()[3:6] == [
        "not forwarded:",
        "  db.shop  no pod with an address was found for selector",
        "           app=wbe,tier=front",
    ]


def test_each_change_of_forwarded_ports_is_printed():
    assert list(render_changes(by_name(WEB), by_name(WEB))) == []
    assert list(render_changes(by_name(WEB), by_name(ONE))) == ["  web.shop:80: 1 pod"]
    assert list(render_changes(by_name(ONE), by_name(MOVED))) == [
        "  web.shop:80 at -: the port is in use"
    ]
    assert list(render_changes(by_name(WEB), by_name(DB))) == [
        "+ db.shop:5432 at 127.90.4.4:5432: no pod is ready",
        "- web.shop:80 is gone",
    ]


def test_forward_prints_each_newly_unforwarded_port():
    udp, sctp = ("a:1/UDP", "TCP only"), ("a:2/SCTP", "TCP only")
    assert list(render_left_out([udp], [udp, sctp])) == ["  a:2/SCTP is not forwarded: TCP only"]


async def test_a_later_service_does_not_take_the_substitute_of_a_privileged_port(pods):
    await pods.start()
    prefix = "setpriv", "--bounding-set=-net_bind_service", "--"
    arguments = f"--master={pods.api.url}", "-n=shop", "--address=127.77.0.3"
    async with forwarding(*arguments, prefix=prefix) as running:
        assert (await running.line("  web"))[1] == "127.77.0.3:8080"
        pods.api.put(service("late", ports=[{"name": "http", "port": 8080}]))
        assert (await running.line("+ late"))[3] != "127.77.0.3:8080:"
        said = " ".join(await running.line("127.77.0.3:8080 is"))
    assert said == "127.77.0.3:8080 is that of web.shop:80 until this ends"


async def test_forward_reports_once_which_process_holds_an_address_or_the_dns_port(pods):
    await pods.start()
    pods.api.put(service(ports=[{"name": "http", "port": 9092}]))
    arguments = f"--master={pods.api.url}", "-n", "shop"
    async with forwarding(*arguments) as first:
        _, address, *_ = await first.line("  web")
        *_, port, _ = await first.line("names by DNS:")
        at = f"127.0.0.1:{port}"
        async with forwarding(*arguments) as second:
            *_, pid = await second.line(f"{address} is taken by")
        async with forwarding(*arguments, f"--dns-bind-address={at}") as third:
            status, said = await third.end()
    assert pid == str(first.process.pid)
    assert sum("is taken by" in line for line in second.lines) == 1
    assert status == 1
    assert said.startswith(f"error: cannot serve DNS on {at}: Address already in use by ")
    assert f" (pid {first.process.pid}) (choose another address" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "flag",
    ["--bind-address=0.0.0.0", "--workers=9", "--steering=nftables", "--proxy-ports=5000-5100"],
)
def test_flags_without_effect_in_forward_are_rejected(flag):
    with pytest.raises(ConfigError, match=f"{flag.partition('=')[0]} has no effect in forward"):
        forward(Given({}, ("web",), settings=(flag,)))
