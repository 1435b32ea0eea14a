"""Much at once: an edit as the text that ``iptables-restore --noflush`` takes, and the run of it.

Its one commit is in force as a whole or not at all, as python-iptables' is, and rules of others
stay, with their counters.

Rule 1: the child writes while we hold the xtables lock. It inherits our descriptor of it, so that
the lock outlives us until the child has ended, and takes a lock of its own that nobody else knows:
the real one it would wait for, for ever.
Rule 2: whatever goes wrong here is no error: python-iptables makes the same edit, and explains.

Source: iptables/xshared.c, xtables_lock(): XTABLES_LOCKFILE since 1.8.7; an older one meets the
held lock and ends at once, for it isn't told to wait.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from ..names import ChainNames
from .rules import Jump, NatRule, Rule

# Those that write legacy tables whatever the node's default is; the plain name is nftables' on
# many, which would put our rules where python-iptables never sees them.
_MULTI = "xtables-legacy-multi"
_COMMANDS = {4: "iptables-legacy-restore", 6: "ip6tables-legacy-restore"}
_APPLETS = {4: "iptables-restore", 6: "ip6tables-restore"}
# Services started by systemd may lack these in PATH.
MORE_PATHS = ("/usr/sbin", "/sbin")
# 10,000 Services take 0.1 s.
_RUN_WITHIN_S = 30.0


class TextEdit:
    """The edits of one change, as text; the methods are those of ``writer.TableEdit``.

    Args:
        table: ``nat`` or ``filter``.
        names: What our chains are called in the kernel.
    """

    def __init__(self, table: str, names: ChainNames) -> None:
        self._names = names
        self._lines = [f"*{table}"]
        self._made: set[str] = set()

    def __str__(self) -> str:
        return "\n".join((*self._lines, "COMMIT", ""))

    def make_chain(self, chain: str) -> None:
        """Make a chain, or empty it if it is there: whoever makes one writes it anew."""
        if chain not in self._made:
            self._made.add(chain)
            self._lines.append(f":{self._named(chain)} - [0:0]")

    def flush(self, chain: str) -> None:
        """Remove all rules of a chain."""
        if chain not in self._made:
            self._lines.append(f"-F {self._named(chain)}")

    def remove_chain(self, chain: str) -> None:
        """Remove an empty chain to which nothing jumps."""
        self._lines.append(f"-X {self._named(chain)}")

    def drop_chain(self, chain: str) -> None:
        """Remove an empty chain; where a rule of others jumps to it, nothing is changed at all."""
        self.remove_chain(chain)

    def append(self, chain: str, line: NatRule | Jump | Rule) -> None:
        """Add a line to the end of a chain; where a jump leads must be there."""
        if isinstance(line, Jump):
            line = line._replace(chain=self._named(line.chain))
        elif isinstance(line, Rule):
            line = line._replace(target=self._named(line.target))
        self._lines.append(f"-A {self._named(chain)} {line}")

    def insert_first(self, chain: str, rule: Rule) -> None:
        """Put a rule before all others of a chain."""
        rule = rule._replace(target=self._named(rule.target))
        self._lines.append(f"-I {self._named(chain)} 1 {rule}")

    def remove_number(self, chain: str, index: int) -> None:
        """Remove the entry at an index, counted from 0."""
        self._lines.append(f"-D {self._named(chain)} {index + 1}")

    def _named(self, chain: str) -> str:
        return self._names.in_kernel(chain)


class Restore:
    """``iptables-restore`` of one IP family.

    Args:
        version: 4 or 6.
    """

    def __init__(self, version: int) -> None:
        self._command = find_command(version)

    @property
    def is_there(self) -> bool:
        """Whether there is one that writes legacy tables."""
        return bool(self._command)

    def run(self, text: str, lock: int) -> bool:
        """Run it; return whether what the text says is in force now.

        Args:
            text: Of one table.
            lock: The descriptor of the xtables lock, which we hold.
        """
        # A lock without a file: the root may be read-only.
        own_lock = os.memfd_create("lock")
        try:
            done = subprocess.run(
                [*self._command, "--noflush"],
                input=text.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"XTABLES_LOCKFILE": f"/proc/self/fd/{own_lock}"},
                pass_fds=[lock, own_lock],
                timeout=_RUN_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        finally:
            os.close(own_lock)
        return done.returncode == 0


def find_command(version: int) -> list[str]:
    """Return how to run the one that writes legacy tables; empty where there is none."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *MORE_PATHS))
    if found := shutil.which(_COMMANDS[version], path=path):
        return [found]
    if found := shutil.which(_MULTI, path=path):
        return [found, _APPLETS[version]]
    return []
