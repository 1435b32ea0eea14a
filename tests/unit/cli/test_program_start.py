import pytest

from userspace_proxy.cli.program_start import ProgramStart, is_plugin

PYTHON = "/usr/bin/python3"
POD = {"POD_NAME": "proxy-x7", "POD_NAMESPACE": "kube-system"}


def program(*argv, orig_argv=None, parent=1, **environment):
    start = ProgramStart(argv, orig_argv or (PYTHON, *argv), environment, parent)
    return " ".join(start.program)


@pytest.fixture
def installed(tmp_path):
    file = tmp_path / "userspace-proxy"
    file.touch(mode=0o755)
    return file


def test_suggested_commands_name_a_program_in_path_without_its_directory(installed):
    assert program(str(installed), "explain", PATH=str(installed.parent)) == "userspace-proxy"


def test_suggested_commands_name_a_program_outside_path_as_typed(installed, tmp_path):
    (tmp_path / "other").mkdir()
    assert program(str(installed), "explain", PATH=str(tmp_path / "other")) == str(installed)
    another = tmp_path / "other" / "userspace-proxy"
    another.touch(mode=0o755)
    assert program(str(installed), "explain", PATH=str(another.parent)) == str(installed)


@pytest.mark.parametrize("words", [(), ("explain", "shop/web", "--probe")])
def test_suggested_commands_run_a_module_with_python_m(words):
    orig = (".venv/bin/python", "-X", "dev", "-m", "userspace_proxy", *words)
    shown = program("/src/userspace_proxy/__main__.py", *words, orig_argv=orig)
    assert shown == ".venv/bin/python -X dev -m userspace_proxy"


def test_suggested_commands_run_the_plugin_as_a_kubectl_command():
    assert program("/usr/bin/kubectl-userspace_proxy", "explain") == "kubectl userspace-proxy"
    assert is_plugin(("/usr/bin/kubectl-userspace_proxy",))
    assert not is_plugin(("/usr/bin/userspace-proxy",))


def test_suggested_commands_run_kubectl_exec_in_the_same_pod():
    shown = program("userspace-proxy", "explain", parent=0, **POD)
    assert shown == "kubectl exec -n kube-system proxy-x7 -- userspace-proxy"
    assert program("userspace-proxy", "status", parent=0, POD_NAME="a") == (
        "kubectl exec a -- userspace-proxy"
    )


def test_commands_suggested_inside_the_container_omit_kubectl():
    assert program("userspace-proxy", "explain", parent=17, **POD) == "userspace-proxy"


def test_suggested_commands_omit_kubectl_exec_without_a_pod_name():
    assert program("userspace-proxy", "explain", parent=0) == "userspace-proxy"
