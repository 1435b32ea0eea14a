"""Tests of running a command's coroutine."""

import pytest

from userspace_proxy.cli.running import run


class Large:
    """A result whose repr must not be computed, because it would be as large as the result."""

    def __repr__(self):
        raise AssertionError("the result was formatted")


def test_run_returns_results_without_formatting_them():
    async def large():
        return Large()

    assert isinstance(run(large()), Large)


def test_run_propagates_errors():
    async def fails():
        raise LookupError

    with pytest.raises(LookupError):
        run(fails())
