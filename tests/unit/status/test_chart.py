from userspace_proxy.status.chart import HEIGHT, draw, make_chart
from userspace_proxy.status.history import Curves, History

from .views import NOW, make_port

KEY = make_port("web").plan.key


def carried(*samples):
    """Return a history with these values, sampled every ten seconds."""
    history = History()
    for n, changes in enumerate(samples):
        history.note((make_port("web", **changes),), 500.0 + 10 * n)
    return history


def test_a_chart_shows_its_start_middle_and_end_times():
    history = carried({"connections": 0}, {"connections": 20})
    history.record((), 515.0)
    assert make_chart(history, NOW).times == (NOW - 605, NOW - 305, NOW - 5)
    assert make_chart(history, NOW).steps == ()


def test_each_sampled_step_is_described_in_words():
    history = carried(
        {"connections": 0, "received_bytes": 0, "sent_bytes": 0},
        {"connections": 20, "received_bytes": 5000, "sent_bytes": 100},
        {"connections": 20, "received_bytes": 5000, "sent_bytes": 100, "saved": 1, "refused": 3},
    )
    steps = make_chart(history, NOW, KEY, has_steps=True).steps
    assert [(one.x, one.at, one.words) for one in steps] == [
        (116, NOW - 20, "2.0 conn/s, 500 B/s in, 10 B/s out"),
        (118, NOW - 10, "0 conn/s, 0 B/s in, 0 B/s out, 1 saved, 3 failed"),
    ]


def test_without_traffic_no_chart_is_drawn():
    assert make_chart(carried({}, {}), NOW) is None


def drawn(count=4, **figures):
    nothing = dict.fromkeys(Curves._fields, [0.0] * count)
    return draw(Curves(**{**nothing, **figures}))


def test_each_figure_is_scaled_to_its_maximum():
    picture = drawn(
        connections=[0, 1, 2, 0], received_bytes=[0, 0, 0, 4e9], sent_bytes=[0, 0, 0, 5]
    )
    assert picture.line == "M0 17l2-7 2-8 2 15"
    assert picture.area == f"M0 17l4 0 2-15V{HEIGHT}H0z"


def test_points_on_a_flat_line_are_omitted():
    assert drawn(60, connections=[1.0] * 60).line == "M0 2l118 0"


def test_figures_that_are_all_zero_draw_no_lines():
    picture = drawn()
    assert (picture.line, picture.area, picture.saved, picture.failed) == ("", "", "", "")


def test_seconds_with_saved_or_failed_clients_are_marked():
    picture = drawn(saved=[0, 3, 0, 0.1], failed=[0, 0, 1, 0])
    assert picture.saved == "M2 13v5M6 13v5"
    assert picture.failed == "M4 13v5"


def test_a_chart_has_no_line_across_a_gap():
    gap = float("nan")
    picture = drawn(6, connections=[2, 1, gap, gap, 2, gap], received_bytes=[4, 4, gap, 4, 4, 4])
    assert picture.line == "M0 2l2 8M8 2h1"
    assert picture.area == f"M0 2l2 0V{HEIGHT}H0zM6 2l4 0V{HEIGHT}H6z"


def test_nan_values_draw_no_line():
    assert drawn(connections=[float("nan")] * 4).line == ""
