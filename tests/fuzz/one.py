"""Fuzzes a target with atheris: ``python -m tests.fuzz.one TARGET [option of libFuzzer]…``."""

from __future__ import annotations

import sys

from tests import loopback


def main() -> None:
    """Fuzz until a limit is reached or the target raises; exit the process."""
    loopback.enter()
    # Import these inside the namespace, because only a process with one thread can enter it.
    import atheris

    with atheris.instrument_imports(
        include=["userspace_proxy", "userspace_proxy_kubectl", "userspace_proxy_testing"]
    ):
        from .targets import TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
