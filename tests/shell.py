"""Shell scripts of tests, in which what edits legacy tables waits for the lock.

The proxy under test takes that lock, too, and without ``-w`` the programs fail where it is held.
"""

from __future__ import annotations

_LOCK_DEADLINE_S = 60
# A function may have such a name in bash only.
_WAITING = "\n".join(
    f'{program}() {{ command {program} -w {_LOCK_DEADLINE_S} "$@"; }}'
    for program in ("iptables", "iptables-legacy", "ip6tables", "ip6tables-legacy")
)


def script(text: str) -> list[str]:
    """Return the command that runs a script, which ends at the first command that fails."""
    return ["bash", "-ec", f"{_WAITING}\n{text}"]
