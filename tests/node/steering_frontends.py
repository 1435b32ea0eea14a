"""Sets of frontends for which iptables steering needs trees of chains."""

from userspace_proxy.model import Frontend, Protocol

TREE = {Frontend(f"10.96.{i >> 4}.{i & 15}", 80, Protocol.TCP): 36000 + i for i in range(100)}
TREE_6 = {Frontend(f"fd00:96::{i:x}", 80, Protocol.TCP): 36000 + i for i in range(1, 100)}
MANY = {
    Frontend(f"10.96.{i >> 8}.{i & 255}", 80, Protocol.TCP): 36000 + i % 900
    for i in range(0, 1 << 16, 40)
}
