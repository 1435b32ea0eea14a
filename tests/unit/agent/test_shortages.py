import errno
import logging

import pytest

from userspace_proxy.agent.shortages import Shortages, is_shortage
from userspace_proxy.errors import ListenError, ShortageError

CART, WEB = "shop/cart:http", "shop/web:http"
ERROR = ShortageError("no descriptor")


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.message for record in caplog.records]


def test_a_shortage_of_many_service_ports_is_one_line_a_minute(lines):
    shortages = Shortages()
    for now in (0.0, 1.0, 59.0, 60.0):
        for key in (CART, WEB):
            shortages.note(key, ERROR, now=now)
    assert lines() == ["shop/cart:http: cannot open listeners: no descriptor"] * 2


def test_its_end_is_one_line_when_the_last_one_is_served(lines, caplog):
    shortages = Shortages()
    for key in (CART, WEB):
        shortages.note(key, ERROR, now=0.0)
    caplog.clear()
    assert shortages.end(CART, is_served=True)
    assert lines() == []
    assert shortages.end(WEB, is_served=True)
    assert not shortages.end(WEB, is_served=True)
    assert lines() == ["Service ports are served again"]
    assert caplog.records[0].services == 2


def test_a_removed_service_port_logs_no_recovery(lines, caplog):
    shortages = Shortages()
    shortages.note(CART, ERROR, now=0.0)
    caplog.clear()
    assert shortages.end(CART, is_served=False)
    assert lines() == []


def test_a_lack_of_a_common_resource_is_a_shortage():
    error = ListenError("x")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    taken = ListenError("x")
    taken.__cause__ = OSError(errno.EADDRINUSE, "Address already in use")
    assert [is_shortage(e) for e in (ERROR, error, taken)] == [True, True, False]
