"""The demo, as root and as another user: its commands work, and it removes all its state."""

import contextlib
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import READY_S
from tests.node.clients import DEADLINE_S
from tests.node.processes import descriptors_of, readable_runtime
from tests.processes import started
from userspace_proxy_testing.commands.demo_broken import BROKEN_SERVICES

COMMAND = ("-m", "userspace_proxy", "demo")
# "  round robin         /tmp/…/ask http … --count 6": a label, a gap and a command.
PRINTED = re.compile(r"^  (\S.*?) {2,}(\S.*?)(?: {2,}\(.*\))?$", re.MULTILINE)
WEB_PODS = ["web-1", "web-2", "web-3"]
LEAVES_NOTHING = {
    "status": 0,
    "said": "ending the demo …",
    "processes": [],
    "namespaces": set(),
    "files": [],
}


class Demo:
    """One demo in a separate session, as if a terminal had started it.

    Args:
        stack: Closes the demo.
        as_ourselves: Whether this user runs it, and not a user without privileges.
    """

    def __init__(self, stack, *, as_ourselves):
        prefix, self.python, self._env = [], sys.executable, {}
        if not as_ourselves:
            prefix, self.python, self._env = stack.enter_context(readable_runtime())
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        self.folder.chmod(0o1777)
        self.process = stack.enter_context(
            started(
                [*prefix, self.python, *COMMAND, "--port=0"],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                env=os.environ | self._env | {"TMPDIR": str(self.folder)},
            )
        )
        self._enter = []
        if not as_ourselves:
            self._enter = [
                *("nsenter", "--mount", "--target", str(self.process.pid), "--"),
                *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"),
            ]
        self.printed = {}

    def read(self):
        """Wait until the demo has printed the commands to try; return itself."""
        self.printed = dict(PRINTED.findall(self._read_until("the proxy's log")))
        return self

    def run(self, label, more="", **options):
        """Run a printed command as the user who started the demo; return its output."""
        return self.run_command(f"{self.printed[label]} {more}", **options)

    def run_command(self, command, *, ok=0, **options):
        """Run a command as that user, and return its output; fail if the exit status differs."""
        done = subprocess.run(
            [*self._enter, "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=READY_S,
            env=os.environ | self._env | {"TMPDIR": str(self.folder)},
            **options,
        )
        assert done.returncode == ok, done.stderr
        return done.stdout

    def first_line(self, label):
        """Run a printed command that doesn't exit; return the first line of its output."""
        command = [*self._enter, "sh", "-c", f"exec {self.printed[label]}"]
        with started(command) as running:
            return running.stdout.readline()

    def lines(self, label):
        """Return the output of a printed command as lines."""
        return self.run(label).splitlines()

    def pids(self):
        """Return the PIDs of the demo and all its descendants."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def end_by(self, number):
        """Signal the process group, as a terminal does; return status, output and leftovers."""
        with descriptors_of(self.pids()) as descriptors, namespaces_of(self.pids()) as namespaces:
            assert namespaces
            os.killpg(self.process.pid, number)
            rest, _ = self.process.communicate(timeout=READY_S)
            running = [d for d in descriptors if not is_gone(d)]
            there = {namespace_of(path.name) for path in Path("/proc").glob("[0-9]*")}
        return {
            "status": self.process.returncode,
            "said": rest.strip(),
            "processes": running,
            "namespaces": namespaces & there,
            "files": [path.name for path in self.folder.iterdir()],
        }

    def _read_until(self, last):
        text = ""
        readable = select.poll()
        readable.register(self.process.stdout, select.POLLIN)
        while last not in text.rpartition("\n")[0]:
            assert readable.poll(READY_S * 1000), text
            chunk = os.read(self.process.stdout.fileno(), 4096).decode()
            assert chunk, text
            text += chunk
        return text


def namespace_of(pid):
    """Return a process's network namespace; empty if the process has exited."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


@contextlib.contextmanager
def namespaces_of(pids):
    """Yield the processes' network namespaces except this one's; hold their inode numbers."""
    with contextlib.ExitStack() as opened:
        for pid in pids:
            with contextlib.suppress(OSError):
                opened.enter_context(Path(f"/proc/{pid}/ns/net").open("rb"))
        yield {namespace_of(pid) for pid in pids} - {namespace_of("self"), ""}


def is_gone(descriptor):
    """Wait until a process exits; return whether it did."""
    return bool(select.select([descriptor], [], [], DEADLINE_S)[0])


# Only root can change its user; any other user has no privileges anyway.
AS_ROOT = [
    pytest.param(False, id="nobody"),
    pytest.param(True, id="same-user", marks=pytest.mark.long),
]


@pytest.fixture(scope="module", params=AS_ROOT if os.geteuid() == 0 else [True])
def as_ourselves(request):
    return request.param


@pytest.fixture(scope="module")
def demo(as_ourselves):
    with contextlib.ExitStack() as stack:
        yield Demo(stack, as_ourselves=as_ourselves).read()


@pytest.fixture
def manifest(demo):
    """The manifest that the demo names; the test's changes are undone at the end."""
    path = Path(re.match(r"edit (\S+):", demo.printed["change something"])[1])
    text = path.read_text()
    yield path
    path.write_text(text)


def test_the_demo_prints_twelve_labels_and_no_others(demo):
    assert set(demo.printed) == {
        "status page",
        "round robin",
        "ClientIP affinity",
        "UDP",
        "a dead endpoint",
        "break a pod",
        "find the reason",
        "Services to fix",
        "change something",
        "shell in the pod",
        "shell on the node",
        "the proxy's log",
    }


def test_the_page_is_served_on_loopback_and_shows_the_services(demo):
    url = demo.printed["status page"]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        page = re.sub(r"<[^>]*>", "", answer.read().decode())
    assert all(name in page for name in ("shop/web", "shop/cart", "shop/flaky", "shop/dns"))


def test_round_robin_reaches_all_pods(demo):
    # The background traffic also uses turns of the round robin.
    seen = set()

    def reached():
        seen.update(demo.lines("round robin"))
        return seen == set(WEB_PODS)

    wait_for("all pods", reached)


def test_affinity_pins_a_client_to_one_pod(demo):
    answers = demo.lines("ClientIP affinity")
    assert answers == [answers[0]] * 6
    assert answers[0] in WEB_PODS


def test_a_udp_service_replies(demo):
    answers = demo.lines("UDP")
    assert len(answers) == 4
    assert set(answers) <= {"dns-1: hello", "dns-2: hello"}


def test_a_dead_endpoint_fails_no_request(demo):
    assert demo.lines("a dead endpoint") == ["web-3"] * 6


def test_an_edited_manifest_is_applied(demo, manifest):
    edited = re.sub(r"^- .*# web-[13]\n", "", manifest.read_text(), flags=re.MULTILINE)
    manifest.write_text(edited)
    wait_for("the edit", lambda: demo.lines("round robin") == ["web-2"] * 6)


def status_of(demo):
    url = demo.printed["status page"].rstrip("/") + "/api/v1/status"
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def connections(demo):
    """Return the number of connections since the start, by Service of the shop."""
    return {
        port["service"]: port["connections"]
        for port in status_of(demo)["ports"]
        if port["namespace"] == "shop"
    }


def test_background_traffic_increases_the_connection_counts(demo):
    before = connections(demo)
    assert before.keys() == {"web", "cart", "flaky", "api", "dns"}
    wait_for("traffic", lambda: all(connections(demo)[name] > n for name, n in before.items()))


@pytest.mark.long
def test_a_broken_pod_fails_no_request_and_can_be_healed(demo):
    assert "web-2 refuses" in demo.run("break a pod")
    wait_for("the ejection", lambda: "web-2" not in demo.lines("round robin"))
    assert len(demo.lines("round robin")) == 6
    heal = demo.printed["break a pod"].replace("break", "heal")
    assert demo.run_command(heal) == "web-2 serves again\n"
    wait_for("the return", lambda: "web-2" in demo.lines("round robin"))


def test_a_broken_service_is_explained(demo):
    said = demo.run("find the reason", ok=3)
    assert 'its endpoints have no port named "http"; they have "web"' in " ".join(said.split())


def test_explain_with_the_probe_flag_dials_endpoints_inside_the_demo_network(demo):
    command = demo.printed["find the reason"].replace("broken/port-name", "shop/flaky")
    said = " ".join(demo.run_command(f"{command} --probe", ok=3).split())
    assert "10.96.0.30:80 accepts a connection after" in said
    assert "used endpoints failed" in said


def codes(demo):
    found = {}
    for port in status_of(demo)["ports"]:
        if port["namespace"] == "broken":
            causes = {cause["code"] for cause in port["state"]["causes"]}
            found[port["service"]] = found.get(port["service"], set()) | causes
    return found


def test_the_mistake_in_each_broken_service_is_found(demo):
    path = Path(demo.printed["Services to fix"].partition(":")[0])
    assert path.read_text().startswith("# Each of these Services has one mistake.")
    expected = {service.name: {service.code} for service in BROKEN_SERVICES}
    wait_for("all mistakes", lambda: codes(demo) == expected, hint=lambda: str(codes(demo)))


@pytest.mark.parametrize("label", ["shell in the pod", "shell on the node"])
def test_the_shell_reaches_the_services(demo, label):
    ask = demo.printed["round robin"].partition(" ")[2].replace("--count 6", "")
    client = f"{shlex.quote(demo.python)} -m userspace_proxy_testing.sandbox.client {ask}"
    said = demo.run(label, input=f"readlink /proc/self/ns/net; {client}\n").splitlines()
    assert said[0] != namespace_of("self")
    assert said[1] in WEB_PODS


def test_the_log_can_be_followed(demo):
    assert re.match(r"\d{4}-\S+Z (INFO|WARNING) ", demo.first_line("the proxy's log"))


def test_ctrl_c_ends_the_demo_without_leftovers(as_ourselves):
    # A separate demo, because other tests of this module may run after this one.
    with contextlib.ExitStack() as stack:
        left = Demo(stack, as_ourselves=as_ourselves).read().end_by(signal.SIGINT)
    assert left == LEAVES_NOTHING


def test_ctrl_c_during_setup_ends_the_demo_without_leftovers():
    with contextlib.ExitStack() as stack:
        demo = Demo(stack, as_ourselves=True)
        wait_for("the first namespace", lambda: len({namespace_of(p) for p in demo.pids()}) > 1)
        left = demo.end_by(signal.SIGINT)
    assert left == LEAVES_NOTHING


def test_a_killed_demo_leaves_no_process_and_no_namespace(as_ourselves):
    with contextlib.ExitStack() as stack:
        left = Demo(stack, as_ourselves=as_ourselves).read().end_by(signal.SIGKILL)
    assert (left["processes"], left["namespaces"]) == ([], set())


def run_demo(*flags, prefix=()):
    done = subprocess.run(
        [*prefix, sys.executable, *COMMAND, *flags],
        capture_output=True,
        text=True,
        timeout=READY_S,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_port_in_use_is_reported_in_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run_demo(f"--port={port}") == (
            1,
            "",
            f"error: cannot listen on 127.0.0.1:{port}: Address already in use "
            "(choose another with --port=N, or --port=0 for any free one)\n",
        )


def test_forbidden_namespaces_are_reported_in_one_line_with_the_remedy():
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv"
    prefix = ["unshare", "-Ur", "sh", "-c", f'{forbid} --bounding-set=-all -- "$@"', "sh"]
    status, said, error = run_demo("--port=0", prefix=prefix)
    assert (status, said, error.count("\n")) == (1, "", 1)
    assert error.startswith("error: cannot create a user namespace: ")
    assert error.endswith("sysctl -w user.max_user_namespaces=15000; or run this as root)\n")
