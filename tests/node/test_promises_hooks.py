"""The guarantees of a Service, with manifests and ``connect()`` hooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.socket_lb import HOOKS, MARKS, socket_node
from tests.promises import affinity
from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import ASKS_WHERE_DRAWN, FLAGS, ManifestWorld

pytestmark = [*MARKS, pytest.mark.needs("connect hooks"), pytest.mark.long]


class TestAffinity(affinity.TestAffinity):
    """Affinity by hooks, which ignore the endpoints that rules chose before the first update."""

    test_a_client_dialling_during_the_first_update_reaches_one_endpoint = None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManifestWorld]:
    folder = tmp_path_factory.mktemp("agent")
    with socket_node(folder, HOOKS, "--path=kernel", base=FLAGS) as node:
        node.add_laptop()
        world = ManifestWorld(node)
        world.asks = ASKS_WHERE_DRAWN
        yield world
