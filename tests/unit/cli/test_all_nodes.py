import resource

import pytest

from userspace_proxy.cli.all_nodes import NODE_FLAGS, asks_all_nodes, open_reader, settings_of
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.config.flags import KNOWN
from userspace_proxy.errors import ConfigError
from userspace_proxy.linux import bounded

PLUGIN = "/usr/bin/kubectl-userspace_proxy"


def given(*words, command="status"):
    return COMMANDS[command].read_words(words)


@pytest.mark.parametrize(
    ("program", "words", "is_all"),
    [
        pytest.param("userspace-proxy", [], False, id="on-a-node"),
        pytest.param("userspace-proxy", ["--kubeconfig=a"], True, id="kubeconfig"),
        pytest.param("userspace-proxy", ["--context=a"], True, id="context"),
        pytest.param("userspace-proxy", ["--node=a"], True, id="node"),
        pytest.param(PLUGIN, [], True, id="plugin"),
        pytest.param(PLUGIN, ["--server=:1"], False, id="plugin-that-asks-one"),
        pytest.param(PLUGIN, ["--config=a"], False, id="plugin-that-asks-one-by-its-file"),
        pytest.param(
            "userspace-proxy", ["--kubeconfig=a", "--server=:1"], False, id="kubeconfig-but-one"
        ),
    ],
)
@pytest.mark.parametrize("command", ["status", "top", "observe"])
def test_only_what_is_written_decides_whom_a_command_asks(
    command, program, words, is_all, monkeypatch
):
    monkeypatch.setattr("sys.argv", [program])
    assert asks_all_nodes(given(*words, command=command)) is is_all


def test_nodes_and_one_proxy_exclude_each_other():
    with pytest.raises(ConfigError, match="--selector and --server exclude each other"):
        asks_all_nodes(given("--selector=a=b", "--server=:1"))


def test_without_any_time_nothing_is_asked():
    with pytest.raises(ConfigError, match="--timeout"):
        open_reader(given("--timeout=0s"), settings_of(given()))


def test_without_a_kubeconfig_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="there is no kubeconfig"):
        open_reader(given(command="nodes"), settings_of(given()))


def test_as_many_nodes_can_be_followed_as_the_hard_limit_allows(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        open_reader(given(command="nodes"), settings_of(given()))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (bounded(hard), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_its_flags_are_no_flags_of_run():
    assert {flag.name for flag in NODE_FLAGS}.isdisjoint(KNOWN)
