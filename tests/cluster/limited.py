"""Executes a container's program with only the rights that its security context grants.

    limited.py --root=FOLDER --user=0 --add=net_admin,net_raw [--no-new-privs] -- PROGRAM ARGUMENT…

This program replaces setpriv, which would have to be in the root filesystem: outside, it would drop
rights that chroot needs. It imports only the standard library, so that another user can start it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Sequence

# Source: include/uapi/linux/capability.h and prctl.h.
_CAPABILITIES = {"kill": 5, "setgid": 6, "setuid": 7, "net_admin": 12, "net_raw": 13}
_LAST_CAPABILITY = 63
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38


def main(arguments: Sequence[str]) -> None:
    """Limit this process and execute the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--user", type=int, required=True)
    parser.add_argument("--add", default="")
    parser.add_argument("--no-new-privs", action="store_true")
    parser.add_argument("words", nargs="+")
    given = parser.parse_args(arguments)
    granted = {_CAPABILITIES[name] for name in given.add.split(",") if name}
    libc = ctypes.CDLL(None, use_errno=True)
    os.chroot(given.root)
    os.chdir("/")
    # The bounding set limits the program's capabilities; the kernel may lack the newest ones.
    for capability in set(range(_LAST_CAPABILITY + 1)) - granted:
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresuid(given.user, given.user, given.user)
    if given.no_new_privs and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot set no_new_privs")
    os.execvp(given.words[0], given.words)


if __name__ == "__main__":
    main(sys.argv[1:])
