"""Tests of what the model takes for known of links, and of failures within a step."""

from __future__ import annotations

import pytest

from ..netlink_routes import Link
from . import plan as p
from .known_links import KnownLinks
from .node import Machine
from .plan import Step, TableNode


@pytest.fixture
def machine() -> Machine:
    pod = Link(3, "veth3", "veth", addresses=("fe80::3/64",), networks=("10.244.1.2/32",))
    return Machine(TableNode(links=(pod,)), 1)


def test_an_interrupted_listing_hides_what_changed_without_a_kernel_path(machine: Machine) -> None:
    links, link = KnownLinks(machine), machine.routes.links[3]
    links.note([link.number])
    assert links.must_masquerade(link, link) is None
    links.begin()
    links.round_over()
    assert links.must_masquerade(link, link) is not None
    machine.routes.interrupted += 1
    assert links.must_masquerade(link, link) is None


def test_a_failure_that_comes_and_is_met_within_a_step_counts(machine: Machine) -> None:
    before = machine.failures
    machine.inject(Step(p.FAULT, name="conntrack"))
    assert machine.failures == before
    machine.tables.conntrack.refusals.clear()
    assert machine.failures == before + 1
