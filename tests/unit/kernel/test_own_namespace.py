"""A namespace is the proxy's own only if the environment contains its inode."""

import os
from pathlib import Path

from userspace_proxy.kernel.own_namespace import (
    is_own_namespace,
    network_namespace,
    own_namespace_environment,
)


def test_without_the_environment_variable_a_namespace_is_not_owned(monkeypatch):
    for name in own_namespace_environment(os.getpid()):
        monkeypatch.delenv(name, raising=False)
    assert not is_own_namespace()


def test_the_namespace_in_the_environment_variable_is_owned(monkeypatch):
    for name, value in own_namespace_environment(os.getpid()).items():
        monkeypatch.setenv(name, value)
    assert is_own_namespace()


def test_with_another_inode_in_the_variable_a_namespace_is_not_owned(monkeypatch):
    for name in own_namespace_environment(os.getpid()):
        monkeypatch.setenv(name, "1")
    assert not is_own_namespace()


def test_a_network_namespace_is_identified_by_its_inode():
    assert network_namespace() == Path("/proc/self/ns/net").stat().st_ino
