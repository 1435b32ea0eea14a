from userspace_proxy.status.chart import make_chart
from userspace_proxy.status.history import History

from .views import NOW, make_port

KEY = make_port("web").plan.key


def carried(*samples):
    """Return a history of one sample every ten seconds."""
    history = History()
    for n, changes in enumerate(samples):
        history.note((make_port("web", **changes),), 500.0 + 10 * n)
    return history


def test_a_chart_has_the_times_of_its_ends_and_middle():
    history = carried({"connections": 0}, {"connections": 20})
    assert make_chart(history, NOW, KEY).times == (NOW - 600, NOW - 300, NOW)
    assert make_chart(history, NOW).steps == ()


def test_each_measured_step_has_its_figures_in_words():
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


def test_nothing_is_drawn_of_nothing():
    assert make_chart(carried({}, {}), NOW) is None
