import os

import pytest

from userspace_proxy_testing.sandbox.reaper import main, members, namespace_of


@pytest.fixture
def proc(tmp_path):
    for pid, namespace in (
        (1, "net:[1]"),
        (7, "net:[2]"),
        (8, "net:[2]"),
        (os.getpid(), "net:[2]"),
    ):
        (tmp_path / str(pid) / "ns").mkdir(parents=True)
        (tmp_path / str(pid) / "ns" / "net").symlink_to(namespace)
    (tmp_path / "9").mkdir()
    (tmp_path / "sys").mkdir()
    return str(tmp_path)


def test_members_returns_all_processes_of_a_namespace_except_the_reaper(proc):
    assert sorted(members("net:[2]", proc)) == [7, 8]


def test_an_exited_process_belongs_to_no_namespace(proc):
    assert namespace_of(9, proc) == ""
    assert namespace_of(10, proc) == ""


def test_the_reaper_fails_without_an_argument():
    assert main([]) == 1
