"""Starts on kernels that lack a feature: ``auto`` serves, or exits with the reason.

In each process, the kernel's answers are replaced, both to trials and to real changes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests import processes
from tests.node.checked_nodes import CheckedNode, checked_node

pytestmark = pytest.mark.netns

node = pytest.fixture(checked_node)

# Gives the answers of a kernel that lacks the features in LACKING.
LACKING = """
import errno, os
from userspace_proxy.kernel import legacy_options
from userspace_proxy.kernel.netlink import Requests

lacking = os.environ.get("LACKING", "")
expressions = {"nat": b"nat\\0", "redirect": b"redir\\0", "reject": b"reject\\0",
               "numgen": b"numgen\\0", "fib": b"fib\\0", "tproxy": b"tproxy\\0"}

def refuse_legacy(*_):
    raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

if "legacy tables" in lacking:
    legacy_options.ask_legacy = refuse_legacy

from userspace_proxy.kernel.nf_tables import NftablesError, Ruleset
from userspace_proxy.kernel.nf_tables.writer import NEW_RULE, NEW_TABLE
send, ask, blocks = Ruleset._send, Requests.ask, Requests.blocks

def send_if_there(self, messages, end):
    for message in messages:
        if "inet tables" in lacking and message[16] == 1:
            raise NftablesError(errno.EOPNOTSUPP, NEW_TABLE)
        found = (part for name, part in expressions.items() if name in lacking)
        if any(b"\\1\\0" + part in message for part in found):
            raise NftablesError(errno.ENOENT, NEW_RULE)
    return send(self, messages, end)

def is_missing(request):
    return "conntrack netlink" in lacking and request[5] == 1

def ask_if_there(self, request):
    if is_missing(request):
        raise OSError(errno.EINVAL, "Invalid argument")
    return ask(self, request)

def blocks_if_there(self, request):
    if is_missing(request):
        raise OSError(errno.EINVAL, "Invalid argument")
    return blocks(self, request)

Ruleset._send, Requests.ask, Requests.blocks = send_if_there, ask_if_there, blocks_if_there
"""
BY_LOCAL = "--steering=local works here"
NO_CONNTRACK = "this kernel lacks conntrack netlink (modprobe nf_conntrack_netlink"


@pytest.fixture
def lacking(node: CheckedNode):
    """Make the kernel lack some features."""
    node.patch(LACKING)

    def lack(parts: str) -> CheckedNode:
        node.environment["LACKING"] = parts
        return node

    return lack


def started(node: CheckedNode, *flags: str, look: Callable[[], object] = lambda: None) -> str:
    """Run the proxy until it serves or exits; return its steering mode, or its last line.

    Args:
        look: Called while the proxy serves.
    """
    command = [
        *("timeout", "60", sys.executable, "-m", "userspace_proxy", "run"),
        *(f"--manifests={node.manifests}", "--state-dir=", "--workers=1", *flags),
    ]
    steering, line = "", ""
    with processes.started(
        ["nsenter", f"--net=/proc/self/fd/{node.fd}", *command],
        pass_fds=[node.fd],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=node.environment,
    ) as proxy:
        assert proxy.stderr is not None
        for line in proxy.stderr:
            if found := re.search(r" started .*steering=(\w+)", line):
                steering = found[1]
            if " plan applied " in line:
                look()
                proxy.terminate()
                return steering
    return line.strip()


def checked(node: CheckedNode, *flags: str) -> str:
    """Return the steering mode from ``check``, or its error with the remedy."""
    findings = json.loads(node.check("-o", "json", *flags).stdout)["findings"]
    about = [one for one in findings if one["topic"] == "steering"]
    errors = [f"{one['what']} ({one['hint']})" for one in about if one["mark"] == "error"]
    chosen = (re.match(r"auto chooses (\w+)", one["what"]) for one in about)
    return errors[0] if errors else next(found[1] for found in chosen if found)


@pytest.mark.needs("legacy tables")
@pytest.mark.parametrize("parts", ["inet tables", "redirect"])
def test_auto_chooses_iptables_if_nftables_lacks_a_part(lacking, parts):
    node = lacking(parts)
    assert (started(node), checked(node)) == ("iptables", "iptables")


@pytest.mark.parametrize("parts", ["legacy tables", "fib"])
def test_auto_chooses_nftables_despite_missing_optional_parts(lacking, parts):
    node = lacking(parts)
    assert (started(node), checked(node)) == ("nftables", "nftables")


@pytest.mark.parametrize(
    ("parts", "steering", "cause", "remedy"),
    [
        pytest.param("conntrack netlink", "auto", NO_CONNTRACK, BY_LOCAL, id="conntrack"),
        pytest.param(
            "legacy tables",
            "iptables",
            "this kernel lacks legacy tables",
            "--steering=nftables works here",
            id="legacy",
        ),
        pytest.param(
            "inet tables legacy tables",
            "auto",
            "this kernel lacks inet tables (CONFIG_NF_TABLES_INET)",
            "--steering=none",
            id="no-rules-at-all",
        ),
    ],
)
def test_a_failed_start_names_an_alternative_steering_mode(lacking, parts, steering, cause, remedy):
    node = lacking(parts)
    for said in (started(node, f"--steering={steering}"), checked(node, f"--steering={steering}")):
        assert cause in said
        assert remedy in said
