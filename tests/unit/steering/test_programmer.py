"""The transaction of all steering modes, with a dict as the kernel."""

from __future__ import annotations

import time

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.base import REFUSE, Bind, SteeringFacts
from userspace_proxy.steering.programmer import (
    ProgrammedSteering,
    Programmer,
    ReleasedPorts,
    ranges_among,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)


class InMemory(Programmer):
    """A programmer that writes frontends to a dict, and rejects the frontends in ``refused``."""

    def __init__(self):
        super().__init__()
        self.kernel = {}
        self.refused = set()
        self.writes = []

    def start(self):
        return dict(self.kernel)

    def in_force(self):
        return dict(self.kernel)

    def clean_up(self):
        self.kernel.clear()
        self._applied = None

    def _load(self):
        self._set(self._applied)

    def _write(self, before, affected):
        assert before.keys() == affected.keys()
        self._set(affected)

    def _restore(self, affected, before):
        self._set(before)

    def _repair(self):
        self.kernel = dict(self._applied)
        return 7

    def _set(self, affected):
        self.writes.append(dict(affected))
        for frontend, port in affected.items():
            if frontend in self.refused and port is not None:
                raise SteeringError(f"{frontend} is refused")
            self.kernel[frontend] = port
        self.kernel = {f: port for f, port in self.kernel.items() if port is not None}


@pytest.fixture
def programmer():
    return InMemory()


def test_a_repeated_apply_writes_only_the_differences(programmer):
    programmer.apply({WEB: 36001, DNS: 36002})
    programmer.apply({WEB: 36003, CART: 36004})
    assert programmer.writes[1:] == [{WEB: 36003, CART: 36004, DNS: None}]
    assert programmer.kernel == {WEB: 36003, CART: 36004}
    programmer.apply({WEB: 36003})
    assert programmer.writes[2:] == [{CART: None}]


def test_the_unchanged_port_of_a_frontend_is_not_written(programmer):
    programmer.apply({WEB: 36001})
    programmer.change({WEB: 36001, CART: None})
    programmer.apply({WEB: 36001})
    assert programmer.writes == [{WEB: 36001}]


def test_a_failed_first_apply_does_not_count_as_applied(programmer):
    programmer.refused.add(WEB)
    with pytest.raises(SteeringError):
        programmer.apply({WEB: 36001})
    assert programmer.repair() == 0
    with pytest.raises(SteeringError, match="no steering was applied before"):
        programmer.change({DNS: 36002})


def test_a_rejected_change_is_undone_and_the_old_state_stays_desired(programmer):
    programmer.apply({WEB: 36001, DNS: 36002})
    programmer.refused.add(CART)
    with pytest.raises(SteeringError, match="is refused"):
        programmer.change({WEB: 36003, DNS: None, CART: 36004})
    assert programmer.kernel == {WEB: 36001, DNS: 36002}
    programmer.repair()
    assert programmer.kernel == {WEB: 36001, DNS: 36002}
    programmer.refused.clear()
    programmer.change({WEB: 36003, DNS: None, CART: 36004})
    assert programmer.kernel == {WEB: 36003, CART: 36004}


class ByPort(ProgrammedSteering):
    name = "by-port"
    bind = Bind.PROXY_PORT


class ByFrontend(ProgrammedSteering):
    name = "by-frontend"
    bind = Bind.FRONTEND


@pytest.mark.parametrize(
    ("kind", "port"),
    [pytest.param(ByPort, 35999, id="proxy-port"), pytest.param(ByFrontend, 0, id="frontend")],
)
async def test_the_bind_mode_decides_whether_a_refused_frontend_has_the_refuse_port_or_port_0(
    programmer, kind, port
):
    steering = kind(SteeringFacts(refuse_port=35999), lambda: programmer)
    wanted = {WEB: 36001, CART: REFUSE}
    await steering.apply(wanted)
    assert programmer.kernel == {WEB: 36001, CART: port}
    wanted.clear()
    await steering.repair()
    assert await steering.render() == "TCP 10.96.7.1:80 -> :36001\nTCP 10.96.7.2:80 -> refuse"
    await steering.close()
    await steering.close()


async def test_without_a_refuse_port_a_refused_frontend_is_an_error(programmer):
    steering = ByPort(SteeringFacts(), lambda: programmer)
    with pytest.raises(SteeringError, match=r"cannot refuse 10\.96\.7\.2:80/TCP: no refuse port"):
        await steering.apply({WEB: 36001, CART: REFUSE})


async def test_the_programmers_findings_are_published_after_each_call(programmer):
    steering = ByPort(SteeringFacts(refuse_port=35999), lambda: programmer)
    programmer.unsteered = lambda: {WEB: "translated by another program"}
    programmer.unguarded = lambda: "no sockets here"
    assert await steering.repair() == 0
    assert steering.unsteered == {WEB: "translated by another program"}
    assert (steering.unguarded, steering.needs_transparent) == ("no sockets here", True)
    await steering.close()


def end_round(released):
    with released.end_round() as ended:
        return ended


def test_a_released_port_is_kept_for_at_least_a_full_round():
    released = ReleasedPorts()
    released.add([36001])
    assert end_round(released) == set()
    released.add([36002])
    assert sorted(released) == [36001, 36002]
    assert end_round(released) == {36001}
    assert list(released) == [36002]
    assert [end_round(released), end_round(released)] == [{36002}, set()]


def test_a_port_with_a_failed_guard_removal_is_kept():
    released = ReleasedPorts()
    released.add([36001])
    end_round(released)
    with pytest.raises(SteeringError), released.end_round():
        raise SteeringError("the kernel refused")
    assert list(released) == [36001]
    assert [end_round(released), end_round(released)] == [set(), {36001}]


def test_a_range_frontend_excludes_ports_of_other_frontends_of_its_address_and_protocol():
    old = Frontend("10.96.0.21", 100, Protocol.UDP, last=200)
    new = Frontend("10.96.0.21", 150, Protocol.UDP, last=250)
    single = Frontend("10.96.0.21", 120, Protocol.UDP)
    elsewhere = Frontend("10.96.0.22", 130, Protocol.UDP)
    other = Frontend("10.96.0.21", 140, Protocol.TCP)
    by_tcp = Frontend("10.96.0.21", 130, Protocol.TCP, last=180)
    found = ranges_among([old, new, by_tcp, WEB], [new, by_tcp, single, elsewhere, other, WEB])
    assert found.keys() == {old, new, by_tcp}
    assert (found[old].last, found[old].besides) == (200, {120, *range(150, 201)})
    assert (found[new].last, found[new].besides) == (250, set())
    assert (found[by_tcp].last, found[by_tcp].besides) == (180, {140})
    assert ranges_among([WEB], [new]) == {}


def test_a_range_frontend_excludes_all_ranges_that_overlap_with_it():
    ip = "10.96.0.21"
    old = Frontend(ip, 100, Protocol.UDP, last=200)
    spans = ((90, 99), (100, 110), (120, 130), (195, 205), (210, 220))
    steered = [Frontend(ip, first, Protocol.UDP, last=last) for first, last in spans]
    besides = ranges_among([old], steered)[old].besides
    assert besides == {*range(100, 111), *range(120, 131), *range(195, 201)}


def test_eight_thousand_ranges_at_an_address_are_processed_within_two_seconds():
    ports = range(1, 32_001, 4)
    ranges = [Frontend("203.0.113.9", n, Protocol.TCP, last=n + 1) for n in ports]
    singles = [Frontend("203.0.113.9", n, Protocol.TCP) for n in ports]
    begin = time.thread_time()
    found = ranges_among(ranges, [*ranges, *singles])
    assert time.thread_time() - begin < 2.0
    assert all(found[one].besides == {one.port} for one in ranges)
