import logging
import sys

import pytest
from aiohttp import ClientConnectionResetError
from aiohttp.http_exceptions import BadHttpMessage

from userspace_proxy.status.middleware import HEADERS, http_logger


def record_of(error):
    try:
        raise error
    except type(error):
        info = sys.exc_info()
    return logging.LogRecord("http", logging.ERROR, "", 0, "Error handling request", None, info)


@pytest.mark.parametrize(
    ("error", "is_logged"),
    [
        pytest.param(BadHttpMessage("not HTTP at all"), False, id="a-scanner"),
        pytest.param(ClientConnectionResetError("closing"), False, id="a-client-that-has-left"),
        pytest.param(KeyError("ours"), True, id="a-bug-of-this-program"),
    ],
)
def test_only_unexpected_exceptions_are_logged(error, is_logged):
    assert bool(http_logger().filter(record_of(error))) is is_logged


def test_the_log_filter_of_aiohttp_is_installed_only_once():
    assert http_logger() is http_logger()
    assert len(http_logger().filters) == 1


def test_the_content_security_policy_permits_only_the_pages_own_script():
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; " in policy
    assert "unsafe" not in policy
    assert "://" not in policy
