"""Harmless rulesets as other programs create them, and links of pods."""

from ipaddress import ip_network

from tests.unit.filters.written import read
from userspace_proxy.filters.chains import Chain, ChainTable, Tables
from userspace_proxy.policy.locality import PodLink

FILTER = ChainTable("ip", "filter")
POD = PodLink(2, "cali1", (ip_network("10.244.1.1/32"),))
CLIENT = PodLink(3, "cali2", (ip_network("10.244.1.2/32"),))
UPLINK = PodLink(9, "eth0", (ip_network("0.0.0.0/0"),))
DOCKER_0 = PodLink(10, "docker0", (ip_network("172.17.0.0/16"),))
LINKS = (POD, CLIENT, UPLINK, DOCKER_0)


def chains(
    hook: str,
    rules: list[str],
    others: dict[str, list[str]],
    policy: str = "accept",
    table: ChainTable = FILTER,
) -> Tables:
    """Return tables with a base chain on a hook and the chains to which its rules jump."""
    base = Chain(table, hook.upper(), "filter", hook, policy=policy, steps=(*map(read, rules),))
    led = (Chain(table, name, steps=(*map(read, lines),)) for name, lines in others.items())
    return {table: {base.name: base, **{one.name: one for one in led}}}


PODS = """
    ip link add veth-a type veth; ip link set veth-a up; ip route add 10.244.1.2 dev veth-a
    ip link add cni0 type bridge; ip address add 10.244.2.1/24 dev cni0; ip link set cni0 up
    ip link add eth0 type veth; ip address add 192.0.2.9/24 dev eth0; ip link set eth0 up
    ip route add default via 192.0.2.1"""
USUAL = {
    "firewalld": """nft '
        table inet firewalld {
            chain filter_INPUT {
                type filter hook input priority filter + 10;
                ct state { established, related } accept
                ct status dnat accept
                iifname "lo" accept
                ct state invalid drop
                ip saddr 203.0.113.0/24 goto filter_IN_drop
                iifname "eth0" goto filter_IN_public
                reject with icmpx admin-prohibited
            }
            chain filter_IN_drop { drop; }
            chain filter_IN_public { tcp dport 22 accept; reject with icmpx admin-prohibited; }
        }'""",
    "ufw": """
        iptables-nft -N ufw-user-input
        iptables-nft -A INPUT -i lo -j ACCEPT
        iptables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A INPUT -m conntrack --ctstate INVALID -j DROP
        iptables-nft -A INPUT -j ufw-user-input
        iptables-nft -A INPUT -p udp --dport 137 -j DROP
        iptables-nft -P OUTPUT DROP
        iptables-nft -A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A ufw-user-input -s 203.0.113.7 -j DROP
        iptables-nft -A ufw-user-input -p tcp --dport 80 -s 203.0.113.8 -j REJECT""",
    "docker": """
        iptables-nft -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
        iptables-nft -t raw -A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp --dport 30080 -j DROP
        iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j RETURN""",
    "kubelet": """
        iptables-nft -N KUBE-FIREWALL
        for chain in INPUT OUTPUT; do iptables-nft -A $chain -j KUBE-FIREWALL; done
        iptables-nft -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment local \
            -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP""",
    "fail2ban": """nft '
        table inet f2b-table {
            set addr-set-nginx { type ipv4_addr; elements = { 203.0.113.7 }; }
            set addr-set-sshd { type ipv4_addr; }
            chain f2b-chain {
                type filter hook input priority filter - 1;
                tcp dport { 80, 443 } ip saddr @addr-set-nginx reject
                tcp dport 22 ip saddr @addr-set-sshd reject
            }
        }'""",
    "crowdsec": """nft '
        table ip crowdsec {
            set blacklist { type ipv4_addr; flags timeout; }
            chain input { type filter hook input priority -10; ip saddr @blacklist drop; }
        }'""",
    "meters": """nft '
        table inet limits {
            set seen { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
            chain pre {
                type filter hook prerouting priority -150;
                ip daddr 10.96.7.1 add @seen { ip saddr limit rate over 50/second } drop
                ip daddr 10.96.7.1 ct state new limit rate over 50/second drop
            }
        }'""",
    "policy": """nft '
        table ip filter {
            chain input {
                type filter hook input priority 0; policy drop;
                ct state vmap { established : accept, related : accept, invalid : drop }
                iif lo accept
                iifname "cni0" ip saddr 10.244.2.1 drop
                ip saddr { 10.244.0.0/16, 192.0.2.0/24 } accept
                ip saddr 203.0.113.0/24 tcp dport 1024-65535 drop
            }
        }'""",
}
