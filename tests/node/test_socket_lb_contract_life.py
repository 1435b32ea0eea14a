"""The contract of the kernel path, for rules and hooks: changes, crashes, upgrades, stops."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import CLEANUP
from tests.node.clients import DEADLINE_S, repeated
from tests.node.endpoints import VERSIONS
from tests.node.load import Outcome
from tests.node.socket_lb import HOOKS, MARKS, MODES, Dial, SocketNode, Web, met, socket_node
from userspace_proxy.kernel.bpf import calls

pytestmark = MARKS

MANY = 10_000
REPAIR_S = 2.0
REPAIRED = "restored parts of connect() hooks that another program changed"
LINK_DETACH = 34
# The rules of a node that forwards without connection tracking.
NO_TRACKING = """
table ip raw {
    chain prerouting {
        type filter hook prerouting priority raw
        meta l4proto tcp ip saddr 10.244.0.0/16 notrack
    }
}
"""
# Prints how many connections were made.
DIAL_MANY = """
import socket, struct, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(count):
    with socket.create_connection((host, port)) as made:
        # Close without TIME_WAIT, which would use up the local ports.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print(count)
"""


class Life:
    """A node with one Service, whose endpoints and path change."""

    def __init__(self, node: SocketNode) -> None:
        self.node = node
        self.agent = node.agent
        self.pod = node["pod"]
        self.one, self.two, self.three = node.add_backends("one", "two", "three")

    @staticmethod
    def web(*backends, path: str = "kernel") -> Web:
        return Web("web", 10, backends, path=path)

    def start(self) -> None:
        self.node.start(self.web(self.one, self.two))

    def address(self, version: int) -> tuple[str, int]:
        return self.web().cluster_ip(version)

    def dial(self, version: int) -> Dial:
        return Dial(self.pod, self.address(version)).connect()

    def met(self, version: int) -> set[str]:
        return met(self.pod, self.address(version))

    def meets(self, *names: str) -> bool:
        """Return whether clients of each family get exactly these answers."""
        return all(self.met(version) == {*names} for version in VERSIONS)

    def switch(self, path: str) -> None:
        self.node.change(self.web(self.one, self.two, path=path))
        self.node.wait_for_path(path)

    def way(self) -> str:
        with self.dial(4) as dial:
            return dial.way

    def load(self) -> contextlib.AbstractContextManager[list[Outcome]]:
        return self.node.load(self.web())

    def replace(self, *flags: str) -> None:
        self.node.replace_agent(*flags)

    def dial_many(self) -> int:
        """Make connections from the pod; return the number that succeeded."""
        command = [sys.executable, "-IS", "-c", DIAL_MANY, *map(str, (*self.address(4), MANY))]
        return int(self.pod.host.run(command, timeout=DEADLINE_S).stdout)

    def is_of_pod(self, line: str) -> bool:
        """Return whether a line of conntrack is a connection of the pod."""
        return f"src={self.pod.host.ip} " in line

    def pins(self) -> list[Path]:
        """Return the proxy's pins in the test's bpffs."""
        assert self.agent.pins is not None
        # The kernel adds its own files to each bpffs.
        return sorted(p for p in self.agent.pins.glob("userspace-proxy/**/*") if p.is_file())


@pytest.fixture(params=MODES)
def life(request, tmp_path) -> Iterator[Life]:
    with socket_node(tmp_path, request.param) as node:
        yield Life(node)


@pytest.fixture
def hooked(tmp_path) -> Iterator[Life]:
    with socket_node(tmp_path, HOOKS) as node:
        life = Life(node)
        life.start()
        yield life


def test_a_service_switches_paths_without_a_failed_request(life):
    life.start()
    with contextlib.ExitStack() as stack, life.load():
        opened = [stack.enter_context(life.dial(version)) for version in VERSIONS]
        for path in ("userspace", "kernel"):
            life.switch(path)
            assert life.way() == (life.node.way if path == "kernel" else "rules")
            opened += [stack.enter_context(life.dial(version)) for version in VERSIONS]
            for dial in opened:
                assert dial.peer == dial.address
                assert dial.ask() in ("one", "two")


@pytest.mark.kernel
def test_a_removed_endpoint_gets_no_new_connection(life):
    life.start()
    with life.dial(4) as before, life.dial(6) as before_6:
        assert {before.ask(), before_6.ask()} <= {"one", "two"}
        life.node.change(life.web(life.three))
        assert life.meets("three")
        assert {before.ask(), before_6.ask()} <= {"one", "two"}
    life.node.change(life.web(life.one, life.three))
    assert life.meets("one", "three")
    life.node.change(life.web())
    assert life.meets("Connection refused")
    life.node.change(life.web(life.two))
    assert life.meets("two")


def test_endpoints_are_served_through_a_crash_and_the_next_start(life):
    life.start()
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(life.dial(version)) for version in VERSIONS]
        life.agent.kill()
        assert life.meets("one", "two")
        opened += [stack.enter_context(life.dial(version)) for version in VERSIONS]
        assert {dial.way for dial in opened} == {life.node.way}
        life.agent.start_until_ready()
        assert life.meets("one", "two")
        life.node.change(life.web(life.three))
        assert life.meets("three")
        for dial in opened:
            assert dial.ask() in ("one", "two")
            assert dial.peer == dial.address


@pytest.mark.parametrize("life", [HOOKS], indirect=True)
def test_a_takeover_refuses_and_resets_no_client(life):
    life.start()
    life.agent.stop()
    flags = life.agent.flags
    life.agent.flags = (*flags, "--take-over", "--drain-timeout=30s")
    life.agent.start_until_ready()
    with life.load(), life.dial(4) as before, repeated(life.way, pause_s=0.02) as ways:
        for _ in range(2):
            life.replace(*flags)
            assert before.ask() in ("one", "two")
    assert set(ways) == {life.node.way}
    life.node.change(life.web(life.three))
    assert life.met(4) == {"three"}


def test_disabling_hooks_after_a_crash_removes_them_and_ends_no_connection(hooked):
    hooked.agent.kill()
    hooked.agent.flags = without_hooks(hooked.agent.flags)
    with hooked.dial(4) as before:
        assert before.way == "hooks"
        hooked.agent.start_until_ready()
        assert hooked.way() == "rules"
        assert before.ask() in ("one", "two")
    assert hooked.pins() == []


def test_cleanup_removes_the_hooks(hooked):
    hooked.agent.kill()
    assert hooked.pins()
    # The leftovers of a proxy in another network namespace that exited during startup.
    assert hooked.agent.pins is not None
    gone = hooked.agent.pins / "userspace-proxy" / "1" / "canary"
    gone.mkdir(parents=True)
    os.utime(gone, (0, 0))
    done = hooked.agent.run(command=hooked.agent.seeing_pins(CLEANUP))
    assert done.returncode == 0, done.stderr
    assert hooked.pins() == []
    assert not gone.parent.exists()
    assert hooked.met(4) == {"No route to host"}


def test_a_stopping_proxy_removes_its_hooks(hooked):
    with hooked.dial(4) as before:
        assert hooked.agent.stop() == 0
        assert hooked.pins() == []
        assert before.ask() in ("one", "two")
    assert hooked.met(4) == {"No route to host"}


def without_hooks(flags: tuple[str, ...]) -> tuple[str, ...]:
    return ("--socket-lb=off", *(flag for flag in flags if not flag.startswith("--socket-lb")))


def test_all_removed_pins_and_links_are_restored(hooked):
    pins = hooked.pins()
    with repair(hooked):
        for pin in pins:
            detach(pin)
            pin.unlink()
        wait_for("the pins", lambda: hooked.pins() == pins, deadline_s=REPAIR_S)
        wait_for("the hooks", lambda: hooked.way() == "hooks", deadline_s=REPAIR_S)
    hooked.node.change(hooked.web(hooked.three))
    assert hooked.met(4) == {"three"}


@contextlib.contextmanager
def repair(life: Life) -> Iterator[None]:
    """After the block, wait until the log reports a repair that it didn't report before."""
    before = life.agent.log().count(REPAIRED)
    yield

    def is_logged() -> bool:
        return life.agent.log().count(REPAIRED) > before

    wait_for("the repair in the log", is_logged, deadline_s=10.0, hint=life.agent.log)


def detach(pin: Path) -> bool:
    """Detach the program of a pinned link; return False if the pin isn't a link."""
    descriptor = calls.pinned(pin)
    try:
        calls._call(LINK_DETACH, struct.pack("=I", descriptor))
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def test_with_host_only_the_rules_translate_dials_from_pods(tmp_path):
    with socket_node(tmp_path, HOOKS, "--socket-lb-host-only") as node:
        life = Life(node)
        life.start()
        ways = {}
        for name in ("pod", "node-1"):
            with Dial(node[name], life.address(4)).connect() as dial:
                assert dial.ask() in ("one", "two")
                ways[name] = dial.way
        assert ways == {"pod": "rules", "node-1": "hooks"}


def test_translated_connections_create_no_conntrack_entries(hooked):
    hooked.node.shell(f"nft -f - <<'END'\n{NO_TRACKING}\nEND")
    assert hooked.dial_many() == MANY
    tracked = hooked.node.shell("conntrack -L -p tcp 2>/dev/null")
    assert [line for line in tracked.splitlines() if hooked.is_of_pod(line)] == []
