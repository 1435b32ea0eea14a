import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox.privileges import (
    explain_refusal,
    needs_user_namespace,
    require_tools,
)

NOT_PERMITTED = "unshare: unshare failed: Operation not permitted\n"


def test_a_missing_tool_is_reported_with_its_package(tmp_path):
    with pytest.raises(SandboxError) as caught:
        require_tools(str(tmp_path))
    assert str(caught.value) == (
        "cannot create a sandbox: the program unshare is missing (apt-get install util-linux)"
    )


def test_installed_tools_are_found(tmp_path):
    for tool in ("unshare", "nsenter", "ip"):
        (tmp_path / tool).touch(mode=0o755)
    require_tools(str(tmp_path))


@pytest.mark.parametrize(
    ("effective", "expected"),
    [
        pytest.param("000001ffffffffff", False, id="root"),
        pytest.param("0000000000201000", False, id="just-the-two"),
        pytest.param("00000000a80425fb", True, id="root-of-a-plain-container"),
        pytest.param("0000000000000000", True, id="user"),
    ],
)
def test_a_user_namespace_is_required_without_the_capabilities(effective, expected):
    assert needs_user_namespace(int(effective, 16)) is expected


@pytest.mark.parametrize(
    ("said", "sysctls", "expected"),
    [
        pytest.param(
            "unshare: unshare failed: No space left on device",
            {"user.max_user_namespaces": "0"},
            "cannot create a user namespace: unshare: unshare failed: No space left on device; "
            "user.max_user_namespaces is 0 "
            "(as root: sysctl -w user.max_user_namespaces=15000; or run this as root)",
            id="none-allowed",
        ),
        pytest.param(
            NOT_PERMITTED,
            {"user.max_user_namespaces": "9000", "kernel.unprivileged_userns_clone": "0"},
            "cannot create a user namespace: unshare: unshare failed: Operation not permitted; "
            "kernel.unprivileged_userns_clone is 0 "
            "(as root: sysctl -w kernel.unprivileged_userns_clone=1; or run this as root)",
            id="debian",
        ),
        pytest.param(
            "unshare: write failed /proc/self/uid_map: Operation not permitted",
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "cannot create a user namespace: "
            "unshare: write failed /proc/self/uid_map: Operation not permitted; "
            "kernel.apparmor_restrict_unprivileged_userns is 1 (as root: sysctl -w "
            "kernel.apparmor_restrict_unprivileged_userns=0; or run this as root)",
            id="ubuntu",
        ),
        pytest.param(
            NOT_PERMITTED,
            {"user.max_user_namespaces": "9000"},
            "cannot create a user namespace: unshare: unshare failed: Operation not permitted "
            "(a container's seccomp filter or a chroot may forbid it: "
            "run privileged, or as root)",
            id="container",
        ),
    ],
)
def test_a_denied_user_namespace_is_reported_with_cause_and_remedy(said, sysctls, expected):
    assert str(explain_refusal(said, rootless=True, sysctls=sysctls)) == expected


def test_a_denied_network_namespace_is_reported_with_the_required_capabilities():
    error = explain_refusal(NOT_PERMITTED, rootless=False, sysctls={})
    assert "Operation not permitted (grant CAP_SYS_ADMIN and CAP_NET_ADMIN" in str(error)


def test_a_read_only_proc_is_distinguished_from_a_denied_namespace():
    said = "holder: 3: cannot create /proc/sys/net/ipv4/ip_forward: Read-only file system"
    error = explain_refusal(said, rootless=True, sysctls={"user.max_user_namespaces": "0"})
    assert error.hint == "/proc/sys must be writable: in a container, run it privileged"
