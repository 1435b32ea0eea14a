"""Records for ``make coverage`` which test module runs which lines."""

from __future__ import annotations

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if "coverage" not in sys.modules:
        return
    from coverage import Coverage

    measured = Coverage.current()
    if measured is not None:
        measured.switch_context(item.path.relative_to(item.config.rootpath).as_posix())
