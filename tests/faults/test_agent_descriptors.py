"""A control process without descriptors: probes are answered, and one line says so."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agent_harness import ADMIN, HEALTH, House, Service, http_get

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
# Far more than there are descriptors for.
MORE = tuple(Service(f"more-{number}", f"10.96.1.{number}") for number in range(1, 61))
FREE = 10
PROBES = 20
SILENT = 40


@pytest.fixture
def house(tmp_path):
    """A node with an agent that may open few more descriptors."""
    with House(tmp_path, "nftables", "--workers=1") as house:
        house.serve(WEB)
        yield house


def limit_descriptors(house, most):
    """Set the limit of the control process alone; returns the one before."""
    soft, hard = resource.prlimit(house.agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(house.agent.pid, resource.RLIMIT_NOFILE, (most, hard))
    return soft


def highest_descriptor(house):
    return max(int(one.name) for one in Path(f"/proc/{house.agent.pid}/fd").iterdir())


def probe_all(house):
    address = (str(house.node.ip), HEALTH)
    return [
        *(http_get(house[name].tcp(), address, "/livez")[0] for name in ("node-1", "laptop")),
        http_get(house["laptop"].tcp(), address, "/healthz")[0],
        house.agent.read("/livez", port=ADMIN)[0],
    ]


def has_no_descriptor(house):
    return "cannot open listeners" in house.agent.log()


def unserved(house):
    return [port["service"] for port in house.agent.status()["ports"] if port["problem"]]


def test_probes_are_answered_while_no_descriptor_is_free(house):
    before = limit_descriptors(house, highest_descriptor(house) + 1 + FREE)
    house.edit(WEB, *MORE)
    wait_for("a shortage", lambda: has_no_descriptor(house), hint=house.agent.log)
    for _ in range(PROBES):
        assert probe_all(house) == [200] * 4, house.agent.log()
    for _ in range(SILENT):
        house["laptop"].dial((str(house.node.ip), HEALTH))
    assert probe_all(house) == [200] * 4, house.agent.log()
    house.hang_up()
    limit_descriptors(house, before)
    wait_for("every Service", lambda: not unserved(house), hint=house.agent.log)
    lines = house.agent.log().splitlines()
    assert len([line for line in lines if "cannot open listeners" in line]) == 1
    assert len([line for line in lines if "served again" in line]) == 1
    assert not [line for line in lines if "Traceback" in line]
