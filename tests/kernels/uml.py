"""Runs kernels as User Mode Linux: without a virtual machine, they start in 2 to 3 seconds.

    user_mode/Dockerfile ──▶ layers: linux, its libraries, modules ──chroot──▶ linux ubd0=copy,root

Rule 1: a built kernel may not work on this processor; only a start proves that it does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.build import Write, cache_root
from tests.cluster.image import Image, build_image, environment

from .kernels import Kernel, Unpacked
from .machine import Disks, Machine, MachineError, Way, ends_with_parent, last_lines, prove

_HERE = Path(__file__).parent
_DISKS = Disks("/dev/ubda", "/dev/ubdb", ())
_ARGUMENTS = ("quiet", "panic=-1", "random.trust_cpu=on", "con=null", "con0=null,fd:1")

_LIBRARIES = {"bullseye": "bookworm", "forky": "trixie"}
"""The suite whose libraries are used, by the kernel's suite; by default, these are the same."""
WHOLE = Kernel("uml-6.1", ("bookworm",), "bookworm")
KERNELS = (WHOLE, Kernel("uml-6.12", ("trixie",), "trixie"))
"""Kernels with all networking features of a stock kernel; some features are built here."""
LABELS = frozenset(kernel.label for kernel in KERNELS)
NO_INET = Kernel("uml-5.10", ("bullseye",), "bookworm")
NO_INET_NO_LEGACY = Kernel("uml-7.2", ("forky",), "bookworm")
"""Used as Debian built them, because Debian no longer has the source of these versions."""


def ensure_uml(kernel: Kernel, write: Write = sys.stdout.write) -> tuple[Unpacked, Way]:
    """Return a kernel, after building it if it isn't cached, and the way to run it.

    Raises:
        BuildError: The kernel can't be fetched or built.
        MachineError: The kernel doesn't start on this machine.
    """
    suite = kernel.suites[0]
    arguments = {"SUITE": _LIBRARIES.get(suite, suite), "PACKAGES": suite}
    image = build_image(_HERE / "user_mode", arguments, write)
    made = image.layers[-1] / "kernel"
    unpacked = Unpacked((made / "release").read_text().strip(), made / "linux", made / "modules")
    way = Way("uml", _DISKS, lambda machine, seconds: _run(image, machine, seconds))
    booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Only a successful start is cached.
    proof = cache_root() / "kernels" / f"uml-{booted}-{made.parent.name}"
    if not proof.exists():
        prove(unpacked, way)
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.touch()
    return unpacked, way


def _run(image: Image, machine: Machine, seconds: float) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="userspace-proxy-uml-") as name,
        machine.console.open("wb") as console,
    ):
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--",
             "/bin/sh", "-c", _script(image, machine, Path(name)), "sh", *_command(machine)],
            env=environment() | {"HOME": "/tmp"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            preexec_fn=ends_with_parent,  # noqa: PLW1509 - it calls prctl and nothing else
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            late = f"not ended after {seconds:.0f} s; {last_lines(machine.console)}"
            raise MachineError(late) from None
        finally:
            process.kill()
            process.wait()
    if code:
        raise MachineError(f"linux: exit {code}, {last_lines(machine.console)}")


def _script(image: Image, machine: Machine, folder: Path) -> str:
    """Return a script that mounts the kernel's root with libraries, and runs a command in it."""
    merged, copy = folder / "merged", folder / "copy"
    for part in (merged, copy):
        part.mkdir()
    lower = ":".join(str(layer) for layer in reversed(image.layers))
    return f"""
        set -eu
        mount -t overlay overlay -o "lowerdir={lower}" "{merged}"
        cd "{merged}"
        mount -t proc proc proc
        mount --rbind /dev dev
        mount -t tmpfs tmpfs dev/shm
        mount -t tmpfs tmpfs tmp
        mkdir tmp/copy
        touch tmp/root tmp/initramfs tmp/result
        mount --bind "{copy}" tmp/copy
        mount --bind "{machine.root}" tmp/root
        mount --bind "{machine.initramfs}" tmp/initramfs
        mount --bind "{machine.result}" tmp/result
        exec chroot . /usr/bin/env LD_PRELOAD=/kernel/registers.so /kernel/linux "$@"
    """


def _command(machine: Machine) -> list[str]:
    return [
        "mem=2048M",
        "initrd=/tmp/initramfs",
        # Writes go to a copy in a sparse file.
        "ubd0=/tmp/copy/disk,/tmp/root",
        "ubd1=/tmp/result",
        *_ARGUMENTS,
        *machine.arguments,
    ]
