"""Detecting CAP_NET_ADMIN, and sysctls that restrict user namespaces."""

import subprocess
import sys

from userspace_proxy.kernel.privileges import (
    CAP_NET_ADMIN,
    effective_capabilities,
    forbidding,
    has_net_admin,
    read_sysctls,
)

ASK = "from userspace_proxy.kernel.privileges import has_net_admin; print(has_net_admin())"


def test_root_has_net_admin():
    assert has_net_admin()
    assert effective_capabilities() >> CAP_NET_ADMIN & 1


def test_root_without_cap_net_admin_in_its_bounding_set_lacks_net_admin():
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", "--"]
    done = subprocess.run([*drop, sys.executable, "-c", ASK], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_only_existing_sysctls_are_returned(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "max_user_namespaces").write_text("0\n")
    assert read_sysctls(proc_sys=tmp_path) == {"user.max_user_namespaces": "0"}


def test_a_forbidding_sysctl_is_returned_with_the_permitting_value():
    sysctls = {"user.max_user_namespaces": "9000", "kernel.unprivileged_userns_clone": "0"}
    assert forbidding(sysctls) == ("kernel.unprivileged_userns_clone", "0", "1")
    assert forbidding({"user.max_user_namespaces": "9000"}) is None
