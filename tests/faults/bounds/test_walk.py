"""A namespace at its bounds has little effect on other namespaces and on the kubelet's probe."""

import pytest

from . import inputs
from .rig import Costs, Node
from .rows import WALKED

pytestmark = [pytest.mark.long, pytest.mark.netns]

DELAY_S = 0.25
MEMORY_MIB = 64
ATTEMPTS = 5
"""The number of attempts, because the machine's other programs may cause failures."""


def measure(folder, given: inputs.Input) -> Costs:
    folder.mkdir()
    node = Node(folder, *given.flags)
    try:
        node.start(given.objects())
        return node.measure(given.later(), given.changes(), given.question(node))
    finally:
        node.close()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The costs of the same agent without the tenant."""
    return measure(tmp_path_factory.mktemp("quiet") / "node", inputs.Input())


def excess(costs: Costs) -> str:
    """Return the costs that exceed a row's limits; empty if there are none."""
    parts = []
    if costs.delay_s > DELAY_S:
        parts.append(f"changes of others {costs.delay_s:.2f} s later")
    if costs.silence_s > DELAY_S:
        parts.append(f"/livez {costs.silence_s:.2f} s later")
    if costs.failed_in_a_row > 1:
        parts.append(f"{costs.failed_in_a_row} answers of /livez in a row too late")
    if costs.memory_mib > MEMORY_MIB:
        parts.append(f"{costs.memory_mib:.0f} MiB")
    return ", ".join(parts)


@pytest.mark.parametrize("largest", WALKED, ids=lambda one: one.name.replace(" ", "-"))
def test_a_full_namespace_affects_others_within_bounds(largest: inputs.Input, quiet, tmp_path):
    found = []
    for attempt in range(ATTEMPTS):
        costs = measure(tmp_path / str(attempt), largest).beyond(quiet)
        if not (found := [*found, excess(costs)])[-1]:
            return
    pytest.fail("; ".join(found))
