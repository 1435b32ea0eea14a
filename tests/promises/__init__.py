"""The guarantees of a Service: one suite, run with manifests for each steering mode and path.

    tests/node/test_promises*.py ──▶ the classes here

Each class follows the description of upstream's e2e tests (``Source:``), and uses a
:class:`~tests.promises.world.World`, which writes Services for the agent.
tests/cluster/test_admission.py proves that a real API server's objects are read alike.
"""

from pathlib import Path

import pytest

_MODULES = Path(__file__).parent.glob("[!_]*.py")
pytest.register_assert_rewrite(*(f"tests.promises.{path.stem}" for path in _MODULES))
