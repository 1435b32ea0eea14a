"""Settings become a proxy's options and source; tests/node runs the process."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.processes import started
from tests.unit.agent.holders import CONTAINER
from tests.unit.agent.watched import until
from tests.unit.sources.running import running
from userspace_proxy.agent import run
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.agent.run import make_options, make_source, run_agent, settle_memory
from userspace_proxy.child import RESTARTED
from userspace_proxy.config import InheritedSocket, PortRange, Settings
from userspace_proxy.config.load import load_settings
from userspace_proxy.errors import ConfigError, UserspaceProxyError
from userspace_proxy.model import DataPath, SocketAddress
from userspace_proxy.version import __version__, own_commit
from userspace_proxy_testing.fakes.api_server import FakeApiServer


def test_settings_become_options_of_the_proxy():
    options = make_options(
        Settings(
            service_proxy_name="canary",
            proxy_port_range=PortRange(20000, 20999),
            connect_timeout_s=0.25,
            udp_idle_s=9.0,
            iptables_min_sync_period_s=0.5,
            healthz_bind_address=None,
            dns_bind_address=SocketAddress("127.0.0.1", 5353),
            dns_upstream=SocketAddress("192.0.2.53", 53),
            cluster_domain="test",
        )
    )
    assert options.proxy_name == "canary"
    assert options.proxy_ports == (20000, 20999)
    assert options.tuning.connect_timeout_s == 0.25
    assert options.tuning.udp_idle_s == 9.0
    assert options.min_sync_period_s == 0.5
    assert options.health is None
    assert (options.dns, options.dns_upstream) == (("127.0.0.1", 5353), ("192.0.2.53", 53))
    assert options.cluster_domain == "test"
    assert options.admin == ("127.0.0.1", 10249)
    assert not options.allow_loopback_endpoints


def test_configz_contains_every_setting():
    names = {name for name, _, _ in make_options(Settings()).config}
    assert {"steering", "proxy_port_range", "udp_idle_s"} <= names


def test_an_inherited_socket_becomes_the_admin_socket():
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        settings = replace(Settings(), metrics_bind_address=InheritedSocket(inherited.fileno()))
        bind = make_options(settings).admin
        assert isinstance(bind, socket.socket)
        assert bind.getsockname() == inherited.getsockname()
        bind.detach()


def test_a_descriptor_other_than_a_socket_is_rejected():
    settings = replace(Settings(), metrics_bind_address=InheritedSocket(99999))
    with pytest.raises(ConfigError, match="--metrics-bind-address: descriptor 99999 is not"):
        make_options(settings)


def test_configured_manifests_are_the_source_instead_of_an_api_server():
    source = make_source(Settings(manifests="services/"))
    assert source.kind == "manifests"
    assert source.location == "services/"


async def test_the_setting_endpoints_from_pods_makes_the_source_request_pods():
    async with FakeApiServer() as api:
        source = make_source(Settings(master=api.url, endpoints_from_pods=True))
        async with running(source) as published:
            await published.first()
        assert any("/api/v1/pods" in line for line in api.requests)


def test_endpoints_on_the_node_need_a_flag_only_with_an_api_server():
    assert not make_options(Settings()).allow_node_endpoints
    assert make_options(Settings(allow_node_endpoints=True)).allow_node_endpoints
    assert make_options(Settings(manifests="m.yaml")).allow_node_endpoints


def test_network_settings_become_options_of_the_proxy():
    options = make_options(
        Settings(
            nodeport_addresses=("primary",),
            allow_external_ips=("203.0.113.0/24",),
            cluster_cidr=("10.0.0.0/8", "fd00::/8"),
            detect_local_mode="NodeCIDR",
        )
    )
    assert options.node_port_networks == ("primary",)
    assert options.external_ip_networks == ("203.0.113.0/24",)
    assert options.cluster_networks == ("10.0.0.0/8", "fd00::/8")
    assert options.only_own_pods
    assert not make_options(Settings()).only_own_pods


def test_the_service_range_setting_applies_only_to_manifests():
    settings = Settings(service_cluster_ip_range=("10.96.0.0/16",))
    assert make_options(settings).service_cidrs == ()
    assert make_options(replace(settings, manifests="services/")).service_cidrs == ("10.96.0.0/16",)


@pytest.mark.netns
@pytest.mark.parametrize("end", ["the server answers", "the running proxy ends"])
async def test_a_successor_waits_until_it_can_read_services_or_the_running_proxy_ends(
    end, monkeypatch, caplog
):
    monkeypatch.setattr(run, "_ASK_AGAIN_S", 0.01)
    lock = NodeLock("canary")
    lock.take()
    async with FakeApiServer() as api:
        api.denied.add("list services")
        settings = Settings(master=api.url, service_proxy_name="canary", take_over=True)
        waiting = asyncio.create_task(run._await_api_server(settings))
        await until(lambda: "the running proxy keeps the node until this" in caplog.text)
        assert not waiting.done()
        if end == "the server answers":
            api.denied.clear()
        else:
            lock.release()
        async with asyncio.timeout(60):
            await waiting
    lock.release()


def test_a_restarted_process_waits_if_another_process_has_taken_over_the_node(tmp_path):
    lock = NodeLock("canary")
    lock.take()
    flags = (f"--manifests={tmp_path}", "--service-proxy-name=canary", "--take-over")
    command = [*CONTAINER, sys.executable, "-m", "userspace_proxy", "run", *flags]
    with started(command, stderr=subprocess.PIPE, env={**os.environ, RESTARTED: "1"}) as process:
        assert any("another process has taken over the node" in line for line in process.stderr)
    lock.release()


class Tracked:
    """An object that the garbage collector tracks."""


def test_settling_memory_collects_garbage_and_freezes_live_objects():
    alive, dead = Tracked(), Tracked()
    dead.itself = dead
    del dead
    settle_memory()
    try:
        assert not any(isinstance(thing, Tracked) for thing in gc.get_objects())
    finally:
        gc.unfreeze()
    assert [thing for thing in gc.get_objects() if isinstance(thing, Tracked)] == [alive]
    # Freeze objects again, because tests/conftest.py had frozen them.
    gc.freeze()


def test_importing_the_agent_imports_no_slow_module_that_the_saved_state_does_not_need():
    script = (
        "import sys\n"
        "import userspace_proxy.agent.run, userspace_proxy.sources.kubernetes\n"
        "slow = {'aiohttp', 'jinja2', 'kubernetes_asyncio', 'prometheus_client', 'yaml'}\n"
        "print('imported:', *slow & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "imported:\n", done.stderr


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        pytest.param([], {*DataPath}, id="all-by-default"),
        pytest.param(
            ["--allow-paths=userspace,kernel"], {DataPath.USERSPACE, DataPath.KERNEL}, id="two"
        ),
        pytest.param(["--allow-paths="], set(), id="none"),
    ],
)
def test_a_flag_lists_the_paths_that_annotations_may_select(words, allowed):
    assert set(make_options(load_settings(words).settings).allowed_paths) == allowed


def test_the_first_log_line_names_the_build_and_the_settings(caplog):
    caplog.set_level("INFO")
    settings = load_settings(["--manifests=/nowhere", "--v=2"]).settings
    with pytest.raises(UserspaceProxyError):
        run_agent(replace(settings, steering="none"), ["a warning"], lambda *_: None)
    first = caplog.records[0]
    assert (first.message, first.version, first.commit) == ("starting", __version__, own_commit())
    assert first.settings == "--manifests=/nowhere --v=2"
