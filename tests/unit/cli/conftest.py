"""Keeps what the commands do to logging inside the test."""

import logging

import pytest

_NAMES = ("", "userspace_proxy", "userspace_proxy.access")


@pytest.fixture
def clean_logging():
    """Give back the handlers and levels that were there before the test."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in _NAMES}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
