"""Provides an environment with the node's wheel and its dependencies, and a serving agent."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .clones import ROOT, build, run

PAGE = "127.0.0.7:10249"
"""The agent's address; only this process and its children use its network namespace."""
MANIFESTS = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.7.1, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [127.0.0.1]}]
"""


def install_node(folder: Path, without: Container[str] = (), also: Sequence[Path] = ()) -> Path:
    """Install the node's wheel in an empty folder; return the path of its command.

    Args:
        folder: The folder for the environment and the wheels.
        without: Locked packages to omit.
        also: The folders of other distributions whose wheels are installed, too.
    """
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin/python"
    (site,) = environment.glob("lib/python3*/site-packages")
    _link_locked_packages(site, without)
    projects = enumerate((ROOT, *also))
    wheels = [build("wheel", folder / f"wheel-{at}", project) for at, project in projects]
    # pip's own warnings aren't about the package.
    pip = [
        "env",
        "--unset=PYTHONWARNINGS",
        sys.executable,
        "-m",
        "pip",
        f"--python={python}",
        "--disable-pip-version-check",
    ]
    run([*pip, "install", "--no-index", "--no-deps", *map(str, wheels)])
    return environment / "bin/userspace-proxy"


def _link_locked_packages(site: Path, without: Container[str]) -> None:
    """Install the packages of requirements.lock, as links to packages that are installed here."""
    names = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    for name in (name for name in names if name not in without):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            # The package is only for other platforms.
            continue
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "bin")}
        for top in tops - {"__pycache__"}:
            (site / top).symlink_to(Path(str(found.locate_file(top))))


@dataclass(frozen=True, slots=True)
class Serving:
    """An agent that serves one Service with one endpoint."""

    address: tuple[str, int]
    """The Service's address."""
    log: Path


@contextlib.contextmanager
def backend() -> Iterator[int]:
    """Yield the port of a server that answers one client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"one")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]


@contextlib.contextmanager
def serving(program: Path, port: int, folder: Path) -> Iterator[Serving]:
    """Run an agent whose Service has an endpoint on this port; raise unless it exits with 0."""
    manifests, log = folder / "services.yaml", folder / "log"
    manifests.write_text(MANIFESTS % port)
    command = [
        str(program), "run", f"--manifests={manifests}", "--steering=none", "--workers=1",
        "--state-dir=disabled", "--healthz-bind-address=disabled",
        f"--metrics-bind-address={PAGE}", "--print-addresses=json",
    ]  # fmt: skip
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as agent,
    ):
        try:
            assert agent.stdout is not None, "a pipe"
            line = json.loads(agent.stdout.readline())
            host, _, number = line["address"].rpartition(":")
            yield Serving((host, int(number)), log)
        finally:
            agent.send_signal(signal.SIGTERM)
    assert agent.returncode == 0, log.read_text()
