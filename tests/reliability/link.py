"""Inserts the relay between a node and a pod, and sets the conditions of this link."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from userspace_proxy_testing.sandbox import Pod, SandboxNode
from userspace_proxy_testing.sandbox.holder import read_line

from .relay import Conditions

PROGRAM = Path(__file__).with_name("relay.py")
ANSWER_S = 20.0


class Link:
    """A link between a node and one of its pods through the relay, instead of the veth.

    Args:
        node: The relay's node.
        pod: The pod whose IPv4 packets pass the relay.
    """

    def __init__(self, node: SandboxNode, pod: Pod) -> None:
        near, far = f"near-{pod.name}", f"far-{pod.name}"
        self._process = node.popen(
            [sys.executable, "-IS", str(PROGRAM), near, far],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._expect("ready")
        node.configure(
            [
                f"link set {far} netns {pod.pid}",
                f"link set {near} up",
                f"route replace {pod.ip} dev {near}",
            ]
        )
        pod.configure([f"link set {far} up", f"route replace 0.0.0.0/0 dev {far} src {pod.ip}"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def set(self, conditions: Conditions | None = None) -> None:
        """Replace the conditions of both directions; by default, packets pass immediately."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(asdict(conditions or Conditions()))}\n")
        self._process.stdin.flush()
        self._expect("done")

    def close(self) -> None:
        """Stop the relay, which removes its devices."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(ANSWER_S)

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        said = read_line(self._process.stdout.fileno(), ANSWER_S)
        assert said == word, f"the relay said {said!r}"
