"""The kubectl plugin works with only its own wheel and the node's wheel.

virtual environment: requirements.lock, two wheels ── explain, nodes ──▶ fake API server, agents
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from tests.unit.cli.nodes_world import Cluster, cluster_at
from tests.unit.nodes.dashboard.names import browsing
from tests.unit.sources.kubernetes.objects import endpoint_slice, service

from .clones import CLIENT
from .installed import install_node

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin in an environment with both wheels and their dependencies."""
    command = install_node(tmp_path_factory.mktemp("client"), also=[CLIENT])
    return command.with_name("kubectl-userspace_proxy")


def of_shop(item: dict[str, Any]) -> dict[str, Any]:
    """Return an object in the namespace shop."""
    return {**item, "metadata": {**item["metadata"], "namespace": "shop"}}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_at(tmp_path / "kubeconfig") as cluster:
        cluster.api.put(of_shop(service(name="web", clusterIP="10.96.0.10")))
        cluster.api.put(of_shop(endpoint_slice("10.244.1.1", "10.244.2.2")))
        cluster.add("node-1")
        cluster.add("node-2")
        yield cluster


def environment_of(cluster: Cluster) -> dict[str, str]:
    """Return the environment of a kubectl user, without a checkout's packages."""
    return {"PATH": os.environ["PATH"], "KUBECONFIG": str(cluster.path), "NO_PROXY": "*"}


async def ask(program: Path, cluster: Cluster, *words: str) -> tuple[int | None, str]:
    """Return a command's exit status and output."""
    process = await asyncio.create_subprocess_exec(
        program, *words, stdout=-1, stderr=-2, cwd="/", env=environment_of(cluster)
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_status_and_explain_query_all_nodes_with_kubectls_kubeconfig(
    program: Path, cluster: Cluster
) -> None:
    status, shown = await ask(program, cluster, "status", "web")
    assert (status, shown.splitlines()[0]) == (0, "2 nodes  1 Service port  24 open")
    status, shown = await ask(program, cluster, "explain", "web", "--output=json")
    fields = json.loads(shown)
    assert (status, fields["level"], fields["nodes"]["answered"]) == (0, "ok", 2)
    status, shown = await ask(program, cluster, "nodes")
    assert (status, shown.count("  ✓ node-")) == (0, 2)


async def test_the_dashboard_has_its_templates_and_static_files(
    program: Path, cluster: Cluster
) -> None:
    process = await asyncio.create_subprocess_exec(
        program, "dashboard", "--no-open", stdout=-1, cwd="/", env=environment_of(cluster)
    )
    try:
        assert process.stdout is not None, "a pipe"
        address = (await process.stdout.readline()).split()[-1].decode()
        async with browsing() as session, session.get(address) as response:
            files = re.findall(r'(?:src|href)="(/static/[^"]+)"', await response.text())
            for file in files:
                async with session.get(response.url.join(URL(file))) as answer:
                    assert answer.status == 200, file
    finally:
        process.terminate()
        await process.wait()
    assert {"/static/dashboard.css", "/static/page.js"} <= {*files}
