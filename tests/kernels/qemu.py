"""Runs stock kernels under QEMU: with KVM if a start proved that it works, otherwise with TCG.

Rule 1: a device file proves nothing: on some machines, /dev/kvm exists but runs no stock kernel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from tests.cluster.build import BuildError

from .kernels import Unpacked
from .machine import Disks, Machine, MachineError, Way, ends_with_parent, last_lines, prove

_DISKS = Disks("/dev/vda", "/dev/vdb", ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4"))
_BOARDS = {"x86_64": ("pc", "ttyS0"), "aarch64": ("virt", "ttyAMA0")}
"""QEMU's machine type with PCI, and the console's device."""
_EMULATED = {"x86_64": "max,la57=off", "aarch64": "cortex-a72"}
_ARGUMENTS = (
    "quiet",
    "panic=-1",
    # Mitigations against other users of the processor take time, and a machine has no other users.
    "mitigations=off",
    "nokaslr",
    "audit=0",
    # The emulated clock source is accurate, but the kernel wouldn't trust it.
    "tsc=reliable",
    "no_timer_check",
    "random.trust_cpu=on",
)


def ways() -> dict[str, Way]:
    """Return the ways to run a kernel under QEMU, by name."""
    return {name: Way(name, _DISKS, partial(_run, name)) for name in ("kvm", "tcg")}


def best_way(kernel: Unpacked, folder: Path) -> Way:
    """Return KVM if it starts a kernel here, otherwise TCG.

    Args:
        kernel: The kernel to try.
        folder: The folder that keeps the result until this machine reboots.
    """
    booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    kept = folder / f"kvm-{booted}"
    if not kept.exists():
        answer = "kvm" if _kvm_works(kernel) else "tcg"
        for old in folder.glob("kvm-*"):
            old.unlink()
        kept.write_text(answer)
    return ways()[kept.read_text()]


def _kvm_works(kernel: Unpacked) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    try:
        prove(kernel, ways()["kvm"])
    except MachineError:
        return False
    return True


def _run(accelerator: str, machine: Machine, seconds: float) -> None:
    name = f"qemu-system-{machine.kernel.machine}"
    program = shutil.which(name)
    if program is None:
        raise BuildError(f"cannot start a kernel: {name} is missing (make packages-kernels)")
    process = subprocess.Popen(
        [program, *_command(accelerator, machine)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=ends_with_parent,  # noqa: PLW1509 - it calls prctl and nothing else
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"not ended after {seconds:.0f} s; {last_lines(machine.console)}"
        ) from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise MachineError(f"QEMU: exit {process.returncode}, {said.strip()}")


def _command(accelerator: str, machine: Machine) -> list[str]:
    board, console = _BOARDS[machine.kernel.machine]
    is_kvm = accelerator == "kvm"
    return [
        "-nodefaults", "-no-user-config", "-no-reboot", "-nographic",
        "-machine", board, "-accel", "kvm" if is_kvm else "tcg,thread=multi,tb-size=512",
        "-cpu", "host" if is_kvm else _EMULATED[machine.kernel.machine],
        "-m", "2048",
        "-kernel", str(machine.kernel.image), "-initrd", str(machine.initramfs),
        "-append", " ".join([f"console={console}", *_ARGUMENTS, *machine.arguments]),
        "-serial", f"file:{machine.console}",
        "-device", "virtio-rng-pci",
        # No machine writes to the root's disk, which another machine may have locked.
        "-drive",
        f"file={machine.root},format=raw,if=virtio,snapshot=on,cache=unsafe,file.locking=off",
        "-drive", f"file={machine.result},format=raw,if=virtio,cache=unsafe",
    ]  # fmt: skip
