import pytest

from userspace_proxy.cli.all_nodes import NODE_FLAGS, asks_all_nodes
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.config.flags import KNOWN
from userspace_proxy.errors import ConfigError

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
        pytest.param(PLUGIN, ["--server=:1"], False, id="plugin-with-server"),
        pytest.param(PLUGIN, ["--config=a"], False, id="plugin-with-config"),
        pytest.param(
            "userspace-proxy", ["--kubeconfig=a", "--server=:1"], False, id="kubeconfig-and-server"
        ),
    ],
)
@pytest.mark.parametrize("command", ["status", "top", "observe"])
def test_program_and_flags_select_one_proxy_or_all_nodes(
    command, program, words, is_all, monkeypatch
):
    monkeypatch.setattr("sys.argv", [program])
    assert asks_all_nodes(given(*words, command=command)) is is_all


def test_options_for_nodes_and_for_one_proxy_exclude_each_other():
    with pytest.raises(ConfigError, match="--selector and --server exclude each other"):
        asks_all_nodes(given("--selector=a=b", "--server=:1"))


def test_flags_for_nodes_are_distinct_from_flags_of_run():
    assert {flag.name for flag in NODE_FLAGS}.isdisjoint(KNOWN)
