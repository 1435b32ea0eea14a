"""Replaces names and addresses by stable pseudonyms, even within sentences and log lines.

    shop/web: 10.244.3.9:8080 refuses ──▶ namespace-k3f9t2/service-m1x8d0: 10.87.201.66:8080 refuses

Rule 1: within an archive, a name always has the same pseudonym. The key is random and discarded, so
names can't be found by trying candidates.
Rule 2: structure is preserved: ports, families, the kind of an address (loopback, private, public,
…) and networks: addresses with a common prefix have pseudonyms with a prefix of the same length.
Rule 3: a word is hidden if it is a learned name, begins with one (``web-7d9f8-x2x4z``), or has the
form of a pod's, host's or Service's name (``shop/web``). Names common to all clusters, such as
``kube-system``, stay.

Source for address pseudonyms: Xu, Fan, Ammar, Moon: Prefix-preserving IP address anonymization
(Crypto-PAn), 2002.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
from collections.abc import Iterable

from userspace_proxy.model.addresses import without_leading_zeros

KEPT = frozenset(
    {
        "default", "kube-system", "kube-public", "kube-node-lease", "kubernetes", "kube-dns",
        "kube-proxy", "userspace-proxy", "userspace_proxy", "localhost", "cluster.local",
    }
)  # fmt: skip
"""Names common to all clusters, or to this program."""

_NAME_BYTES = 5
# Source: RFC 1035, names of DNS, and Kubernetes' object names.
_NAME_MAX = 253
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
# The minimum length of a learned name that also hides longer words beginning with it: a single
# letter would hide most words.
_START_MIN = 2

_PART = re.compile(
    r"(?P<user>(?<=User \")[^\"]*|(?<=user \")[^\"]*|[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)*"
    r"|(?<=/home/)[\w.-]+|(?<=/Users/)[\w.-]+|(?<=\\Users\\)[\w.-]+)"
    # kube-apiserver: deployments.apps "web" not found
    r"|(?P<object>(?<=s \")[^\"]{1,253}(?=\" (?:not found|is forbidden|is invalid|already exists)))"
    r"|(?P<mac>(?<![\w:])[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}(?![\w:]))"
    r"|(?P<v6>(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f.]{0,15}){2,8}(?:/\d{1,3}(?!\d))?(?![\w:]))"
    r"|(?P<v4>(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2}(?!\d))?(?![\w-]|\.\d))"
    r"|(?P<pair>(?<![\w./-])[a-z0-9][a-z0-9-]{0,62}/[a-z0-9][a-z0-9.-]{0,252}(?![\w/]))"
    r"|(?P<word>\w(?:[\w.-]*\w)?)",
    re.ASCII,
)
_NO_NAMESPACES = frozenset(
    {
        "and", "daemonsets", "darwin", "deployments", "endpointslices", "http", "ip4", "ip6",
        "ipv4", "linux", "nodes", "pods", "read", "services", "statefulsets", "tcp", "udp",
        "windows",
    }
)  # fmt: skip
"""Words before a slash that aren't namespaces."""
_KINDS = {
    "daemonset": "workload", "deployment": "workload", "node": "node", "pod": "pod",
    "service": "service", "statefulset": "workload", "svc": "service",
}  # fmt: skip
"""Words that precede a slash and a name, with the prefixes of the pseudonyms of such names."""
_DASHED = re.compile(r"(?<!\d)\d{1,3}(?:-\d{1,3}){3}(?!\d)", re.ASCII)
# Source: k8s.io/apimachinery, pkg/util/rand: the alphabet of generated names.
_OF_POD = re.compile(r"(?=[a-z0-9-]*\d)[a-z][a-z0-9-]*-[bcdfghjklmnpqrstvwxz2456789]{5}")
_HOST = re.compile(r"(?:[A-Za-z0-9_-]+\.)+[A-Za-z][A-Za-z-]+")
_NO_HOSTS = ("kubernetes.io", "k8s.io", "userspace-proxy.io")
_OF_DNS = frozenset({"svc", "pod", "cluster", "local"})
_FILES = frozenset(
    {"conf", "gz", "html", "json", "ko", "lock", "log", "md", "pid", "py", "so", "sock", "txt"}
    | {"yaml", "yml"}
)
_NO_HOST_STARTS = ("net.", "kernel.", "userspace_proxy.")

# The leading bits of these addresses show their kind, so they are kept.
_KINDS_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3",
    )
)  # fmt: skip
_KINDS_6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/96", "::ffff:0:0/96", "64:ff9b::/96", "2000::/3", "fc00::/8",
        "fd00::/8", "fe80::/10", "ff00::/16",
    )
)  # fmt: skip
_SAME = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/32", "127.0.0.0/8", "::/127", "255.255.255.255/32")
)
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254"})
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Pseudonyms:
    """One archive's pseudonyms.

    Args:
        key: A random key, with which names can be found by trying candidates.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._kinds: dict[str, str] = {}
        """The kind of each registered name, by the name in lower case."""
        self._names: dict[str, str] = {}
        """The pseudonyms so far, by the name in lower case."""
        self._taken: set[str] = set()
        # Cached because an address in 10.0.0.0/8 takes 24 hashes.
        self.address = functools.lru_cache(maxsize=1 << 16)(self._of_address)
        """Return the pseudonym of an address or network; other strings are returned as they are."""

    def learn(self, kind: str, names: Iterable[str]) -> None:
        """Register names to hide; if a name has several kinds, the first kind is used.

        Args:
            kind: The start of the pseudonyms: ``namespace``, ``service``, ``pod``, ….
        """
        for name in names:
            key = name.lower()
            if key and key not in KEPT and key not in self._kinds:
                self._kinds[key] = kind

    def name(self, text: str, kind: str) -> str:
        """Return a name's pseudonym, whatever its form; an empty or KEPT name is returned as is."""
        if not text or text.lower() in KEPT:
            return text
        self.learn(kind, [text])
        return self._name(text.lower())

    def digest(self, text: str) -> str:
        """Return a replacement for a hash of names or addresses, with the same length in hex."""
        return self._hash("digest", text.encode()).hex()[: len(text)]

    def _of_address(self, text: str) -> str:
        ip, slash, bits = text.partition("/")
        try:
            address = ipaddress.ip_address(without_leading_zeros(ip))
            length = int(bits) if slash else address.max_prefixlen
        except ValueError:
            return text
        if length > address.max_prefixlen:
            return text
        hidden = self._address(address)
        if not slash:
            return str(hidden)
        network = ipaddress.ip_network((hidden, length), strict=False)
        # A host in a network is also written as 10.0.0.7/8.
        is_network = (
            ipaddress.ip_network((address, length), strict=False).network_address == address
        )
        return f"{network.network_address if is_network else hidden}/{length}"

    def hide(self, text: str) -> str:
        """Return a string with each name and address replaced.

        Call this only once for a string, because pseudonyms of addresses would be replaced again.
        """
        return _PART.sub(self._part, text)

    def _part(self, match: re.Match[str]) -> str:
        text = match[0]
        match match.lastgroup:
            case "user":
                is_ours = text.startswith(("system:", "kube")) and "@" not in text
                return self.hide(text) if is_ours else self.name(text, "user")
            case "mac":
                made = self._hash("mac", text.lower().encode()).hex()[:10]
                return ":".join(["02", *(made[at : at + 2] for at in range(0, 10, 2))])
            case "v4" | "v6":
                return self.address(text)
            case "object":
                return self.name(text, "name")
            case "pair":
                return self._pair(text)
        return self._word(text)

    def _pair(self, text: str) -> str:
        """Return the replacement of a Service or pod with its namespace, or of two other words."""
        namespace, _, name = text.partition("/")
        bare = name.rstrip(".-")
        is_named = not namespace.isdigit() and not bare.isdigit() and len(bare) > 1
        if is_named and (kind := _KINDS.get(namespace)):
            return f"{namespace}/{self.name(bare, kind)}{name[len(bare) :]}"
        if is_named and namespace not in _NO_NAMESPACES and "." not in bare:
            return f"{self.name(namespace, 'namespace')}/{self._named(bare)}{name[len(bare) :]}"
        return f"{self._word(namespace)}/{self._word(bare)}{name[len(bare) :]}"

    def _named(self, name: str) -> str:
        return self.name(name, "pod" if _OF_POD.fullmatch(name) else "service")

    def _word(self, word: str) -> str:
        key = word.lower()
        if key in KEPT:
            return word
        if key in self._kinds:
            return self._name(key)
        if len(key) > _NAME_MAX:
            return self.name(word, "text")
        if "." in word:
            return self._dotted(word)
        if self._is_of_known(key):
            self._kinds[key] = "name"
            return self._name(key)
        if _OF_POD.fullmatch(word):
            self._kinds[key] = "pod"
            return self._name(key)
        return _DASHED.sub(
            lambda one: self.address(one[0].replace("-", ".")).replace(".", "-"), word
        )

    def _dotted(self, word: str) -> str:
        """Replace a dotted name: a cluster's DNS name part by part, another host as a whole."""
        key = word.lower()
        parts = key.split(".")
        is_other = parts[-1] in _FILES or key.startswith(_NO_HOST_STARTS)
        if is_other or any(key == end or key.endswith(f".{end}") for end in _NO_HOSTS):
            return ".".join(self._word(part) for part in word.split("."))
        if "svc" in parts or "pod" in parts[1:] or any(part in self._kinds for part in parts):
            return ".".join(
                part if part.lower() in _OF_DNS else self._label(part) for part in word.split(".")
            )
        if _HOST.fullmatch(word):
            self._kinds[key] = "host"
            return self._name(key)
        return ".".join(self._word(part) for part in word.split("."))

    def _label(self, part: str) -> str:
        """Replace a label of a DNS name, in which unknown words also count as names."""
        if part.isdigit() or not part:
            return part
        if _DASHED.fullmatch(part):
            return self._word(part)
        return self.name(part, "host")

    def _is_of_known(self, word: str) -> bool:
        at = word.rfind("-")
        while at >= _START_MIN:
            start = word[:at]
            if start in self._kinds and start not in KEPT:
                return True
            at = word.rfind("-", 0, at)
        return word.startswith("userspace-proxy-")

    def _name(self, key: str) -> str:
        made = self._names.get(key)
        if made is None:
            bits = int.from_bytes(self._hash("name", key.encode()), "big")
            length = _NAME_BYTES
            while not made or made in self._taken:
                letters = (_LETTERS[bits >> (5 * place) & 31] for place in range(length))
                made = f"{self._kinds[key]}-{''.join(letters)}"
                length += 1
            self._names[key] = made
            self._taken.add(made)
        return made

    def _hash(self, what: str, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=32, key=self._key, person=what.encode()).digest()

    def _address(self, address: _Address) -> _Address:
        is_same = any(address in network for network in _SAME if network.version == address.version)
        if is_same or str(address) in _METADATA:
            return address
        kinds = _KINDS_4 if address.version == 4 else _KINDS_6
        kind = next((one for one in kinds if address in one), None)
        if address.version == 6 and kind is not None and kind.prefixlen == 96:
            inner = self._address(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
            return ipaddress.IPv6Address(int(address) >> 32 << 32 | int(inner))
        hidden = self._scrambled(address, kind.prefixlen if kind else 0)
        while kind is None and any(hidden in one for one in kinds):
            # A public address must map to a public address: the cycle eventually returns to one.
            hidden = self._scrambled(hidden, 0)
        return hidden

    def _scrambled(self, address: _Address, kept: int) -> _Address:
        """Return an address with the same first bits; other bits depend on the bits before them."""
        size = address.max_prefixlen
        number = result = int(address)
        for place in range(kept, size):
            result ^= self._bit(size, place, number >> (size - place)) << (size - place - 1)
        return type(address)(result)

    def _bit(self, size: int, place: int, prefix: int) -> int:
        data = b"%d %d %x" % (size, place, prefix)
        return self._hash("bit", data)[0] & 1
