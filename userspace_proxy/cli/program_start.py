"""Determines how this program was started: by its name, as a kubectl plugin, or in a pod."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PLUGIN = "kubectl-"
_MODULE_FILE = "__main__.py"


def is_plugin(argv: Sequence[str]) -> bool:
    """Return whether this is kubectl's plugin, by its name; users expect it to read the cluster."""
    return Path(argv[0]).name.startswith(_PLUGIN)


@dataclass(frozen=True, slots=True)
class ProgramStart:
    """How a process was started, so that the commands it prints can be pasted.

    The defaults describe this process. ``kubectl exec POD -- userspace-proxy`` becomes ``kubectl
    exec -n NAMESPACE POD -- userspace-proxy``; other commands begin with the typed words.
    """

    argv: Sequence[str] = field(default_factory=lambda: sys.argv)
    orig_argv: Sequence[str] = field(default_factory=lambda: sys.orig_argv)
    """The command line with the interpreter and its flags."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    parent: int = field(default_factory=os.getppid)
    """The parent's pid; 0 if the parent is in another PID namespace."""

    @property
    def program(self) -> tuple[str, ...]:
        """The words that start the program again from the user's shell."""
        return (*self._container(), *self._words())

    def _words(self) -> tuple[str, ...]:
        file = Path(self.argv[0])
        if is_plugin(self.argv):
            # Restore the typed name's dashes, which are underscores in a plugin's file name.
            return ("kubectl", file.name.removeprefix(_PLUGIN).replace("_", "-"))
        if file.name == _MODULE_FILE:
            return tuple(self.orig_argv[: len(self.orig_argv) - len(self.argv[1:])])
        found = shutil.which(file.name, path=self.environment.get("PATH"))
        is_found = found is not None and file.exists() and file.samefile(found)
        return (file.name if is_found else str(file),)

    def _container(self) -> tuple[str, ...]:
        """Return the command that runs a program in this container; empty if unknown.

        A program that ``kubectl exec`` runs directly has a parent outside the container; a program
        run in a shell in the container has the shell as its parent.
        """
        pod = self.environment.get("POD_NAME")
        if self.parent or not pod:
            return ()
        namespace = self.environment.get("POD_NAMESPACE", "")
        flags = ("-n", namespace) if namespace else ()
        return ("kubectl", "exec", *flags, pod, "--")
