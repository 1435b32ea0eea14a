"""What a Service promises: one suite, run on manifests under each steering and path.

    tests/node/test_promises*.py ──▶ the classes here

Each class is written from the description of upstream's e2e tests (``Source:``), and takes a
:class:`~tests.promises.world.World`, which writes its Services where the agent reads them. That a
real API server's objects are read alike is shown by tests/cluster/test_admission.py.
"""

from pathlib import Path

import pytest

_MODULES = Path(__file__).parent.glob("[!_]*.py")
pytest.register_assert_rewrite(*(f"tests.promises.{path.stem}" for path in _MODULES))
