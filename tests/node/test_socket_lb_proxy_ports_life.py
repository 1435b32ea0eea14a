"""Proxy ports that this node's programs dial by hooks: changes, crashes, upgrades."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator

import pytest

from tests.cluster.waiting import wait_for
from tests.node.endpoints import TARGET, VERSIONS
from tests.node.load import Outcome
from tests.node.socket_lb import (
    HOOKS,
    MARKS,
    MODES,
    REFUSED,
    Dial,
    SocketNode,
    Web,
    kernel_peer,
    met,
    outcome,
    socket_node,
)

pytestmark = [*MARKS, pytest.mark.needs("connect hooks")]

ON = ("--socket-lb-proxy-ports",)
NO_ROUTE = os.strerror(errno.EHOSTUNREACH)


class Life:
    """A node with one Service, whose clients dial all the time."""

    def __init__(self, node: SocketNode) -> None:
        self.node, self.agent, self.pod = node, node.agent, node["pod"]
        self.one, self.two = node.add_backends("one", "two")
        node.start(self.web())

    def web(self, *, path: str = "userspace") -> Web:
        return Web("web", 10, (self.one, self.two), path=path)

    def address(self, version: int) -> tuple[str, int]:
        return self.web().cluster_ip(version)

    def met(self, version: int) -> set[str]:
        return met(self.pod, self.address(version))

    def way(self, version: int = 4) -> str:
        with Dial(self.pod, self.address(version)) as dial:
            return dial.connect().way

    def switch(self, path: str) -> None:
        self.node.change(self.web(path=path))
        self.node.wait_for_path(path)

    def replace(self, *flags: str) -> None:
        self.node.replace_agent(*flags)

    def load(self) -> contextlib.AbstractContextManager[list[Outcome]]:
        return self.node.load(self.web())


@pytest.fixture
def life(tmp_path) -> Iterator[Life]:
    with socket_node(tmp_path, HOOKS, *ON) as node:
        yield Life(node)


@pytest.fixture(params=MODES)
def either(request, tmp_path) -> Iterator[Life]:
    with socket_node(tmp_path, request.param, *(ON if request.param == HOOKS else ())) as node:
        yield Life(node)


def test_a_service_moves_between_the_paths_by_hooks_alone(life):
    with contextlib.ExitStack() as stack, life.load():
        opened = []
        for path in ("kernel", "userspace", "kernel", "userspace"):
            life.switch(path)
            for version in VERSIONS:
                dial = stack.enter_context(Dial(life.pod, life.address(version)).connect())
                opened.append(dial)
                assert dial.way == "hooks"
                is_proxied = kernel_peer(dial.client, dial.sock)[1] != TARGET
                assert is_proxied == (path == "userspace")
            for dial in opened:
                assert dial.peer == dial.address
                assert dial.ask() in ("one", "two")


def test_clients_notice_no_upgrade_nor_that_it_is_turned_on_and_off(life):
    flags = life.agent.flags
    life.agent.stop()
    life.agent.flags = (*flags, "--take-over", "--drain-timeout=30s")
    life.agent.start_until_ready()
    without = tuple(flag for flag in flags if flag not in ON)
    with life.load():
        life.replace(*flags)
        assert life.way() == "hooks"
        life.replace(*without)
        assert life.way() == "rules"
        life.replace(*flags)
        assert life.way() == "hooks"


def test_after_a_crash_clients_are_refused_as_by_rules_until_the_next_start(either):
    way = either.node.way
    assert either.way() == way
    either.agent.kill()
    assert either.met(4) == either.met(6) == {REFUSED}
    either.agent.start_until_ready()
    assert either.met(4) == either.met(6) == {"one", "two"}
    assert either.way() == way


def test_workers_serve_on_without_their_control_process(life):
    with life.load():
        life.agent.kill_control()
        assert life.met(4) == life.met(6) == {"one", "two"}
        life.agent.start_until_ready()
    assert life.way() == "hooks"


def test_another_programs_socket_gets_nobody_after_a_crash(life):
    with Dial(life.pod, life.address(4)) as dial:
        _, port = kernel_peer(life.pod, dial.connect().sock)
    life.agent.kill()
    life.node.node.serve(None, tcp=port)
    assert life.met(4) == {REFUSED}


def test_a_service_that_is_gone_is_no_frontend(life):
    life.node.change(Web("other", 11, (life.one,), path="userspace"))
    assert life.met(4) == life.met(6) == {NO_ROUTE}


def test_a_node_that_loses_its_address_is_dialled_at_another(life):
    with Dial(life.pod, life.address(6)) as dial:
        own, _ = kernel_peer(life.pod, dial.connect().sock)
    life.node.shell("ip -6 address add fd00:9::1/128 dev lo nodad")
    life.node.shell(f"ip -6 address del {own} dev eth0")

    def is_elsewhere() -> bool:
        return life.met(6) == {"one", "two"}

    wait_for("clients to be served", is_elsewhere, hint=life.agent.log)


def test_the_guard_follows_links(life):
    """A link that becomes one to other machines is no longer a pod's."""
    with Dial(life.pod, life.address(4)) as dial:
        own, port = kernel_peer(life.pod, dial.connect().sock)
    assert outcome(life.pod, (own, port)) in ("one", "two")
    route = json.loads(life.node.shell(f"ip -j route get {life.pod.host.ip}"))
    life.node.shell(f"ip address add 10.9.0.1/24 dev {route[0]['dev']}")

    def is_refused() -> bool:
        return outcome(life.pod, (own, port)) == REFUSED

    wait_for("the guard", is_refused, hint=life.agent.log)
    life.node.shell(f"ip address del 10.9.0.1/24 dev {route[0]['dev']}")
    wait_for("the guard", lambda: not is_refused(), hint=life.agent.log)
