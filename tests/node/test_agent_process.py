"""The agent as a process: a log that is not read, signals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Iterator

import agent_harness as harness
import pytest
from agent_harness import House, Service, wait_for

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
OTHER = Service("other", "10.96.0.11")
# A pipe of 4 KiB, and what is in the thread's hands.
LINES = 100
REPEATED = 50
RANGE = range(17000, 17008)
DROPPED = "userspace_proxy_log_lines_dropped_total"


@pytest.fixture
def house(tmp_path):
    with House(tmp_path, "nftables", "--workers=1", clients=["pod"]) as house:
        house.ips = house.add_pods("one", tcp=8080)
        house.agent.manifests.write(harness.with_endpoints(WEB, house.ips))
        yield house


@pytest.fixture
def stderr() -> Iterator[tuple[int, int]]:
    """A pipe of 4 KiB: what reads, and what writes."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    yield ours, theirs
    for descriptor in (ours, theirs):
        os.close(descriptor)


def is_full(descriptor: int) -> bool:
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    return not room.poll(0)


def test_a_log_that_is_not_read_stops_nothing(house, stderr):
    _, theirs = stderr
    house.agent.flags = ("--workers=1", "--v=4", "--drain-timeout=0s")
    house.agent.start_until_ready(theirs)
    # Each is a line of a worker, which the control process writes.
    for _ in range(LINES):
        assert house["pod"].get(WEB.address)
    wait_for("a full pipe", lambda: is_full(theirs))

    services = [harness.with_endpoints(service, house.ips) for service in (WEB, OTHER)]
    house.edit(*services)
    house.agent.wait_until_settled(*services)
    assert house["pod"].get(OTHER.address)
    assert house.agent.read("/livez", port=harness.HEALTH)[0] == 200
    assert DROPPED in house.agent.read("/metrics")[1]
    assert house.agent.stop() == 0
    assert "userspace-proxy" not in house.rules()


def test_rounds_write_nothing_at_the_lowest_verbosity(house):
    house.agent.flags = ("--workers=1", "--v=0")
    house.agent.start_until_ready()
    before = house.agent.log()
    services = [harness.with_endpoints(WEB, house.ips)]
    for number in range(5):
        services.append(
            harness.with_endpoints(Service(f"s{number}", f"10.96.1.{number}"), house.ips)
        )
        house.edit(*services)
        house.agent.wait_until_settled(*services)
    assert "plan in force" in before
    assert house.agent.log().count("plan in force") == 1


def test_signals_that_ask_for_nothing_change_nothing(house):
    house.agent.start_until_ready()
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        house.agent.send(number)
        wait_for(
            "its line",
            lambda name=number.name: f"signal ignored signal={name}" in house.agent.log(),
        )
    assert house["pod"].get(WEB.address)
    assert house.agent.stop() == 0


def test_a_second_sigterm_ends_it_at_once_and_leaves_its_rules(house):
    house.agent.flags = ("--workers=1", "--drain-timeout=1h")
    house.agent.start_until_ready()
    children = harness.child_pids(house.agent.pid)
    client = house["pod"].dial(WEB.address)
    house.agent.send(signal.SIGTERM)
    wait_for("the drain", lambda: "stopping" in house.agent.log())

    def has_ended() -> bool:
        # What comes within a second of the first is no second request.
        house.agent.send(signal.SIGTERM)
        return not harness.is_alive(house.agent.pid)

    wait_for("its end", has_ended)
    assert house.agent.wait() == 128 + signal.SIGTERM
    wait_for("the end of its workers", lambda: not any(map(harness.is_alive, children)))
    client.close()
    assert "table inet userspace-proxy" in house.rules()
    house.agent.start_until_ready()
    assert house["pod"].get(WEB.address)
    assert house.agent.stop() == 0


def test_a_sigterm_that_timeout_sends_twice_is_one(house):
    house.agent.start_until_ready()
    assert house["pod"].get(WEB.address)
    # Of signals that come at the same moment the kernel delivers one, so two aren't enough.
    for _ in range(REPEATED):
        house.agent.send(signal.SIGTERM)
    assert house.agent.wait() == 0
    assert "userspace-proxy" not in house.rules()


def test_ports_that_another_program_has_keep_it_from_serving_no_longer_than_they_are_held(house):
    with contextlib.ExitStack() as stack:
        taken = {
            port: stack.enter_context(house.agent.listener(port))
            for port in (harness.HEALTH, harness.ADMIN)
        }
        house.agent.start()
        wait_for("its rules", lambda: "plan in force" in house.agent.log(), hint=house.agent.log)
        assert house["pod"].get(WEB.address)
        words = "Address already in use by"
        for said in (
            f"the status page on 127.0.0.1:{harness.ADMIN}",
            f"health checks on 0.0.0.0:{harness.HEALTH}",
        ):
            assert house.agent.log().count(f"cannot serve {said}: {words}") == 1
        for flag in ("--metrics-bind-address", "--healthz-bind-address"):
            assert f"choose another address with {flag}" in house.agent.log()
        taken[harness.ADMIN].close()
        wait_for("the page", lambda: "status address is served" in house.agent.log())
        (problem,) = house.agent.status()["unserved"]
        assert f"health checks on 0.0.0.0:{harness.HEALTH}: {words}" in problem["problem"]
    wait_for("its health", house.agent.is_healthy)
    assert house.agent.stop() == 0


def test_a_range_that_others_have_is_a_problem_of_its_services_alone(house):
    house.agent.flags = ("--workers=1", f"--proxy-port-range={RANGE[0]}-{RANGE[-1]}")
    with contextlib.ExitStack() as stack:
        for port in RANGE:
            stack.enter_context(house.agent.listener(port))
        house.agent.start_until_ready()
        (port,) = house.agent.status()["ports"]
        assert f"no proxy port of {RANGE[0]}-{RANGE[-1]} is free, " in port["problem"]
        with pytest.raises(ConnectionRefusedError):
            house["pod"].dial(WEB.address)
    wait_for("its Service", lambda: not house.agent.status()["ports"][0]["problem"])
    assert house["pod"].get(WEB.address)
    assert house.agent.stop() == 0


@harness.as_another_user
def test_a_strangers_socket_keeps_it_from_neither_start_nor_cleanup(house):
    with house.agent.unix_socket() as stranger, house.agent.unix_socket() as odd:
        stranger.bind("\0userspace-proxy")
        odd.bind(b"\0x\xff\xfe")
        os.seteuid(harness.NOBODY)
        stranger.listen()
        os.seteuid(0)

        house.agent.start_until_ready()
        assert house["pod"].get(WEB.address)
        second = house.agent.run()
        assert second.returncode == 1
        assert f"another userspace-proxy (pid {house.agent.pid}) steers" in second.stderr
        house.agent.kill()
        assert "table inet userspace-proxy" in house.rules()
        assert house.agent.run(command=harness.CLEANUP).returncode == 0
        assert "userspace-proxy" not in house.rules()
