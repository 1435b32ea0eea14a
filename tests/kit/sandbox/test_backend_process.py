import functools
import subprocess

import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox.backend_process import BackendProcess, backend_command


def test_backend_kinds_become_flags_repeated_per_port():
    command = backend_command("web-1", {"tcp": 8080, "udp_echo": [7, 8]})
    assert command[-8:] == (
        *("--name", "web-1"),
        *("--tcp", "8080", "--udp-echo", "7", "--udp-echo", "8"),
    )


def test_an_unknown_backend_kind_is_named_in_the_error():
    popen = functools.partial(subprocess.Popen, text=True)
    with pytest.raises(SandboxError) as caught:
        BackendProcess(popen, "pod-a", "web-1", {"tpc": 8080})
    assert str(caught.value).startswith("cannot serve in pod-a: ")
    assert "--tpc" in str(caught.value)
