from __future__ import annotations

import errno
import os
import platform
import socket
import stat
import struct
from types import SimpleNamespace

import pytest

from userspace_proxy.kernel import trials
from userspace_proxy.kernel.bpf.objects import KINDS, HookKind
from userspace_proxy.kernel.legacy_options import GET_REVISION_MATCH, IPV6_GET_REVISION_MATCH
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.offers import try_parts

TABLES = ("legacy tables", "legacy tables of IPv6")


def refusing(code):
    """Return a function that raises the error of a refused call."""

    def refuse(*_args, **_keywords):
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.fixture
def modprobe(monkeypatch, tmp_path):
    """Return a function that installs a fake modprobe and returns the file with its arguments."""

    def make(status, says="builtin ip_tables"):
        program, noted = tmp_path / "modprobe", tmp_path / "noted"
        script = f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {noted}\necho '{says}'\nexit {status}\n"
        program.write_text(script)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        setting = tmp_path / "setting"
        setting.write_text(f"{program}\n")
        monkeypatch.setattr(trials, "_MODPROBE", setting)
        monkeypatch.setattr(trials, "effective_capabilities", lambda: 1 << 16)
        monkeypatch.setattr(trials, "user_namespace", lambda: trials._FIRST_USER_NAMESPACE)
        return noted

    return make


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        pytest.param(0, 0, id="present"),
        pytest.param(errno.ENOENT, 0, id="without-the-match"),
        pytest.param(errno.ENOPROTOOPT, errno.ENOPROTOOPT, id="missing"),
        pytest.param(errno.EPERM, errno.EPERM, id="not-allowed"),
    ],
)
def test_legacy_tables_are_probed_by_a_socket_option_without_unshare(monkeypatch, code, answer):
    monkeypatch.setattr(trials, "_libc", SimpleNamespace(unshare=lambda _flags: -1))
    monkeypatch.setattr(trials, "_MODPROBE", trials.Path("/nonexistent"))
    monkeypatch.setattr(trials, "ask_legacy", refusing(code) if code else lambda *_: b"")
    assert try_parts(TABLES) == dict.fromkeys(TABLES, answer)


def test_legacy_tables_in_loadable_modules_count_as_present(monkeypatch, modprobe):
    noted = modprobe(0)
    monkeypatch.setattr(trials, "ask_legacy", refusing(errno.ENOPROTOOPT))
    assert try_parts((*TABLES, "legacy extensions")) == {
        "legacy tables": 0,
        "legacy tables of IPv6": 0,
        "legacy extensions": 0,
    }
    assert noted.read_text().splitlines()[0] == "-D -q -a ip_tables iptable_nat iptable_filter"


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        pytest.param(f"insmod {__file__} ", 0, id="file"),
        pytest.param("insmod /nonexistent/ip_tables.ko ", errno.ENOPROTOOPT, id="no-file"),
        pytest.param("install /bin/false", errno.ENOPROTOOPT, id="forbidden"),
    ],
)
def test_a_module_is_loadable_only_if_modprobe_finds_its_file(monkeypatch, modprobe, says, answer):
    modprobe(0, says)
    monkeypatch.setattr(trials, "ask_legacy", refusing(errno.ENOPROTOOPT))
    assert try_parts(["legacy tables"]) == {"legacy tables": answer}


def test_only_legacy_tables_in_loaded_modules_are_probed(monkeypatch, modprobe, tmp_path):
    modprobe(0)
    read = []
    monkeypatch.setattr(trials, "_MODULES", tmp_path)
    monkeypatch.setattr(trials, "ask_legacy", lambda *asked: read.append(asked[0]))
    for name in ("ip_tables", "iptable_nat", "iptable_filter", "ip6_tables"):
        (tmp_path / name).mkdir()
    assert try_parts(TABLES) == dict.fromkeys(TABLES, 0)
    assert read == [4, 4]


@pytest.mark.parametrize(
    ("part", "option"),
    [("legacy tables", GET_REVISION_MATCH), ("legacy tables of IPv6", IPV6_GET_REVISION_MATCH)],
)
def test_without_a_namespace_of_its_own_a_trial_queries_the_matches_of_its_family(
    monkeypatch, part, option
):
    asked = []
    monkeypatch.setattr(trials, "ask_legacy", lambda *query: asked.append(query[1]))
    trials._LEGACY[part][1]()
    assert asked == [option]


def test_legacy_tables_without_a_loadable_module_count_as_missing(monkeypatch, modprobe):
    modprobe(1)
    monkeypatch.setattr(trials, "ask_legacy", refusing(errno.ENOPROTOOPT))
    assert try_parts(["legacy tables"]) == {"legacy tables": errno.ENOPROTOOPT}
    modprobe(0)
    monkeypatch.setattr(trials, "effective_capabilities", lambda: 0)
    assert try_parts(["legacy tables"]) == {"legacy tables": errno.ENOPROTOOPT}


def test_in_a_user_namespace_kernel_modules_cannot_be_loaded(monkeypatch, modprobe):
    modprobe(0)
    monkeypatch.setattr(trials, "user_namespace", lambda: 4026532001)
    monkeypatch.setattr(trials, "ask_legacy", refusing(errno.ENOPROTOOPT))
    assert try_parts(["legacy tables"]) == {"legacy tables": errno.ENOPROTOOPT}


def test_without_proc_the_legacy_tables_count_as_present(monkeypatch):
    monkeypatch.setattr(trials, "_MODULES", trials.Path("/nonexistent"))
    monkeypatch.setattr(trials, "effective_capabilities", refusing(errno.ENOENT))
    monkeypatch.setattr(trials, "ask_legacy", lambda *_: b"")
    assert try_parts(TABLES) == dict.fromkeys(TABLES, 0)


@pytest.mark.parametrize(
    ("code", "answer"), [(errno.EPROTONOSUPPORT, 0), (errno.ENOENT, errno.ENOENT)]
)
def test_a_legacy_extension_counts_as_present_in_any_revision(monkeypatch, code, answer):
    monkeypatch.setattr(trials, "ask_legacy", refusing(code))
    assert try_parts(["legacy extensions"]) == {"legacy extensions": answer}


def test_a_missing_legacy_extension_is_detected(node, monkeypatch):
    assert try_parts(["legacy extensions"]) == {"legacy extensions": 0}
    monkeypatch.setattr(trials, "_LEGACY_TARGETS", (b"NO-SUCH-TARGET",))
    assert try_parts(["legacy extensions"]) == {"legacy extensions": errno.ENOENT}


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        pytest.param(errno.ENOENT, errno.ENOENT, id="missing"),
        pytest.param(errno.EPROTONOSUPPORT, errno.EPROTONOSUPPORT, id="too-old"),
        pytest.param(errno.ENOPROTOOPT, 0, id="not-loaded-yet"),
    ],
)
def test_the_legacy_socket_match_requires_its_revision(monkeypatch, modprobe, code, answer):
    modprobe(0)
    monkeypatch.setattr(trials, "ask_legacy", refusing(code))
    assert try_parts(["legacy socket match"]) == {"legacy socket match": answer}


def test_an_unexpected_exception_in_a_probe_is_raised(monkeypatch):
    def break_off(*_args):
        raise struct.error("too short")

    monkeypatch.setattr(trials, "ask_legacy", break_off)
    with pytest.raises(struct.error, match="too short"):
        try_parts(["IPv6", "legacy socket match"])


def test_ipv6_counts_as_missing_if_no_ipv6_socket_can_be_opened(monkeypatch):
    opened = socket.socket

    def only_ipv4(family, *kind):
        if family == socket.AF_INET6:
            refusing(errno.EAFNOSUPPORT)()
        return opened(family, *kind)

    monkeypatch.setattr(trials.socket, "socket", only_ipv4)
    assert try_parts(["IPv6"]) == {"IPv6": errno.EAFNOSUPPORT}


@pytest.mark.parametrize("part", ["socket filters", "reuseport filters"])
def test_socket_filters_count_as_missing_if_the_kernel_rejects_the_probe(monkeypatch, part):
    # 0xFFFF isn't a valid instruction code.
    monkeypatch.setattr(trials, "_PASS", [(0xFFFF, 0, 0, 0)])
    assert try_parts([part]) == {part: errno.EINVAL}


def test_namespaces_of_sockets_count_as_missing_without_their_option(monkeypatch):
    monkeypatch.setattr(trials, "SO_NETNS_COOKIE", 0x7FFF)
    part = "namespaces of sockets"
    assert try_parts([part]) == {part: errno.ENOPROTOOPT}


@pytest.mark.parametrize("part", ["conntrack netlink", "sock_diag"])
def test_a_netlink_feature_counts_as_missing_if_its_request_is_rejected(monkeypatch, part):
    monkeypatch.setattr(Requests, "ask", refusing(errno.EINVAL))
    monkeypatch.setattr(Requests, "list_all", refusing(errno.ENOENT))
    assert try_parts([part])[part] in (errno.EINVAL, errno.ENOENT)


@pytest.mark.parametrize(
    ("code", "answer"), [(errno.ENOENT, 0), (errno.EOPNOTSUPP, errno.EOPNOTSUPP)]
)
def test_sock_diag_destroy_counts_as_present_if_no_socket_is_found(monkeypatch, code, answer):
    monkeypatch.setattr(Requests, "change", lambda *_: [(0, code)])
    assert try_parts(["sock_diag destroy"]) == {"sock_diag destroy": answer}


def test_the_sock_diag_destroy_probe_matches_no_socket(node):
    with Requests.open(trials.NETLINK_SOCK_DIAG) as requests:
        ended = trials.request(trials._DESTROY, 0, trials._NO_CONNECTION)
        assert requests.change([ended]) == [(0, errno.ENOENT)]


def test_the_newest_kind_of_bpf_hook_can_be_loaded_and_an_unknown_kind_cannot(monkeypatch):
    # Only root may load BPF programs.
    assert try_parts(["connect hooks"])["connect hooks"] in (0, errno.EPERM)
    monkeypatch.setitem(KINDS, "cgroup/sock_release", HookKind(9, 10_000))
    assert try_parts(["connect hooks"])["connect hooks"] in (errno.EINVAL, errno.EPERM)
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert try_parts(["connect hooks"]) == {"connect hooks": errno.EPERM}
