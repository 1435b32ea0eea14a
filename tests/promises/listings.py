"""What kernel tools list, in an order that can be compared."""

import re

_NEWER = {
    r"tcp flags & \(syn \| ack\) == syn": "tcp flags syn / syn,ack",
    r"(?<!nfproto ipv4 )redirect to :ip daddr": "meta nfproto ipv4 redirect to :ip daddr",
    r"(?<!nfproto ipv6 )redirect to :ip6 daddr": "meta nfproto ipv6 redirect to :ip6 daddr",
    r"(?<!nfproto ipv4 )dnat ip to": "meta l4proto tcp meta nfproto ipv4 dnat ip to",
    r"hook output priority dstnat - 10": "hook output priority -110",
}


def with_sorted_elements(listing: str) -> str:
    """Return what nft lists with the elements of each set in the order of their text."""

    def sort(found: re.Match[str]) -> str:
        elements = sorted(element.strip() for element in found[1].split(","))
        return "\n".join(["elements = {", *(f"{' ' * 12}{e}" for e in elements), f"{' ' * 8}}}"])

    return re.sub(r"elements = \{([^}]*)\}", sort, listing.expandtabs(4))


def as_older_nft_prints(listing: str) -> str:
    """Return what nft 1.1 lists in the words of 1.0, which also prints what follows from others."""
    for pattern, older in _NEWER.items():
        listing = re.sub(pattern, older, listing)
    return listing
