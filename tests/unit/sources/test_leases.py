"""The Leases in memory that the agent's tests use keep the contract."""

from __future__ import annotations

import pytest

from .leases_contract import NODES, LeasesContract, LeasesOf
from .shared_leases import LeaseStore


@pytest.fixture
async def leases_of() -> LeasesOf:
    return LeaseStore(*NODES).at


class TestContract(LeasesContract):
    pass
