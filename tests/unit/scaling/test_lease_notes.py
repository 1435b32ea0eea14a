"""What proxies write for each other: what is written is read, and what can't be read is unknown."""

import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.scaling.lease_notes import (
    DEMAND_BYTES_MAX,
    Board,
    NodeAnswer,
    NodeReport,
    Round,
    read_board,
    read_report,
    write_board,
    write_report,
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
    "board",
    [
        pytest.param(Board(), id="nothing-yet"),
        pytest.param(Board({WEB: 3}, "node-7"), id="unknown-node"),
        pytest.param(Board({}, "", Round("7", (WEB, API))), id="round"),
        pytest.param(Board({}, "", Round("7", (WEB,), is_over=True)), id="round-that-is-over"),
    ],
)
def test_a_board_is_read_as_it_was_written(board):
    read = read_board(Lease("holder", notes=write_board(board)))
    services = sorted(board.round.services) if board.round else None
    assert read._replace(round=None) == board._replace(round=None)
    assert read.round == (board.round and board.round._replace(services=tuple(services)))


def test_services_without_demand_are_left_out():
    assert read_report(
        Lease("node.a", notes=write_report(NodeReport({WEB: 0, API: 2})))
    ).demand == {API: 2}


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"web": 1}', '{"shop/web": "many"}', '{"a/b/c": 1}', "null"]
)
def test_demand_that_cannot_be_read_is_unknown(text):
    assert read_report(Lease("node.a", notes={"demand": text})).demand is None
    assert read_board(Lease("holder", notes={"demand": text})).demand is None


def test_so_many_services_that_an_object_has_no_room_for_them_are_unknown():
    many = {ServiceKey("shop", f"web-{number}"): 1 for number in range(DEMAND_BYTES_MAX // 16)}
    assert "demand" not in write_report(NodeReport(many))
    assert "demand" not in write_board(Board(many))


@pytest.mark.parametrize("text", ["", "[]", "7", '{"round": "7", "services": 1}', "null", '"a"'])
def test_an_answer_that_cannot_be_read_is_none(text):
    assert read_report(Lease("node.a", notes={"answer": text})).answer == NodeAnswer()


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"number": "7", "services": [1]}', "null"])
def test_a_round_that_cannot_be_read_is_none(text):
    assert read_board(Lease("holder", notes={"round": text})).round is None
