import pytest

from userspace_proxy.config.words import dashed, split_words
from userspace_proxy.errors import ConfigError

FLAGS = {
    "kubeconfig": True,
    "proxy-mode": True,
    "cleanup": False,
    "v": True,
    "vmodule": True,
    "h": False,
}


@pytest.mark.parametrize(
    ("words", "given", "others"),
    [
        pytest.param(["--kubeconfig=k"], [("kubeconfig", "k")], [], id="equals"),
        pytest.param(["--kubeconfig", "k"], [("kubeconfig", "k")], [], id="next-word"),
        pytest.param(["--kubeconfig="], [("kubeconfig", "")], [], id="empty-value"),
        pytest.param(["--kubeconfig", ""], [("kubeconfig", "")], [], id="empty-word"),
        pytest.param(["--kubeconfig=a=b"], [("kubeconfig", "a=b")], [], id="equals-in-value"),
        pytest.param(["--kubeconfig", "--v"], [("kubeconfig", "--v")], [], id="takes-any-word"),
        pytest.param(["--proxy_mode=x"], [("proxy-mode", "x")], [], id="underscores"),
        pytest.param(["--cleanup"], [("cleanup", "true")], [], id="switch"),
        pytest.param(["--cleanup=false"], [("cleanup", "false")], [], id="switch-off"),
        pytest.param(["--cleanup", "false"], [("cleanup", "true")], ["false"], id="switch-alone"),
        pytest.param(["-v4"], [("v", "4")], [], id="short-joined"),
        pytest.param(["-vfour"], [("v", "four")], [], id="short-joined-text"),
        pytest.param(["-v=4"], [("v", "4")], [], id="short-equals"),
        pytest.param(["-v", "4"], [("v", "4")], [], id="short-next-word"),
        pytest.param(["--v=4"], [("v", "4")], [], id="short-name-long-form"),
        pytest.param(["-h"], [("h", "true")], [], id="short-switch"),
        pytest.param(["--", "--v=4"], [], ["--v=4"], id="end-of-flags"),
        pytest.param(["a", "-", "--v=1", "b"], [("v", "1")], ["a", "-", "b"], id="other-words"),
        pytest.param(["--v=1", "--v=2"], [("v", "1"), ("v", "2")], [], id="repeated"),
    ],
)
def test_words_are_split_as_pflag_does(words, given, others):
    assert split_words(words, FLAGS) == (given, others)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kubecofnig=k"], "unknown flag --kubecofnig (did you mean --kubeconfig?)"),
        (["--proxy_mod"], "unknown flag --proxy_mod (did you mean --proxy-mode?)"),
        (["-vmodule=k"], "unknown flag -vmodule (did you mean --vmodule?)"),
        (["-kubeconfig=k"], "unknown flag -kubeconfig (did you mean --kubeconfig?)"),
        (["--kube"], "unknown flag --kube (userspace-proxy run --help lists them)"),
        (["-x"], "unknown flag -x (userspace-proxy run --help lists them)"),
        (["-hx"], "unknown flag -hx (userspace-proxy run --help lists them)"),
        (["--=5"], "unknown flag -- (userspace-proxy run --help lists them)"),
        (["--kubeconfig"], "--kubeconfig needs a value"),
        (["-v"], "-v needs a value"),
    ],
)
def test_a_wrong_word_is_refused_with_a_remedy(words, message):
    with pytest.raises(ConfigError) as caught:
        split_words(words, FLAGS, command="run")
    assert str(caught.value) == message


def test_flags_are_shown_with_their_dashes():
    assert (dashed("v"), dashed("cleanup")) == ("-v", "--cleanup")
