"""A node for tests that need the kernel's rules: a network namespace with loopback only."""

from __future__ import annotations

import pytest

from tests.netns import Net


@pytest.fixture
def node(tmp_path, monkeypatch):
    """The calling thread is in the node."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    net = Net("node")
    with net:
        yield net
    net.close()
