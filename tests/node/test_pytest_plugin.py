"""A suite of 500 tests with the pytest plugin, as users run it: both wheels, without privileges.

It runs in a network namespace of its own and as a user without capabilities, who can't create
namespaces. Whatever it leaves behind is seen from outside: its process is the reaper of all others.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.node.processes import readable_runtime
from tests.tools.clones import KIT, ROOT, build
from tests.users import OTHER_UID, can_become

pytestmark = [pytest.mark.netns, pytest.mark.long]

COUNT = 500
WORKERS = 4
SUITE = f"""
import gc
import os
import socket
import sys
import threading
from urllib.request import urlopen

import pytest


def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left():
    before = held()
    yield
    assert held() == before


@pytest.mark.parametrize("number", range({COUNT}))
def test_a_dead_backend_costs_no_request(service_proxy, number):
    web = service_proxy.service("web", port=80, backends=2)
    web.backends[0].stop()
    if number % 10 == 0:
        web.backends[1].fault("latency", latency=1)
    with urlopen(web.url, timeout=60) as answer:
        assert answer.read() == b"web-2\\n"
    assert web.stats.saved == 1
    dns = service_proxy.service("dns", port=53, protocol="UDP")
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.connect(dns.address)
        client.send(b"a")
        assert client.recv(100) == b"dns-1: a"
    if number % 100 == 0:
        serve = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", "{{port}}"]
        files = service_proxy.service("files", port=80, backends=[serve])
        with urlopen(files.url + "/test_many.py", timeout=60) as answer:
            assert answer.read() == open(__file__, "rb").read()
"""
# user.max_user_namespaces of this namespace: the one of the next line, and no other below it.
ENTER = """
ip link set lo up
echo 1 > /proc/sys/user/max_user_namespaces
exec unshare --user --map-user=65534 --map-group=65534 -- "$@"
"""
RUNNER = """
import ctypes, errno, json, os, subprocess, sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = "userspace_proxy", "userspace_proxy_testing"

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
refused = []
for flag in (CLONE_NEWUSER, CLONE_NEWNET):
    assert libc.unshare(flag) == -1
    refused.append(errno.errorcode[ctypes.get_errno()])
libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
run = [sys.executable, "-m", "pytest", *sys.argv[1:]]
done = subprocess.run(run, capture_output=True, text=True)

TIME_WAIT = "06"
sockets = []
for name in ("tcp", "tcp6", "udp", "udp6"):
    for line in Path("/proc/net", name).read_text().splitlines()[1:]:
        if line.split()[3] != TIME_WAIT:
            sockets.append(f"{name} {line.split()[1]}")
sockets += [line for line in Path("/proc/net/unix").read_text().splitlines()[1:] if "@" in line]
status = Path("/proc/self/status").read_text().splitlines()
processes = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
print(json.dumps({
    "user": os.geteuid(),
    "capabilities": [line.split()[1] for line in status if line.startswith("CapEff")],
    "refused": refused,
    "status": done.returncode,
    "wheels": [
        found.name.partition("-")[0]
        for name in PACKAGES
        for found in Path(find_spec(name).origin).parents[1].glob("*.dist-info")
    ],
    "output": (done.stdout + done.stderr)[-8000:],
    "sockets": sockets,
    "processes": processes,
}))
"""


@contextlib.contextmanager
def unprivileged(*roots: Path) -> Iterator[tuple[list[str], str, dict[str, str]]]:
    """Yield how to run this interpreter as a user of the machine without privileges."""
    if can_become(OTHER_UID):
        with readable_runtime(*roots) as runtime:
            yield runtime
    else:
        yield [], sys.executable, {"PYTHONPATH": os.pathsep.join([*map(str, roots), *sys.path])}


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    """The folders into which the wheels of the node's package and the kit were unpacked."""
    unpacked = []
    for root in (ROOT, KIT):
        folder = tmp_path / root.name
        with ZipFile(build("wheel", folder / "built", root)) as archive:
            archive.extractall(folder / "unpacked")
        unpacked.append(folder / "unpacked")
    return unpacked


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may use; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory(prefix="suite-", dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.timeout(600)
def test_a_suite_of_500_tests_in_parallel_leaves_nothing_behind(
    folder: Path, wheels: list[Path]
) -> None:
    (folder / "test_many.py").write_text(SUITE)
    temporary = folder / "temporary"
    temporary.mkdir()
    temporary.chmod(0o777)
    with unprivileged(*wheels) as (prefix, python, environment):
        unshare = ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec", ENTER, "sh"]
        options = ["-q", f"--basetemp={temporary}/pytest", "-p", "no:cacheprovider"]
        run = [python, "-c", RUNNER, "-n", str(WORKERS), *options]
        done = subprocess.run(
            [*prefix, *unshare, *run],
            cwd=folder,
            env={
                **os.environ,
                **environment,
                "TMPDIR": str(temporary),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["user"], got["refused"]) == (OTHER_UID, ["ENOSPC", "EPERM"])
    assert got["capabilities"] == [f"{0:016x}"]
    assert got["status"] == 0, got["output"]
    assert got["wheels"] == ["userspace_proxy", "pytest_userspace_proxy"]
    assert f"{COUNT} passed" in got["output"]
    assert (got["sockets"], got["processes"]) == ([], [])
    # pytest's own folders are empty.
    left = [path.name for path in folder.rglob("*") if not path.is_dir()]
    assert left == ["test_many.py"]
