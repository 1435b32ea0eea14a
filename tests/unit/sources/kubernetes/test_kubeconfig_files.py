"""Finding kubeconfig files, merging them, and reading each only once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.kubeconfig_files import (
    Kubeconfig,
    find_kubeconfig,
    fingerprint,
    one_file,
    read_kubeconfig,
)

TEXT = """\
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "https://a.test"}}]
users: [{name: a, user: {tokenFile: token}}]
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(TEXT)
    return path


def server_in(path: Path | str) -> str:
    return read_kubeconfig(Kubeconfig((str(path),))).cluster.server


def problem_of(kubeconfig: Kubeconfig) -> str:
    with pytest.raises(SourceError) as caught:
        read_kubeconfig(kubeconfig)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_relative_path_is_resolved_to_an_absolute_directory(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    config = read_kubeconfig(Kubeconfig((path.name,)))
    assert config.user.token_file == str(path.parent / "token")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_determines_the_encoding_of_a_kubeconfig(path, encoding):
    path.write_text(TEXT, encoding=encoding)
    assert server_in(path) == "https://a.test"


@pytest.mark.parametrize("end", ["---\n", "---\n[}", "\x20\r\n", "current-context: a\n", "# x"])
def test_kubeconfigs_accepted_by_kubectl_are_read(path, end):
    path.write_text(TEXT + end)
    assert server_in(path) == "https://a.test"


def test_a_kubeconfig_in_a_pipe_is_not_read_twice(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(TEXT,), daemon=True)
    writer.start()
    assert [server_in(path) for _ in range(2)] == ["https://a.test"] * 2
    writer.join()


def test_missing_files_in_the_kubeconfig_variable_are_skipped(path):
    found = find_kubeconfig({"KUBECONFIG": f":/missing:{path}:{path}:"})
    assert found == Kubeconfig(("/missing", str(path)), may_be_missing=True)
    assert read_kubeconfig(found).cluster.server == "https://a.test"
    assert str(found) == f"/missing:{path}"
    path.unlink()
    assert problem_of(found) == (
        f"cannot read kubeconfig /missing:{path}: No such file or directory"
    )


def test_the_default_kubeconfig_is_in_the_home_directory(tmp_path):
    home = {"HOME": str(tmp_path)}
    assert find_kubeconfig(home) is None
    default = tmp_path / ".kube" / "config"
    default.parent.mkdir()
    default.write_text(TEXT)
    expected = Kubeconfig((str(default),), may_be_missing=True)
    for environment in (home, {"USERPROFILE": str(tmp_path)}, {**home, "KUBECONFIG": ""}):
        assert find_kubeconfig(environment) == expected
    for listed in (":", "/missing"):
        assert find_kubeconfig({**home, "KUBECONFIG": listed}) is None


def test_an_explicit_kubeconfig_must_exist(tmp_path):
    given = one_file(str(tmp_path / "nothing"))
    assert given is not None
    assert problem_of(given) == f"cannot read kubeconfig {given}: No such file or directory"
    assert one_file("") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "cannot use kubeconfig {}:1: it is not UTF-8 here (save the file as UTF-8)"),
        (b"a: [", "cannot use kubeconfig {}:1: not YAML: while parsing a flow node"),
        (b"a: 1\nb:\n\t- c", "cannot use kubeconfig {}:3: not YAML"),
    ],
)
def test_a_kubeconfig_that_is_not_utf_8_or_yaml_is_rejected_with_its_line(path, content, problem):
    path.write_bytes(content)
    assert problem_of(Kubeconfig((str(path),))).startswith(problem.format(path))


@pytest.mark.parametrize("path", ["", "\0"])
def test_a_directory_or_an_impossible_path_is_reported_in_one_line(tmp_path, path):
    assert problem_of(Kubeconfig((f"{tmp_path}{path}",))).startswith("cannot read kubeconfig ")


def test_an_unknown_users_home_directory_is_reported_in_one_line():
    assert "cannot read kubeconfig ~no-such-user/config: " in problem_of(
        Kubeconfig(("~no-such-user/config",))
    )


def test_the_fingerprint_of_a_file_changes_with_its_modification_time(path):
    assert fingerprint(None) == ()
    assert fingerprint("/missing") == ("/missing",)
    before = fingerprint(str(path))
    os.utime(path, (1, 1))
    assert fingerprint(str(path)) != before


def test_an_empty_kubeconfig_is_reported_as_empty(tmp_path):
    path = tmp_path / "config"
    path.write_text("# nothing\n")
    with pytest.raises(SourceError, match="config: it is empty"):
        read_kubeconfig(Kubeconfig((str(path),)))
    assert read_kubeconfig(Kubeconfig((str(path),)), server="http://a.test")


def test_a_kubeconfig_in_an_inaccessible_directory_is_assumed_to_exist(tmp_path, monkeypatch):
    """Like kubectl, the reader then reports the denied access, not a missing kubeconfig."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.lstat", refuse)
    found = find_kubeconfig({"HOME": str(tmp_path)})
    assert found is not None
    assert found.paths == (f"{tmp_path}/.kube/config",)
