import errno
import logging
from types import SimpleNamespace

import pytest

from userspace_proxy.agent.rounds.shortages import ListenProblems, Shortages, is_shortage
from userspace_proxy.errors import BoundError, ListenError, ShortageError
from userspace_proxy.model import IPFamily, PortKey, ServicePortName

CART, WEB = (
    PortKey(ServicePortName("shop", name, "http"), IPFamily.IPV4) for name in ("cart", "web")
)
WEB_6 = WEB._replace(family=IPFamily.IPV6)
ERROR = BoundError(
    "cannot listen on 0.0.0.0:17000/TCP", cause="no descriptor", hint="raise the limit"
)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.message for record in caplog.records]


def test_a_shortage_of_many_service_ports_is_logged_once_a_minute(lines):
    shortages = Shortages()
    for now in (0.0, 1.0, 59.0, 60.0):
        for key in (CART, WEB):
            shortages.note(key, ERROR, now=now)
    line = "shop/cart:http: cannot open listeners: no descriptor (raise the limit)"
    assert lines() == [line] * 2


def test_the_end_of_a_shortage_is_logged_when_the_last_port_is_served(lines, caplog):
    shortages = Shortages()
    for _ in range(2):
        for key in (CART, WEB):
            shortages.note(key, ERROR, now=0.0)
        caplog.clear()
        shortages.end(CART, served_at=1.0)
        assert lines() == []
        shortages.end(WEB, served_at=1.0)
        assert lines() == ["listener shortage has ended"]
        assert caplog.records[0].ports == 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda problems, served: problems.end(served), id="ended"),
        pytest.param(lambda problems, served: problems.forget(served.plan.key), id="removed"),
        pytest.param(lambda problems, served: problems.note(served, ERROR, waits=True), id="waits"),
    ],
)
def test_a_service_port_is_incomplete_only_while_it_has_a_problem_of_its_own(lines, change):
    problems = ListenProblems(Shortages(), lambda: 0.0)
    names = {"plan": SimpleNamespace(key=WEB), "group": SimpleNamespace(label="shop/web")}
    served = SimpleNamespace(**names, not_listening=None, is_listening_again=False)
    problems.note(served, ListenError("cannot listen"), waits=False)
    assert problems.incomplete.keys() == {WEB}
    change(problems, served)
    assert not problems.incomplete
    is_served = served.not_listening is None
    assert ("shop/web:http: Service port is served now" in lines()) is is_served


def test_a_removed_service_port_does_not_suppress_other_recovery_lines(lines, caplog):
    shortages = Shortages()
    for key in (CART, WEB):
        shortages.note(key, ERROR, now=0.0)
    caplog.clear()
    ListenProblems(shortages, lambda: 1.0).forget(CART)
    shortages.end(WEB, served_at=1.0)
    assert lines() == ["listener shortage has ended"]


def test_recovery_lines_are_limited_to_twenty_a_minute(lines):
    shortages = Shortages()
    for now in range(121):
        shortages.end(CART, served_at=float(now))
        shortages.end(WEB, served_at=None)
    assert lines() == ["shop/cart:http: Service port is served now"] * 41


def test_running_out_of_a_common_resource_counts_as_a_shortage():
    error = ListenError("x")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    taken = ListenError("x")
    taken.__cause__ = OSError(errno.EADDRINUSE, "Address already in use")
    assert [is_shortage(e) for e in (ERROR, error, taken)] == [True, True, False]


def test_an_untried_service_port_is_reported_with_the_shortage_of_the_previous_port():
    shortages = Shortages()
    shortages.note(CART, ERROR, now=0.0)
    lack = shortages.note(WEB, None, now=0.0)
    assert str(lack) == "cannot listen for shop/web:http: no descriptor (raise the limit)"


@pytest.fixture
def full():
    """Return shortages after one Service took all listeners, and the list of reported excesses."""
    shortages, told = Shortages(), []
    shortages.on_excess = lambda service, cause: told.append((str(service), cause))
    for port in range(50):
        key = PortKey(ServicePortName("shop", "web", str(port)), IPFamily.IPV4)
        shortages.shares.hold(key, 1)
    return shortages, told


def test_a_service_with_too_many_listeners_is_reported_once_until_fully_served(full):
    shortages, told = full
    for key in (WEB, WEB_6, CART):
        shortages.note(key, ERROR, now=0.0)
    for served in ([WEB_6], [WEB_6, WEB]):
        for key in served:
            shortages.lacks_nothing(key)
        shortages.note(served[-1], ERROR, now=0.0)
    text = f"{ERROR.message}; {{}} has 50 of 50 listeners"
    web = ("shop/web", text.format("Service shop/web"))
    assert [(service, cause.partition(" (give")[0]) for service, cause in told] == [
        web,
        ("shop/cart", text.format("namespace shop")),
        web,
    ]
    assert all(cause.endswith(f", or {ERROR.hint})") for _, cause in told)


@pytest.mark.parametrize("kind", [ListenError, ShortageError])
def test_a_system_wide_shortage_takes_no_listeners_from_services(full, kind):
    shortages, told = full
    error = kind("cannot listen on x: Too many open files in system")
    error.__cause__ = OSError(errno.ENFILE, "Too many open files in system")
    assert str(shortages.note(WEB, error, now=0.0)) == str(error)
    assert (told, shortages.can_share) == ([], False)
