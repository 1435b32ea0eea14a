"""A node for tests of kernel rules: a network namespace with only loopback."""

from __future__ import annotations

import pytest

from tests.netns import Net


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A network namespace that the test's thread has entered."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    net = Net("node")
    with net:
        yield net
    net.close()
