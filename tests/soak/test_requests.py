"""To which change a request belongs, and which failures count."""

from tests.soak.requests import Change, Figures, Kill, Request, figures_of, only_here, read_requests

CHANGES = [Change("quiet", 100.0), Change("worker killed", 110.0), Change("quiet", 120.0)]
REFUSED = "ConnectionRefusedError"


def failed(start, outcome=REFUSED):
    return Request(start, 0.1, "short", outcome, start)


def test_a_request_belongs_to_the_change_during_which_it_ended():
    text = f"99.9 0.05 short ok 99.9\n109.5 2.000 short {REFUSED} 109.5\n121.0 0.300 UDP ok 121.0\n"
    found = figures_of(read_requests(text), CHANGES)
    assert found["quiet"].made == 2
    assert found["quiet"].slowest_s == 0.3
    assert found["worker killed"].failed == {f"short: {REFUSED}": 1}


def test_a_connection_that_was_open_in_a_killed_worker_was_cut():
    before = Request(110.0, 2.0, "large", "IncompleteReadError", 110.0)
    idle = Request(111.1, 0.1, "keep-alive", "IncompleteReadError", 109.0)
    dying = failed(111.1)
    after = failed(111.5)
    requests = [before, idle, dying, after]
    figures = figures_of(requests, CHANGES, kills=[Kill(111.0, 111.2)])["worker killed"]
    assert figures.cut == 3
    assert figures.failed == {f"short: {REFUSED}": 1}


def test_a_kind_that_fails_on_both_sides_during_a_change_is_no_failure_of_the_proxy():
    ours = figures_of([failed(111.0)], CHANGES)
    theirs = figures_of([failed(112.0, "TimeoutError")], CHANGES)
    assert list(only_here(ours, theirs)) == []


def test_a_kind_that_fails_only_through_the_proxy_is_named_with_the_change():
    ours = figures_of([failed(111.0)], CHANGES)
    theirs = figures_of([failed(101.0)], CHANGES)
    assert list(only_here(ours, theirs)) == [
        "worker killed: 1 requests failed that don't with kube-proxy "
        "(short: ConnectionRefusedError)"
    ]


def test_open_connections_may_end_with_their_endpoint_but_new_ones_may_not_fail():
    ours = {"endpoint dies": Figures()}
    ours["endpoint dies"].failed.update(["keep-alive: EOFError", f"short: {REFUSED}"])
    (line,) = only_here(ours, {})
    assert "(short: ConnectionRefusedError)" in line
