"""What a Service promises, whatever the source: one suite, run on manifests and an API server.

    tests/node/test_promises.py      manifests, steering iptables and local ─┐
    tests/cluster/test_promises.py   a real API server, steering iptables  ──┴──▶ the classes here

Each class is written from the description of upstream's e2e tests (``Source:``), and takes a
:class:`~tests.promises.world.World`, which writes its Services where the agent reads them.
"""

from pathlib import Path

import pytest

_MODULES = Path(__file__).parent.glob("[!_]*.py")
pytest.register_assert_rewrite(*(f"tests.promises.{path.stem}" for path in _MODULES))
