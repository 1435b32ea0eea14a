import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox.network import Sandbox


@pytest.mark.parametrize("use", [lambda s: s.node, lambda s: s.lan, lambda s: s.add_pod("a")])
def test_using_an_unopened_sandbox_is_an_error(use):
    with pytest.raises(SandboxError, match="cannot use the sandbox: it is not open"):
        use(Sandbox())


def test_an_unusable_range_is_rejected_before_anything_starts():
    with pytest.raises(SandboxError, match="a sandbox needs one IPv4 range"):
        Sandbox(pod_cidr="10.244.0.0,10.245.0.0")


def test_closing_an_unopened_sandbox_does_nothing():
    Sandbox().close()


def test_a_reopened_sandbox_has_no_earlier_clients():
    sandbox = Sandbox()
    for _ in range(2):
        with sandbox:
            sandbox.add_outside("client")
            assert list(sandbox.outside) == ["client"]
