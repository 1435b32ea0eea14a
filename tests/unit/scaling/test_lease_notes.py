"""What proxies write for each other: what is written is read, and what can't be read is unknown."""

import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.scaling.lease_notes import (
    DEMAND_BYTES_MAX,
    NodeAnswer,
    NodeReport,
    Round,
    Tally,
    read_report,
    read_tally,
    write_report,
    write_tally,
)
from userspace_proxy.sources.base import Lease

WEB, API = ServiceKey("shop", "web"), ServiceKey("shop", "api")


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(NodeReport(), id="unknown"),
        pytest.param(NodeReport({}), id="no-demand"),
        pytest.param(NodeReport({WEB: 3, API: 1}, NodeAnswer("7", frozenset({WEB}))), id="answer"),
    ],
)
def test_a_report_is_read_as_it_was_written(report):
    assert read_report(Lease("node.a", notes=write_report(report))) == report


@pytest.mark.parametrize(
    "tally",
    [
        pytest.param(Tally(), id="nothing-yet"),
        pytest.param(Tally({WEB: 3}, "node-7"), id="unknown-node"),
        pytest.param(Tally({}, "", Round("7", (WEB, API))), id="round"),
        pytest.param(Tally({}, "", Round("7", (WEB,), is_over=True)), id="round-that-is-over"),
    ],
)
def test_a_tally_is_read_as_it_was_written(tally):
    read = read_tally(Lease("holder", notes=write_tally(tally)))
    services = sorted(tally.round.services) if tally.round else None
    assert read._replace(round=None) == tally._replace(round=None)
    assert read.round == (tally.round and tally.round._replace(services=tuple(services)))


def test_services_without_demand_are_left_out():
    assert read_report(
        Lease("node.a", notes=write_report(NodeReport({WEB: 0, API: 2})))
    ).demand == {API: 2}


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"web": 1}', '{"shop/web": "many"}', '{"a/b/c": 1}', "null"]
)
def test_demand_that_cannot_be_read_is_unknown(text):
    assert read_report(Lease("node.a", notes={"demand": text})).demand is None
    assert read_tally(Lease("holder", notes={"demand": text})).demand is None


def test_so_many_services_that_an_object_has_no_room_for_them_are_unknown():
    many = {ServiceKey("shop", f"web-{number}"): 1 for number in range(DEMAND_BYTES_MAX // 16)}
    assert "demand" not in write_report(NodeReport(many))
    assert "demand" not in write_tally(Tally(many))


@pytest.mark.parametrize("text", ["", "[]", "7", '{"round": "7", "services": 1}', "null", '"a"'])
def test_an_answer_that_cannot_be_read_is_none(text):
    assert read_report(Lease("node.a", notes={"answer": text})).answer == NodeAnswer()


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"number": "7", "services": [1]}', "null"])
def test_a_round_that_cannot_be_read_is_none(text):
    assert read_tally(Lease("holder", notes={"round": text})).round is None
