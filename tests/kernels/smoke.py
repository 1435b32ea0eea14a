"""Uses the product in a machine as a new user would, and writes the results as rows of a JSON file.

    pod client ─┐            ┌─ pod a: TCP and UDP servers on port 8080
                ├─ cni0, node ┤
    the node  ──┘            └─ pod b

For each steering mode: ``run`` with manifests; a ClusterIP and a node port over TCP and UDP, from a
pod and from the node; the kernel path for modes with rules; and ``status``. Then the demo.

Rule 1: it runs in the machine's initial network namespace, as on a node; each pod has its own.
Rule 2: Python takes seconds to start on an emulated processor, so all clients and servers are
threads of this process.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from userspace_proxy.kernel.offers import read_kernel_offers

NODE = "198.18.0.1"
PODS = {"client": "10.244.1.2", "a": "10.244.1.10", "b": "10.244.1.11"}
PORT = 8080
NODE_PORT = 30080
READY_S = 600.0
"""The timeout of a start in seconds; a start takes minutes on a busy, emulated processor."""
ANSWER_S = 60.0
PROGRAM = ("userspace-proxy",)
PARTS = ("auto", "nftables", "local", "none", "demo", "iptables")
"""iptables is last, because it loads tables that would make auto prefer it."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: %(name)s, namespace: shop%(annotations)s}
spec:
  type: NodePort
  clusterIP: %(ip)s
  ports:
  - {name: tcp, port: 80, protocol: TCP, nodePort: %(node_port)d}
  - {name: udp, port: 80, protocol: UDP, nodePort: %(node_port)d}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %(name)s-1, namespace: shop, labels: {kubernetes.io/service-name: %(name)s}}
addressType: IPv4
ports:
- {name: tcp, port: 8080, protocol: TCP}
- {name: udp, port: 8080, protocol: UDP}
endpoints: [{addresses: [10.244.1.10]}, {addresses: [10.244.1.11]}]
---
"""
KERNEL_PATH = ", annotations: {userspace-proxy.io/path: kernel}"
PROTOCOLS = ("TCP", "UDP")
RULES = ("auto", "nftables")
"""Steering modes that may use nftables."""
CLUSTER_IPS = {"web": "10.96.0.10", "fast": "10.96.0.11"}


class Failed(Exception):
    """An attempt failed; the message is the reason in its row."""


class Rows:
    """The results, in order."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def attempt(self, what: str, act: Callable[[], object]) -> bool:
        """Call a function, and add a row with its outcome; return whether nothing was raised."""
        began = time.monotonic()
        words = ""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - any of them is an outcome
            words = f"{error}" or type(error).__name__
        self._add(what, "failed" if words else "ok", time.monotonic() - began, words)
        return not words

    def leave_out(self, what: str, words: str) -> None:
        self._add(what, "left out", 0.0, words)

    def _add(self, what: str, outcome: str, seconds: float, words: str) -> None:
        row = {"what": what, "outcome": outcome, "seconds": round(seconds, 1), "words": words}
        self.rows.append(row)
        print(f"{outcome:<8} {seconds:6.1f} s  {what}{': ' if words else ''}{words}", flush=True)


class Net:
    """A network namespace; ``with net:`` moves the calling thread into it."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __enter__(self) -> None:
        _enter(self.fd)

    def __exit__(self, *_exc: object) -> None:
        _enter(HOST)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


HOST = os.open("/proc/self/ns/net", os.O_RDONLY)


def make_node() -> dict[str, Net]:
    """Configure this namespace as a node with a bridge; return its new pods' namespaces by name."""
    commands = [
        # Kubernetes requires this of each node.
        "modprobe br_netfilter",
        "sysctl -qw net.ipv4.ip_forward=1",
        "ip link add eth0 type dummy",
        f"ip addr add {NODE}/24 dev eth0",
        "ip link set eth0 up",
        "ip route add default via 198.18.0.254",
        "ip link add cni0 type bridge",
        "ip addr add 10.244.1.1/24 dev cni0",
        "ip link set cni0 up",
    ]
    for name, address in PODS.items():
        commands += [
            f"ip netns add {name}",
            f"ip link add v-{name} type veth peer name eth0 netns {name}",
            f"ip link set v-{name} master cni0 up",
            f"ip -n {name} addr add {address}/24 dev eth0",
            f"ip -n {name} link set lo up",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} route add default via 10.244.1.1",
        ]
    script = "\n".join(["set -e", *commands])
    subprocess.run(["sh", "-c", script], check=True)
    return {name: Net(f"/run/netns/{name}") for name in PODS}


def serve(name: str, pod: Net) -> None:
    """Make a pod answer each client with the pod's name, until the machine shuts down."""
    with pod:
        listener = socket.create_server(("", PORT))
        flows = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flows.bind(("", PORT))

    def by_tcp() -> None:
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.sendall(name.encode())

    def by_udp() -> None:
        while True:
            _, client = flows.recvfrom(100)
            flows.sendto(name.encode(), client)

    for act in (by_tcp, by_udp):
        threading.Thread(target=act, daemon=True).start()


def ask(protocol: str, address: tuple[str, int], inside: Net | None = None) -> str:
    """Return the name of the pod that answers at an address; any other answer raises Failed."""
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with inside or contextlib.nullcontext():
        sock = socket.socket(socket.AF_INET, kind)
    with sock:
        sock.settimeout(ANSWER_S)
        sock.connect(address)
        if protocol == "UDP":
            sock.send(b"who?")
        answer = sock.recv(100).decode()
    if answer not in ("a", "b"):
        raise Failed(f"the answer of {address} was {answer!r}")
    return answer


class Proxy:
    """A process of ``userspace-proxy run`` with one steering mode."""

    def __init__(self, steering: str, folder: Path) -> None:
        self.addresses: dict[tuple[str, str], tuple[str, int]] = {}
        """The addresses at which steering none serves, by Service and protocol."""
        self._log = folder / f"{steering}.log"
        self._command = [
            *PROGRAM,
            "run",
            f"--steering={steering}",
            f"--manifests={write_manifests(folder, steering)}",
            "--hostname-override=node-1",
        ]
        if steering == "none":
            self._command.append("--print-addresses=json")
        self._is_none = steering == "none"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the proxy; return once it is ready; raise Failed if that isn't in time."""
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True
            )
        if self._is_none:
            self._read_addresses()
        ends = time.monotonic() + READY_S
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                raise Failed(f"it ended with {self._process.returncode}: {self.last_log_lines()}")
            with contextlib.suppress(OSError):
                if read(10256, "/healthz")[0] == 200:
                    return
            time.sleep(0.2)  # noqa: TID251 - until a deadline
        raise Failed(f"not ready after {READY_S:.0f} s: {self.last_log_lines()}")

    def _read_addresses(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while len(self.addresses) < len(PROTOCOLS) and (line := self._process.stdout.readline()):
            said = json.loads(line)
            host, _, port = said["address"].rpartition(":")
            self.addresses[said["service"], said["protocol"]] = (host, int(port))

    def stop(self) -> None:
        """Stop the proxy with SIGTERM, if it was started; raise Failed unless it exits with 0."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise Failed("it didn't end within 60 s") from None
        if code:
            raise Failed(f"it ended with {code}: {self.last_log_lines()}")

    def last_log_lines(self) -> str:
        """Return the last lines of the proxy's log."""
        return " / ".join(self._log.read_text(errors="replace").splitlines()[-3:])


def read(port: int, path: str) -> tuple[int, str]:
    """Return the status and the body of a response on the node's loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def write_manifests(folder: Path, steering: str) -> Path:
    """Write a Service, and for :data:`RULES` another on the kernel path; return the file."""
    target = folder / f"{steering}.yaml"
    fields = [("web", NODE_PORT, "")]
    if steering in RULES:
        fields.append(("fast", NODE_PORT + 1, KERNEL_PATH))
    services = [
        SERVICE % {"name": name, "ip": CLUSTER_IPS[name], "node_port": port, "annotations": more}
        for name, port, more in fields
    ]
    target.write_text("".join(services))
    return target


def try_steering(rows: Rows, steering: str, client: Net, folder: Path) -> None:
    """Run the proxy with a steering mode, and add a row for each expected feature."""
    proxy = Proxy(steering, folder)
    try:
        if not rows.attempt(f"{steering}: start", proxy.start):
            return
        if steering == "none":
            for protocol in PROTOCOLS:
                where = proxy.addresses.get(("web", protocol), ("", 0))
                rows.attempt(f"none: {protocol} from the node", partial(ask, protocol, where))
        else:
            _try_frontends(rows, steering, client)
        if steering in RULES:
            _try_kernel_path(rows, steering, client)
        rows.attempt(f"{steering}: status", show_status)
    finally:
        rows.attempt(f"{steering}: stop", proxy.stop)


def _try_frontends(rows: Rows, steering: str, client: Net) -> None:
    places = {"ClusterIP": (CLUSTER_IPS["web"], 80), "NodePort": (NODE, NODE_PORT)}
    for inside, viewer in ((client, "a pod"), (None, "the node")):
        for kind, address in places.items():
            for protocol in PROTOCOLS:
                rows.attempt(
                    f"{steering}: {kind} {protocol} from {viewer}",
                    partial(ask, protocol, address, inside),
                )


def _try_kernel_path(rows: Rows, steering: str, client: Net) -> None:
    ports = json.loads(read(10249, "/api/v1/status")[1])["ports"]
    port = next(port for port in ports if port["service"] == "fast")

    def is_taken() -> None:
        if port["path"] != "kernel":
            raise Failed(port["path_reason"] or f"the path is {port['path']}")

    if steering == "nftables" or "steering" not in port["path_reason"]:
        rows.attempt(f"{steering}: kernel path", is_taken)
    else:
        rows.leave_out(f"{steering}: kernel path", port["path_reason"])
        return
    for protocol in PROTOCOLS:
        for inside, viewer in ((client, "a pod"), (None, "the node")):
            rows.attempt(
                f"{steering}: kernel path {protocol} from {viewer}",
                partial(ask, protocol, (CLUSTER_IPS["fast"], 80), inside),
            )


def show_status() -> None:
    done = subprocess.run([*PROGRAM, "status"], capture_output=True, text=True, timeout=READY_S)
    if done.returncode or "shop/web" not in done.stdout:
        raise Failed(f"exit {done.returncode}: {done.stdout}{done.stderr}")


def try_demo(rows: Rows, folder: Path) -> None:
    """Start the demo, dial one of its Services, and stop it with SIGINT; add a row per step."""
    log = folder / "demo.log"
    with log.open("w") as stream:
        demo = subprocess.Popen(
            [*PROGRAM, "demo"], stdout=stream, stderr=stream, stdin=subprocess.DEVNULL,
            process_group=0,
        )  # fmt: skip
    commands: dict[str, str] = {}

    def is_ready() -> None:
        ends = time.monotonic() + READY_S
        while "the proxy's log" not in log.read_text():
            if demo.poll() is not None or time.monotonic() > ends:
                last = " / ".join(log.read_text().splitlines()[-3:])
                raise Failed(f"exit {demo.returncode}: {last}")
            time.sleep(0.2)  # noqa: TID251 - until a deadline
        pairs = re.findall(r"^  (\S.*?)  +(\S.*)$", log.read_text(), re.MULTILINE)
        commands.update(pairs)

    def answers() -> None:
        words = [*shlex.split(commands["round robin"]), f"--timeout={ANSWER_S:g}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=READY_S)
        names = {*re.findall(r"\bweb-\d\b", done.stdout)}
        if done.returncode or len(names) < 2:
            raise Failed(f"exit {done.returncode}: {done.stdout}{done.stderr}")

    def stop() -> None:
        os.killpg(demo.pid, signal.SIGINT)
        if demo.wait(60) not in (0, -signal.SIGINT):
            raise Failed(f"it ended with {demo.returncode}")

    try:
        if rows.attempt("demo: start", is_ready):
            rows.attempt("demo: a Service answers", answers)
            rows.attempt("demo: stop", stop)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(demo.pid, signal.SIGKILL)


def has_legacy_tables() -> bool:
    """Return whether the kernel has legacy tables or their modules, without using the product."""
    command = ["modprobe", "--dry-run", "--quiet", "--all", "iptable_nat", "iptable_filter"]
    return subprocess.run(command, check=False).returncode == 0


def main(words: Sequence[str]) -> int:
    """Write ``smoke.json`` and the logs to a folder; return 0, even if an attempt failed."""
    folder = Path(words[0])
    wanted = words[1:] or PARTS
    rows = Rows()
    lacks: dict[str, str] = {}

    def write() -> None:
        said = {"kernel": os.uname().release, "arch": os.uname().machine, "lacks": lacks}
        (folder / "smoke.json").write_text(json.dumps(said | {"smoke": rows.rows}, indent=1))

    offers = read_kernel_offers()
    lacks |= {name: os.strerror(code) for name, code in offers.lacks.items()}
    print(f"lacks: {lacks}", flush=True)
    pods = make_node()
    for name in ("a", "b"):
        serve(name, pods[name])
    write()
    for one in PARTS:
        if one not in wanted:
            continue
        if one == "demo":
            try_demo(rows, folder)
        elif one == "iptables" and not has_legacy_tables():
            rows.leave_out("iptables", "this kernel has no legacy tables")
        else:
            try_steering(rows, one, pods["client"], folder)
        write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
