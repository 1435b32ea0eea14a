"""One proxy's hooks in the kernel: translation, takeover, repair and removal."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.netns import Net
from tests.node.bpf_hooks import bpf_rights, in_cgroup, mounted, own_cgroup
from tests.node.socket_lb_programs import address_of, peer_of, serving
from tests.port_keys import port_key
from userspace_proxy.check.offers import look_at_hooks
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.bpf import calls
from userspace_proxy.kernel.bpf.objects import KINDS
from userspace_proxy.kernel.offers import LACKS_NOTHING
from userspace_proxy.model import Frontend, PortKey, Protocol, SocketAddress
from userspace_proxy.steering.base import (
    REFUSE,
    Affinity,
    EndpointChoice,
    KernelTarget,
)
from userspace_proxy.steering.socket_lb import (
    HookOptions,
    Hooks,
    remove_abandoned_hooks,
)
from userspace_proxy.steering.socket_lb.desired import COUNTERS, SLOTS
from userspace_proxy.steering.socket_lb.other_hooks import OWN_PINS
from userspace_proxy.steering.socket_lb.programs import folder_of
from userspace_proxy.steering.socket_lb.socket_maps import (
    SETTINGS_KEY,
    DialSettings,
    Ejection,
    EventKind,
    frontend_key,
)

pytestmark = [pytest.mark.netns, pytest.mark.needs("connect hooks")]

# Frontends at addresses without a route: untranslated dials fail immediately.
WEB, CART = (Frontend(f"10.96.0.{n}", 80, Protocol.TCP) for n in (1, 2))
WEB_6 = Frontend("fd96::1", 80, Protocol.TCP)
POD, POD_6 = "10.244.1.1", "fd00:244::1"
NAME, CART_NAME = port_key("shop/web"), port_key("shop/cart")
PROG_ATTACH = 8
# BPF: r0 = 1; exit.
RETURN_1 = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)


def to(*endpoints: SocketAddress, name: PortKey = NAME, affinity: int = 0) -> KernelTarget:
    pinned = Affinity(str(name), affinity) if affinity else None
    return KernelTarget(20000, (EndpointChoice(endpoints),), pinned, name=name)


@dataclass
class Stage:
    """A cgroup in which this test dials, a bpffs mount, a node, and hooks that use them."""

    cgroup: Path
    names: Path
    node: Net
    started: list[Hooks] = field(default_factory=list)

    def make(self, proxy_name: str = "", **options: bool) -> Hooks:
        hooks = Hooks(HookOptions(cgroup=str(self.cgroup), **options), proxy_name, names=self.names)
        self.started.append(hooks)
        return hooks

    def start(self, proxy_name: str = "") -> Hooks:
        hooks = self.make(proxy_name)
        hooks.start()
        return hooks

    def pins(self) -> dict[str, Path]:
        return {path.name.partition("-")[0]: path for path in (self.names / OWN_PINS).glob("*/*/*")}

    def dial(self, frontend: Frontend) -> socket.socket:
        with self.node:
            return socket.create_connection(frontend.address)

    def outcome(self, frontend: Frontend) -> str:
        try:
            with self.dial(frontend) as dialled:
                return str(peer_of(dialled))
        except OSError as exc:
            return str(exc.strerror)


@pytest.fixture(autouse=True)
def rights() -> Iterator[None]:
    with bpf_rights():
        yield


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    node = Net("node")
    node.run(f"ip address add {POD}/32 dev lo")
    node.run(f"ip address add {POD_6}/128 dev lo nodad")
    with (
        mounted(tmp_path / "names", "bpf") as names,
        own_cgroup(tmp_path / "cgroup") as cgroup,
        in_cgroup(cgroup),
    ):
        stage = Stage(cgroup, names, node)
        yield stage
        for hooks in stage.started:
            hooks.remove()
            hooks.close()
    node.close()


@pytest.fixture
def server(stage: Stage) -> Iterator[socket.socket]:
    with serving(stage.node, POD) as server:
        yield server


@pytest.fixture
def other(stage: Stage) -> Iterator[socket.socket]:
    with serving(stage.node, POD) as server:
        yield server


@contextlib.contextmanager
def refused(hooks: Hooks, name: str) -> Iterator[None]:
    """Make the kernel refuse reads and writes of a map within the block."""
    assert hooks._programs is not None
    maps = hooks._programs.maps
    with Path("/dev/null").open("rb") as null:
        table, maps[name] = maps[name], null.fileno()
        yield
        maps[name] = table


def accepted(server: socket.socket) -> bool:
    server.setblocking(False)
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_frontends_of_a_failed_hook_change_use_the_rules_until_repaired(
    stage: Stage, server: socket.socket, other: socket.socket
) -> None:
    hooks = stage.start()
    hooks.replace({WEB: to(address_of(server)), CART: to(address_of(server), name=CART_NAME)})
    with refused(hooks, SLOTS):
        hooks.change({WEB: to(address_of(other))})
        hooks.change({CART: to(address_of(other), name=CART_NAME)})
    assert "Invalid argument" in hooks.state.problem
    # No rules exist here.
    assert [stage.outcome(WEB), stage.outcome(CART)] == ["Network is unreachable"] * 2
    hooks.repair()
    assert stage.outcome(WEB) == str(WEB.address)
    assert (accepted(server), accepted(other)) == (False, True)
    assert not hooks.state.problem


def test_frontends_no_longer_steerable_by_hooks_are_removed_before_rules_change(
    stage: Stage, server: socket.socket, other: socket.socket
) -> None:
    hooks = stage.start()
    hooks.replace({WEB: to(address_of(server)), CART: to(address_of(server), name=CART_NAME)})
    hooks.leave({WEB: to(address_of(other)), CART: REFUSE})
    assert stage.outcome(CART) == "Network is unreachable"
    assert stage.outcome(WEB) == str(WEB.address)
    hooks.leave_all_but({})
    assert stage.outcome(WEB) == "Network is unreachable"


def test_a_removed_endpoint_is_counted_until_its_connections_end(
    stage: Stage, server: socket.socket, other: socket.socket
) -> None:
    hooks, at = stage.start(), (NAME, address_of(server))
    hooks.replace({WEB: to(address_of(server))})
    with stage.dial(WEB):
        hooks.change({WEB: to(address_of(other))})
        hooks.repair()
        assert hooks.counts()[at].established == 1
        accepted(server)
    wait_for("the dial's end", lambda: hooks.counts()[at].ended == 1)
    hooks.repair()
    assert at not in hooks.counts()


def test_a_refusal_is_reported_and_ejects_no_endpoint_for_all_clients(stage: Stage) -> None:
    hooks = stage.start()
    dead = SocketAddress(POD, 9)
    hooks.replace({WEB: to(dead)})
    assert stage.outcome(WEB) == "Connection refused"
    (event,) = hooks.take_events()
    assert (event.seen.kind, event.name, event.endpoint) == (EventKind.REFUSED, NAME, dead)
    assert event.seen.frontend == WEB.address
    assert hooks.ejected() == {}


def begin_probe(hooks: Hooks) -> None:
    """Mark the only ejection as being probed, as a dial does once the ejection is due."""
    programs = hooks._running()
    table = programs.maps["ejected"]
    ((key, value),) = calls.elements(table, programs.specs["ejected"])
    probed = Ejection.unpack(value)._replace(kind=EventKind.PROBED)
    calls.update(table, key, probed.pack())


@pytest.mark.kernel
def test_an_ejection_for_all_clients_is_prolonged_by_failed_probes(stage: Stage) -> None:
    hooks = stage.start()
    dead = SocketAddress(POD, 9)
    at, refused = (NAME, dead), EventKind.REFUSED
    hooks.replace({WEB: to(dead), CART: to(SocketAddress(POD, 10), name=CART_NAME)})
    assert hooks.eject("shop/none", dead, refused) is None
    for lasts_s in (5, 10, 20, 40, 60, 60):
        until = hooks.eject(*at, refused)
        assert until is not None
        assert lasts_s - 1 < until - time.monotonic() <= lasts_s
        assert list(hooks.ejected()) == [at]
        assert lasts_s - 1 < hooks.ejected()[at] <= lasts_s
        # The ejection is already in effect.
        assert hooks.eject(*at, refused) is None
        begin_probe(hooks)
        assert hooks.ejected() == {at: 0.0}
    hooks.readmit(*at)
    assert hooks.ejected() == {}


@pytest.mark.kernel
def test_the_next_process_takes_over_ids_counters_and_open_connections(
    stage: Stage, server: socket.socket, other: socket.socket
) -> None:
    wanted = {WEB: to(address_of(server), affinity=60)}
    first = stage.start()
    first.replace(wanted)
    dialled = stage.dial(WEB)
    pins = {name: path.stat().st_ino for name, path in stage.pins().items()}
    counts = first.counts()
    first.close()
    assert stage.outcome(WEB) == str(WEB.address)
    second = stage.start()
    assert stage.outcome(WEB) == str(WEB.address)
    second.replace(wanted)
    assert {name: path.stat().st_ino for name, path in stage.pins().items()} == pins
    assert peer_of(dialled) == WEB.address
    (at,) = counts
    # Other connections may end in the meantime.
    assert second.inherited[at].established == second.counts()[at].established
    assert second.counts()[at].established == counts[at].established + 2
    dialled.close()
    accepted(server)
    wait_for("the dial's end", lambda: second.counts()[at].ended >= 1)
    second.change({WEB: to(address_of(server), address_of(other), affinity=60)})
    # The client keeps its endpoint.
    for _ in range(8):
        stage.dial(WEB).close()
    assert not accepted(other)


@pytest.mark.parametrize("unread", [SLOTS, COUNTERS])
def test_state_of_a_previous_process_is_read_again_after_a_failure(
    stage: Stage, server: socket.socket, other: socket.socket, unread: str
) -> None:
    at = (NAME, address_of(server))
    first = stage.start()
    first.replace({WEB: to(address_of(server))})
    stage.dial(WEB).close()
    first.close()
    second = stage.start()
    with refused(second, unread):
        second.replace({})
        assert second.state.problem == "Invalid argument"
        second.change({WEB: to(address_of(server)), CART: to(address_of(other), name=CART_NAME)})
        term = term_s(stage)
        second.repair()
        assert second.state.problem == "Invalid argument"
        # The frontend is translated as before, but its term isn't extended.
        assert stage.outcome(WEB) == str(WEB.address)
        assert term_s(stage) < term
    second.change({CART: None})
    assert second.state.problem == ""
    assert second.inherited[at].established == 2
    assert (stage.outcome(WEB), stage.outcome(CART)) == (str(WEB.address), "Network is unreachable")


def test_removed_frontends_of_a_previous_process_are_no_longer_steered(
    stage: Stage, server: socket.socket
) -> None:
    first = stage.start()
    first.replace({WEB: to(address_of(server)), CART: to(address_of(server), name=CART_NAME)})
    first.close()
    second = stage.start()
    second.replace({WEB: to(address_of(server))})
    assert stage.outcome(CART) == "Network is unreachable"
    assert set(second.counts()) == {(NAME, address_of(server))}


def test_the_next_start_attaches_the_programs_to_a_new_cgroup(
    stage: Stage, server: socket.socket
) -> None:
    below = stage.cgroup / "below"
    below.mkdir()
    first = Hooks(HookOptions(cgroup=str(below)), "", names=stage.names)
    stage.started.append(first)
    first.start()
    wanted = {WEB: to(address_of(server))}
    first.replace(wanted)
    # This process isn't in that cgroup.
    assert stage.outcome(WEB) == "Network is unreachable"
    second = stage.start()
    second.replace(wanted)
    assert stage.outcome(WEB) == str(WEB.address)
    assert attached(below) == []
    first.close()
    below.rmdir()


@pytest.mark.kernel
def test_elements_changed_by_another_program_are_restored(
    stage: Stage, server: socket.socket
) -> None:
    hooks = stage.start()
    hooks.replace({WEB: to(address_of(server))})
    with table(stage, "frontends4") as frontends:
        assert calls.delete(frontends, frontend_key(WEB.address))
        calls.update(frontends, frontend_key(CART.address), bytes(16))
    wait_for("the repair", lambda: repairs(hooks) == 1)
    with table(stage, "frontends4") as frontends:
        assert calls.lookup(frontends, frontend_key(CART.address), 16) is None
        assert stage.outcome(WEB) == str(WEB.address)
        assert calls.delete(frontends, frontend_key(WEB.address))
    with refused(hooks, COUNTERS):
        wait_for("the failing repair", lambda: hooks.repair() or hooks.state.problem)
    hooks.repair()
    assert stage.outcome(WEB) == str(WEB.address)


def test_a_program_attached_later_by_another_owner_is_logged_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = stage.start()
    hooks.repair()
    assert caplog.messages == []
    place = os.open(stage.cgroup, os.O_RDONLY)
    program = calls.load_program("cgroup/connect4", RETURN_1)
    link = calls.attach("cgroup/connect4", program, place)
    number = calls.program_info(program).id
    hooks.repair()
    hooks.repair()
    for descriptor in (place, program, link):
        os.close(descriptor)
    what = "another program may change what this node's programs dial"
    where = f"connect4, id {number}, at connect4"
    assert caplog.messages == [
        f"BPF program may interfere with socket load balancing: {what} ({where})"
    ]
    hooks.repair()
    assert len(caplog.messages) == 1


def test_a_change_during_a_counter_read_is_not_a_repair(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = stage.start()
    hooks.replace({WEB: to(SocketAddress(POD, 1))})
    read = hooks._elements

    def read_and_change(name: str) -> list[tuple[bytes, bytes]]:
        found = read(name)
        monkeypatch.setattr(hooks, "_elements", read)
        hooks.change({CART: to(SocketAddress(POD, 2), name=CART_NAME)})
        return found

    monkeypatch.setattr(hooks, "_elements", read_and_change)
    assert len(hooks.counts()) == 1
    hooks.repair()
    assert hooks.state.repairs == 0
    assert len(hooks.counts()) == 2


def test_hooks_stop_translating_after_their_term_expires(
    stage: Stage, server: socket.socket
) -> None:
    hooks = stage.start()
    hooks.replace({WEB: to(address_of(server))})
    assert 50 < term_s(stage) <= 60
    with table(stage, "settings") as settings:
        ended = DialSettings(valid_until_ns=time.monotonic_ns())
        calls.update(settings, SETTINGS_KEY, ended.pack())
    assert stage.outcome(WEB) == "Network is unreachable"
    hooks.observe(True)
    hooks.repair()
    assert 50 < term_s(stage) <= 60
    assert stage.outcome(WEB) == str(WEB.address)


def end_term(folder: Path, ago_s: float = 100.0) -> None:
    """End the term of a proxy's pins, as if its process had exited ``ago_s`` seconds ago."""
    (pin,) = folder.glob("settings-*")
    settings = calls.pinned(pin)
    ended = DialSettings(valid_until_ns=time.monotonic_ns())
    calls.update(settings, SETTINGS_KEY, ended.pack())
    os.close(settings)
    began = time.time() - ago_s
    os.utime(folder, (began, began))


def test_abandoned_hooks_of_another_namespace_are_removed_after_their_term(stage: Stage) -> None:
    pod = Net("pod")
    with pod:
        gone, runs, begins = (stage.start(name) for name in ("gone", "runs", "begins"))
        folders = [folder_of(stage.names, name) for name in ("gone", "runs", "begins")]
    here = stage.start("here")
    own = folder_of(stage.names, "here")
    assert remove_abandoned_hooks(stage.names) == []
    for folder in (own, folders[0]):
        end_term(folder)
    os.utime(folders[1], (0, 0))
    end_term(folders[2], ago_s=1)
    assert remove_abandoned_hooks(stage.names) == [f"{folders[0].parent.name}/gone"]
    assert [folder.exists() for folder in (own, *folders)] == [True, False, True, True]
    assert len(attached(stage.cgroup)) == 3
    with pod:
        for hooks in (gone, runs, begins):
            hooks.remove()
    here.remove()
    assert not (stage.names / OWN_PINS).exists()
    assert remove_abandoned_hooks(stage.names) == []
    pod.close()


def test_an_exclusive_cgroup_program_prevents_startup_without_leftovers(stage: Stage) -> None:
    program = calls.load_program("cgroup/connect4", RETURN_1)
    folder = os.open(stage.cgroup, os.O_RDONLY)
    # Attach the program without BPF_F_ALLOW_MULTI.
    calls._call(
        PROG_ATTACH, struct.pack("=5I", folder, program, KINDS["cgroup/connect4"].attach, 0, 0)
    )
    words = "another program at cgroup/connect4 admits no other"
    with pytest.raises(SteeringError, match=words):
        stage.start()
    wanted = HookOptions(is_required=True, cgroup=str(stage.cgroup))
    (found,) = look_at_hooks(wanted, "nftables", LACKS_NOTHING, stage.names)
    assert (found.mark, words in found.what) == ("error", True)
    assert stage.pins() == {}
    assert len(attached(stage.cgroup)) == 1
    for descriptor in (folder, program):
        os.close(descriptor)


def test_hooks_whose_events_cannot_be_mapped_are_not_attached(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel maps exactly one page of a ring for writing.
    monkeypatch.setattr(mmap, "PAGESIZE", 2 * mmap.PAGESIZE)
    with pytest.raises(SteeringError, match=r"cannot translate connect\(\) in"):
        stage.start()
    assert (stage.pins(), list(attached(stage.cgroup))) == ({}, [])


@contextlib.contextmanager
def table(stage: Stage, name: str) -> Iterator[int]:
    descriptor = calls.pinned(stage.pins()[name])
    yield descriptor
    os.close(descriptor)


def term_s(stage: Stage) -> float:
    """Return the seconds for which the programs will translate."""
    with table(stage, "settings") as settings:
        value = calls.lookup(settings, SETTINGS_KEY, len(DialSettings().pack()))
    return (DialSettings.unpack(value or b"").valid_until_ns - time.monotonic_ns()) / 1e9


def repairs(hooks: Hooks) -> int:
    """Repair, and return the number of repairs so far."""
    hooks.repair()
    return hooks.state.repairs


def attached(cgroup: Path) -> list[int]:
    folder = os.open(cgroup, os.O_RDONLY)
    try:
        return calls.attached("cgroup/connect4", folder)[1]
    finally:
        os.close(folder)
