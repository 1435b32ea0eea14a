"""``make cluster`` and ``make cluster-down``: start a cluster in the background, and stop it.

up ──starts──▶ serve (in the background, runs the cluster) ──▶ up prints how to use it
down ──SIGTERM──▶ serve stops the cluster, and exits
"""
# ruff: noqa: T201 - printing is this program's interface.

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ..build import BuildError, cache_root, ensure_binaries
from ..waiting import wait_for
from . import kubeadm
from .cluster import Cluster, remove_leftovers
from .families import FAMILIES
from .images import ensure_images, ensure_own_image
from .programs import ensure_programs
from .proxies import PROXIES, REPOSITORY

UP_DEADLINE_S = 300.0
DOWN_DEADLINE_S = 120.0
KUBEADM = "kubeadm"
"""kube-proxy as kubeadm deploys it; every node also has this proxy's image, for a takeover."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.nodes")
    parser.add_argument("verb", choices=["build", "up", "down", "serve"])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--proxy", choices=[*PROXIES, KUBEADM, "none"], default="nftables")
    parser.add_argument("--cni", choices=["bridge", "ptp"], default="bridge")
    parser.add_argument("--families", choices=FAMILIES, default="ipv4")
    parser.add_argument("--with-upstream", action="store_true", help="build upstream's tests too")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("error: a cluster needs root, for its nodes have real containers", file=sys.stderr)
        return 1
    try:
        return {"build": build, "up": up, "down": down, "serve": serve}[options.verb](options)
    except (BuildError, AssertionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def state() -> Path:
    """Return the folder in which ``up`` and ``down`` find the running cluster."""
    return cache_root() / "running"


def build(options: argparse.Namespace) -> int:
    ensure_binaries()
    ensure_images(ensure_programs(with_upstream=options.with_upstream))
    ensure_own_image()
    return 0


def up(options: argparse.Namespace) -> int:
    """Start a cluster in the background; return once it is ready."""
    build(options)
    assert _running() is None, "a cluster is up already (make cluster-down takes it down)"
    _tidy_up()
    folder = state()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("kubeconfig", "kubectl", "enter", "load", "pid"):
        (folder / name).unlink(missing_ok=True)
    began = time.monotonic()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.nodes", "serve", *sys.argv[2:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            start_new_session=True,
        )

    def is_up() -> bool:
        assert process.poll() is None, f"the cluster didn't start: {log.read_text()}"
        return (folder / "pid").is_file()

    wait_for("the cluster", is_up, deadline_s=UP_DEADLINE_S)
    print(f"{options.nodes} nodes are ready after {time.monotonic() - began:.0f} s")
    print(f"  {folder / 'kubectl'} get nodes      kubectl in the cluster's network")
    print(f"  {folder / 'kubeconfig'}    the admin's kubeconfig, good in that network only")
    print(f"  {folder / 'enter'} node-1 bash      a shell on a node; world: beside the API server")
    print(f"  {folder / 'load'} image.tar          import an image on every node")
    print(f"  {folder / 'folder'}        all logs")
    print("  make cluster-down                        take it down")
    return 0


def down(_options: argparse.Namespace) -> int:
    """Stop the running cluster; return once all of its state has been removed."""
    pid = _running()
    if pid is None:
        print("no cluster is up")
    else:
        os.kill(pid, signal.SIGTERM)
        wait_for("the cluster to be gone", lambda: _running() is None, deadline_s=DOWN_DEADLINE_S)
    _tidy_up()
    return 0


def _tidy_up() -> None:
    """Remove the leftovers of a cluster whose process was killed."""
    folder, control_plane = state() / "folder", state() / "control-plane"
    if folder.is_dir():
        remove_leftovers(folder.resolve())
    if control_plane.is_dir():
        shutil.rmtree(control_plane.resolve())
    folder.unlink(missing_ok=True)
    control_plane.unlink(missing_ok=True)


def serve(options: argparse.Namespace) -> int:
    """Run a cluster until SIGTERM."""
    signal.signal(signal.SIGTERM, _leave)
    programs = ensure_programs()
    cluster = Cluster(
        ensure_binaries(),
        programs,
        ensure_images(programs),
        PROXIES.get(options.proxy),
        nodes=options.nodes,
        zones=options.zones,
        cni=options.cni,
        families=FAMILIES[options.families],
    )
    folder = state()
    with cluster:
        cluster.import_images(ensure_own_image())
        if options.proxy == KUBEADM:
            kubeadm.deploy(cluster)
        write_wrappers(cluster, folder)
        # A SIGTERM that arrives after the PID was published stays pending until sigwait().
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        (folder / "pid").write_text(str(os.getpid()))
        signal.sigwait({signal.SIGTERM})
    return 0


def _leave(_number: int, _frame: object) -> None:
    """Raise SystemExit during a wait, so that context managers clean up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def write_wrappers(cluster: Cluster, folder: Path) -> None:
    """Write links and commands for users: kubectl, a shell on a node, an import of images."""
    for name, target in (
        ("kubeconfig", cluster.control_plane.kubeconfig),
        ("control-plane", cluster.control_plane.folder),
        ("folder", cluster.folder),
    ):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    kubectl = [*cluster.world.enter_network(), str(cluster.control_plane.kubectl_program)]
    where = f"KUBECONFIG={folder / 'kubeconfig'}"
    _write_script(folder / "kubectl", f'exec env {where} NO_PROXY="*" {" ".join(kubectl)} "$@"\n')
    places = {"world": cluster.world} | {node.site.name: node.holder for node in cluster.nodes}
    cases = [f'  {name}) exec {" ".join(place.enter())} "$@" ;;' for name, place in places.items()]
    imports = [" ".join(map(str, node.import_command('"$1"'))) for node in cluster.nodes]
    _write_script(folder / "load", " &&\n".join(imports) + "\n")
    lines = ["name=$1", "shift", 'case "$name" in', *cases, "esac", 'echo "no $name" >&2', "exit 1"]
    _write_script(folder / "enter", "\n".join(lines) + "\n")


def _write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def _running() -> int | None:
    """Return the PID of the process that runs the cluster; None if there is none."""
    try:
        pid = int((state() / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if b"tests.cluster.nodes" in words else None


if __name__ == "__main__":
    raise SystemExit(main())
