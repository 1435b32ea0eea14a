"""Reading other programs' rules in a network namespace."""

import subprocess
import sys

from userspace_proxy.filters.chains import ChainTable
from userspace_proxy.steering.kernel_view import KernelView, read_kernel


def test_a_new_namespace_has_a_loopback_interface_and_no_rules(node):
    assert read_kernel("input", "forward") == KernelView(links=("lo",))


def test_interfaces_and_rules_of_nft_and_legacy_tables_are_read(node):
    node.run("""
        ip link add veth0 type veth peer name veth1
        iptables-legacy -t nat -N KUBE-SERVICES
        iptables-legacy -P INPUT DROP
        nft 'table inet userspace-proxy { chain drops { drop; }; }; table ip filter { }'
        nft 'add chain ip filter INPUT { type filter hook input priority 0; policy drop; }'""")
    kernel = read_kernel("input", "forward")
    assert set(kernel.links) == {"lo", "veth0", "veth1"}
    assert kernel.unread == ()
    assert kernel.legacy_nat[ChainTable("ip", "nat", is_legacy=True)]["KUBE-SERVICES"].hook == ""
    assert (
        kernel.legacy_filter[ChainTable("ip", "filter", is_legacy=True)]["INPUT"].policy == "drop"
    )
    assert kernel.nft[ChainTable("ip", "filter")]["INPUT"].policy == "drop"
    assert kernel.inet_tables == ("userspace-proxy",)
    assert ChainTable("inet", "userspace-proxy") not in kernel.nft
    assert read_kernel(has_nat=False).legacy_nat == {}


def test_unreadable_parts_of_the_kernels_rules_are_reported(node):
    """Without privileges, the names of interfaces are still read."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    ask = (
        "from userspace_proxy.steering.kernel_view import read_kernel; kernel = read_kernel(); "
        "print(*kernel.links, len(kernel.unread), kernel.is_nft_read, kernel.unread[0])"
    )
    node.run("iptables-legacy -t nat -L")
    done = subprocess.run([*drop, sys.executable, "-c", ask], capture_output=True, text=True)
    assert done.stdout.startswith("lo 2 False "), done.stderr
    assert "Operation not permitted" in done.stdout
