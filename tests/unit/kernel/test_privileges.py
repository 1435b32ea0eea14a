"""The capability that rules need."""

import subprocess
import sys

from userspace_proxy.kernel.privileges import (
    CAP_NET_ADMIN,
    effective_capabilities,
    has_net_admin,
)

ASK = "from userspace_proxy.kernel.privileges import has_net_admin; print(has_net_admin())"


def test_root_of_the_namespace_has_net_admin():
    assert has_net_admin()
    assert effective_capabilities() >> CAP_NET_ADMIN & 1


def test_a_process_without_capabilities_lacks_net_admin():
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", "--"]
    done = subprocess.run([*drop, sys.executable, "-c", ASK], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
