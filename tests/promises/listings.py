"""What kernel tools list, in an order that can be compared."""

import re


def with_sorted_elements(listing: str) -> str:
    """Return what nft lists with the elements of each set in the order of their text."""

    def sort(found: re.Match[str]) -> str:
        elements = sorted(element.strip() for element in found[1].split(","))
        return "\n".join(["elements = {", *(f"{' ' * 12}{e}" for e in elements), f"{' ' * 8}}}"])

    return re.sub(r"elements = \{([^}]*)\}", sort, listing.expandtabs(4))
