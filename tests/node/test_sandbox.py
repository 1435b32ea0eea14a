"""The sandbox in real namespaces, as root and as an unprivileged user."""

import contextlib
import errno
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

import pytest

import userspace_proxy_testing
from tests.node.processes import copy_packages
from tests.processes import started
from userspace_proxy.kernel.privileges import effective_capabilities
from userspace_proxy_testing.sandbox import Sandbox
from userspace_proxy_testing.sandbox import client as client_module
from userspace_proxy_testing.sandbox.holder import REAPER
from userspace_proxy_testing.sandbox.privileges import needs_user_namespace

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]
CLIENT = (sys.executable, "-IS", client_module.__file__)
# setpriv can still read everything when it runs its command; env can't.
SOME_USER = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "env")
MODES = {"pod-a": "routed", "pod-b": "unnumbered", "pod-c": "bridge", "pod-d": "bridge"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(True, id="rootless"),
        pytest.param(False, id="root", marks=pytest.mark.long),
    ],
)
def sandbox(request):
    if not request.param and needs_user_namespace(effective_capabilities()):
        pytest.skip("only root makes network namespaces without a user namespace")
    with Sandbox(rootless=request.param) as sandbox:
        for name, mode in MODES.items():
            sandbox.add_pod(name, mode).serve(
                tcp=80, echo=81, sum=82, source=83, reset=84, silent=85, udp=53, udp_echo=54
            )
        sandbox.add_outside("laptop")
        yield sandbox


@pytest.fixture
def pod(sandbox):
    return sandbox.pods["pod-a"]


@pytest.fixture
def fresh():
    with Sandbox() as sandbox:
        yield sandbox


def dial(namespace, *arguments):
    """Run the dial tool in a namespace; return its one line, answer or error."""
    done = namespace.run([*CLIENT, *arguments], check=False)
    return (done.stdout + done.stderr).strip()


def script(namespace, text, *arguments):
    """Run a Python script in a namespace and return its output."""
    command = [sys.executable, "-IS", "-c", dedent(text), *map(str, arguments)]
    return namespace.run(command).stdout.strip()


def urls(host):
    return f"http://{host.ip}/", f"http://[{host.ip6}]/"


def all_gone(descriptors):
    """Return whether all processes of these pidfds exit within a timeout; close the pidfds."""
    gone = []
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        gone.append(bool(poll.poll(20_000)))
        os.close(descriptor)
    return all(gone)


@pytest.mark.parametrize("to", MODES)
@pytest.mark.parametrize("origin", [*MODES, "node"])
def test_pods_and_node_reach_every_pod_in_both_families(sandbox, origin, to):
    client = sandbox.node if origin == "node" else sandbox.pods[origin]
    for url in urls(sandbox.pods[to]):
        assert dial(client, "http", url) == to


@pytest.mark.parametrize("who", ["node", "pod", "laptop"])
def test_a_dial_to_an_unused_address_fails_with_host_unreachable(sandbox, pod, who):
    client = {"node": sandbox.node, "pod": pod, "laptop": sandbox.outside["laptop"]}[who]
    attempts = 20  # More attempts than the kernel's rate limit allows.
    dial_all = """
        import select, socket, sys
        sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
        poll = select.poll()
        for s in sockets:
            s.setblocking(False)
            s.connect_ex(("10.96.99.99", 80))
            poll.register(s, select.POLLOUT)
        errors = []
        while len(errors) < len(sockets) and (ready := poll.poll(10_000)):
            for fd, _ in ready:
                poll.unregister(fd)
                failed = next(s for s in sockets if s.fileno() == fd)
                errors.append(failed.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        print(*errors)
        """
    errors = script(client, dial_all, attempts).split()
    assert errors == [str(errno.EHOSTUNREACH)] * attempts


def test_an_outside_client_does_not_reach_pods(sandbox, pod):
    assert "unreachable" in dial(sandbox.outside["laptop"], "tcp", f"{pod.ip}:80")


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_silent_port_does_not_answer_a_syn(sandbox, pod, family):
    host = pod.ip if family == "ip" else f"[{pod.ip6}]"
    answer = dial(sandbox.node, "tcp", "--timeout", "0.3", f"{host}:85")
    assert answer.endswith("no answer after 0.3 s")


@pytest.mark.parametrize("address", ["10.96.0.53", "fd00:10:96::53"])
def test_a_udp_reply_has_the_dialled_address_as_its_source(sandbox, pod, address):
    pod.configure([f"address add {address} dev lo"])
    own = pod.ip6 if ":" in address else pod.ip
    sandbox.node.configure([f"route replace {address} via {own}"])
    host = f"[{address}]" if ":" in address else address
    assert dial(sandbox.node, "udp", f"{host}:53", "hi") == "pod-a: hi"


def test_a_stopped_backend_refuses_and_a_paused_backend_hangs(sandbox, pod):
    backend = pod.serve(tcp=8080)
    backend.pause()
    url = f"http://{pod.ip}:8080/"
    assert "no answer" in dial(sandbox.node, "http", "--timeout", "0.2", url)
    backend.resume()
    assert dial(sandbox.node, "http", url) == "pod-a"
    backend.stop()
    assert "refused" in dial(sandbox.node, "http", url)


def test_closing_a_sandbox_ends_all_its_processes():
    sandbox = Sandbox().open()
    pod = sandbox.add_pod("web")
    backend = pod.serve(tcp=80)
    orphan = pod.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"])
    pids = [pod.pid, sandbox.node.pid, sandbox.lan.pid, backend.pid, int(orphan.stdout)]
    watched = [os.pidfd_open(pid) for pid in pids]
    sandbox.close()
    assert all_gone(watched)
    sandbox.close()


def test_the_reaper_spares_the_given_namespace(pod):
    link = pod.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
    done = pod.run([sys.executable, "-IS", str(REAPER), link], check=False)
    assert done.returncode == 1
    assert dial(pod, "http", f"http://{pod.ip}/") == "pod-a"


OWNER = """
    import json, os, sys
    from userspace_proxy_testing.sandbox import Sandbox

    sandbox = Sandbox().open()
    pod = sandbox.add_pod("web", "unnumbered")
    backend = pod.serve(tcp=80)
    answer = sandbox.node.run([sys.executable, "-IS", sys.argv[1], "http", f"http://{pod.ip}/"])
    orphan = pod.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"])
    forked = os.fork()
    if forked == 0:
        sys.stdin.read()
        os._exit(0)
    pids = [pod.pid, sandbox.node.pid, sandbox.lan.pid, backend.pid, int(orphan.stdout)]
    said = {"rootless": sandbox.rootless, "answer": answer.stdout, "pids": pids}
    print(json.dumps(said), flush=True)
    sys.stdin.read()
    """


def readable_python(prefix):
    """Return an interpreter that works with a command prefix, or skip."""
    for python in (sys.executable, "/usr/bin/python3"):
        check = [*prefix, python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if subprocess.run(check, capture_output=True, cwd="/").returncode == 0:
            return python
    return pytest.skip(f"no Python 3.11 behind `{shlex.join(prefix)}`")


@pytest.fixture(scope="module")
def readable_packages():
    """Both packages in a readable folder: the checkout may be in root's home."""
    with tempfile.TemporaryDirectory(prefix="packages-") as folder:
        copy_packages(Path(folder), ROOT, Path(userspace_proxy_testing.__file__).parents[1])
        yield folder


@contextlib.contextmanager
def running_owner(prefix, packages):
    """Run a process that owns a sandbox; yield the process and its report."""
    client = Path(packages, Path(CLIENT[-1]).relative_to(ROOT / "pytest-userspace-proxy"))
    python = readable_python(prefix)
    env = os.environ | {"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*prefix, python, "-c", dedent(OWNER), client]
    with started(command, cwd=packages, env=env) as owner:
        yield owner, json.loads(owner.stdout.readline())


@pytest.mark.parametrize("user", [pytest.param((), id="us"), pytest.param(SOME_USER, id="nobody")])
def test_killing_the_owner_ends_all_processes_despite_its_forked_child(user, readable_packages):
    with running_owner(user, readable_packages) as (owner, said):
        watched = [os.pidfd_open(pid) for pid in said["pids"]]
        owner.send_signal(signal.SIGKILL)
        assert all_gone(watched)
    assert said["answer"] == "web\n"
    assert said["rootless"] is needs_user_namespace(0 if user else effective_capabilities())
