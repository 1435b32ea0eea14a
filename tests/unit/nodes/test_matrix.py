from userspace_proxy.causes.endpoints import silent
from userspace_proxy.facts import Level, Times
from userspace_proxy_kubectl.nodes.matrix import UNKNOWN, CellState, matrix_of

from .views import (
    OTHER,
    POD,
    answer_of,
    answering,
    failing,
    merged_of,
    untried,
    web,
    without_answer,
)


def states(row):
    return [cell.state for cell in row.cells]


def test_rows_are_nodes_and_columns_endpoints_those_that_fail_first():
    left_out = untried(OTHER, state="not on this node", is_usable=False)
    merged = merged_of(
        answer_of("a", web(answering(OTHER), answering(POD))),
        answer_of("b", web(left_out, failing(silent(POD), active=2))),
        answer_of("c", web(untried(OTHER))),
        without_answer("d"),
    )
    (matrix,) = matrix_of(merged, "shop/web")
    assert matrix.endpoints == (POD, OTHER)
    b, a, c, d = matrix.rows
    assert [row.node for row in matrix.rows] == ["b", "a", "c", "d"]
    assert states(a) == [CellState.SERVED, CellState.SERVED]
    assert states(b) == [CellState.FAILING, CellState.NOT_USED]
    assert states(c) == [CellState.UNKNOWN, CellState.NOT_TRIED]
    assert d.cells == (UNKNOWN, UNKNOWN)
    assert (a.level, d.level) == (Level.OK, None)
    failing_cell, left_cell = b.cells
    assert (failing_cell.cause, failing_cell.sums.active) == (silent(POD), 2)
    assert left_cell.says == "not on this node"
    (sick,) = matrix.failing
    assert sick.startswith(f"only b can't reach {POD}")


def test_how_long_connects_take_is_known_for_a_node():
    times = Times((0.001, 0.01), (10, 0, 0), 0.001)
    merged = merged_of(
        answer_of("a", web(answering(), connect_times=times)), answer_of("b", web(answering()))
    )
    (matrix,) = matrix_of(merged, "shop/web:http")
    assert [row.connect for row in matrix.rows] == ["≤ 1 ms (median), ≤ 1 ms (99 %)", ""]
