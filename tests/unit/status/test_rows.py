import pytest

from userspace_proxy.status import rows
from userspace_proxy.status.history import History
from userspace_proxy.status.page import render_page
from userspace_proxy.status.port_rows import make_row
from userspace_proxy.status.rows import FigureColumn, columns_of
from userspace_proxy.status.sampling import Sample
from userspace_proxy.status.selection import Selection

from .views import make_port, make_view, replace

NOW = 1000.0


@pytest.mark.parametrize(
    ("namespace", "name", "room"),
    [
        pytest.param("shop", "web", "", id="short"),
        pytest.param("ml-training-and-inference", "web", "most", id="short-name"),
        pytest.param("ml-training-and-inference", "serving-gateway", "half", id="both-long"),
    ],
)
def test_a_long_namespace_leaves_room_for_the_name(namespace, name, room):
    assert make_row(make_port(name, namespace=namespace), History(), now=NOW).namespace_room == room


IDLE = make_port("web", active=0)
ALWAYS = ("name", "address", "endpoints", "state")
MOVING = ("rate", "open", "in", "out")


def columns(port, history=None, sort="state"):
    history = history or History()
    other = make_row(IDLE, history, now=NOW)
    row = make_row(port, history, now=NOW)
    return columns_of((other, row), sort)


def test_figures_that_are_all_zero_have_no_column():
    shown = columns(IDLE)
    assert shown == ALWAYS
    assert shown.moving == 0


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        pytest.param({"active": 3}, ("open",), id="open"),
        pytest.param({"saved": 1}, ("saved",), id="saved"),
        pytest.param({"resets": 1}, ("failed",), id="failed"),
    ],
)
def test_a_nonzero_figure_in_any_row_adds_a_column(changes, added):
    assert columns(replace(IDLE, **changes)) == (*ALWAYS, *added)


def test_a_port_with_traffic_in_the_last_minute_has_rate_and_minute_columns():
    history = History()
    for n, connections in enumerate((0, 7, *[7] * 30)):
        history.note((replace(IDLE, connections=connections),), 500.0 + n)
    shown = columns(IDLE, history)
    assert shown == (*ALWAYS, *MOVING, "minute")
    assert shown.moving == 4


def test_the_sorted_column_is_always_shown():
    assert columns(IDLE, sort="-failed") == (*ALWAYS, "failed")
    assert columns(IDLE, sort="out") == (*ALWAYS, "in", "out")


def test_a_figure_added_to_the_declaration_appears_in_the_table(monkeypatch):
    sample = FigureColumn("refused", "turned away", str, colour="bad")
    monkeypatch.setitem(rows.FIGURES, "away", sample)
    port = replace(IDLE, refused=7)
    view = make_view(port)
    body = render_page(Sample(view, NOW), Selection()).decode()
    assert '<td role="cell" data-label="turned away" class="n bad">7</td>' in body
    assert ">turned away</a></th>" in body
