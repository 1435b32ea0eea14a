"""Runs a command on a kernel, in a virtual machine without a network, and returns its results.

    kernel, initramfs (busybox, modules, command) ──▶ root ──▶ command ──▶ /result ──▶ disk

Each way to run a kernel has the same inputs: an initramfs, the root's disk, which it must not
change, and a disk for the results. Only the results are kept.

Rule 1: a module that was left out doesn't exist in the machine.
Rule 2: a machine ends when its command exits, at its deadline, or when this process exits.
"""

from __future__ import annotations

import ctypes
import shlex
import signal
import tarfile
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import BuildError

from .initramfs import archive, below
from .kernels import Unpacked
from .root import Root

RESULT_BYTES = 64 << 20
_GRACE_S = 20
_PROOF_S = 30.0
"""The seconds within which a kernel must start if its way is usable; a start takes a few."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /mnt /bin /sbin
/bin/busybox --install -s /bin
# Where the kernel looks for it.
ln -s /bin/modprobe /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /machine/first); do modprobe $module 2>/dev/null; done
. /machine/disks
mount -t ext4 $root /mnt || { echo "MACHINE: no root"; poweroff -f; }
mount -t tmpfs modules /mnt/lib/modules
cp -a /lib/modules/. /mnt/lib/modules/
mount -t tmpfs run /mnt/run
cp -a /machine /mnt/run/machine
mount --move /dev /mnt/dev
mount --move /proc /mnt/proc
mount --move /sys /mnt/sys
exec switch_root /mnt /bin/sh /run/machine/start
"""
_START = """\
export PATH=/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 PYTHONUNBUFFERED=1
. /run/machine/disks
mkdir -p /dev/pts /dev/shm /result
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs result /result
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname machine
# Else modprobe believes that what is left out can be loaded.
[ -z "$left_out" ] || depmod
echo "MACHINE: started after $(cut -d' ' -f1 /proc/uptime) s"
cd /src
timeout --kill-after=10 $seconds sh /run/machine/command </dev/null
echo $? >/result/exit
echo "MACHINE: ended after $(cut -d' ' -f1 /proc/uptime) s"
tar --create --directory=/result . >$result
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class MachineError(Exception):
    """A machine didn't start or returned no results; the message ends with its last output."""


@dataclass(frozen=True, slots=True)
class Disks:
    """The names of the disks for a kernel.

    Args:
        root: The device of the root.
        result: The device for the results.
        modules: Modules without which the devices don't exist.
    """

    root: str
    result: str
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """The inputs of a way to run a kernel.

    Args:
        kernel: The kernel to start.
        initramfs: Its initramfs.
        root: The root's disk, which is read-only.
        result: The disk for the results.
        arguments: Additions to the kernel's command line.
        console: The file for the console's output.
    """

    kernel: Unpacked
    initramfs: Path
    root: Path
    result: Path
    arguments: Sequence[str]
    console: Path


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run a kernel.

    Args:
        name: Its name in the results: ``tcg``, ``kvm``, ``uml``.
        disks: The kernel's names for the disks.
        run: Runs a machine until it shuts down, or the seconds have passed.
    """

    name: str
    disks: Disks
    run: Callable[[Machine, float], None]


def run_machine(
    kernel: Unpacked,
    root: Root,
    command: str,
    *,
    way: Way,
    target: Path,
    left_out: Collection[str] = (),
    arguments: Sequence[str] = (),
    timeout: float,
) -> Path:
    """Run a shell command in ``/src`` on a kernel, and return the folder with its results.

    The folder contains the command's files from ``/result``, its exit status in ``exit`` (124 if
    the deadline passed), and the console's output in ``console``.

    Args:
        kernel: The kernel.
        root: The root file system.
        command: A command for sh, run as root.
        way: How the kernel runs here.
        target: The folder, which is created.
        left_out: Modules that the machine lacks, such as ``nft_nat``.
        arguments: Kernel arguments, such as ``ipv6.disable=1``.
        timeout: Seconds from the start of the machine.

    Raises:
        MachineError: The machine didn't start, or returned no results.
    """
    target.mkdir(parents=True, exist_ok=True)
    console = target / "console"
    with tempfile.TemporaryDirectory(prefix="userspace-proxy-machine-") as name:
        folder = Path(name)
        initramfs, result = folder / "initramfs", folder / "result"
        seconds = int(timeout - _GRACE_S)
        initramfs.write_bytes(_initramfs(kernel, way.disks, command, seconds, left_out))
        with result.open("wb") as disk:
            disk.truncate(RESULT_BYTES)
        machine = Machine(kernel, initramfs, root.disk, result, arguments, console)
        way.run(machine, timeout)
        try:
            with tarfile.open(result) as tar:
                tar.extractall(target, filter="data")
        except tarfile.TarError as error:
            raise MachineError(f"no results, {error}; {last_lines(console)}") from error
    return target


def prove(kernel: Unpacked, way: Way) -> None:
    """Start a kernel that prints a line and shuts down.

    Raises:
        MachineError: The kernel didn't do so within half a minute.
    """
    with tempfile.TemporaryDirectory(prefix="userspace-proxy-proof-") as name:
        folder = Path(name)
        init = b"#!/bin/busybox sh\n/bin/busybox echo MACHINE: here\n/bin/busybox poweroff -f\n"
        files = {"init": init, "bin/busybox": busybox().read_bytes()}
        (folder / "initramfs").write_bytes(archive(files, executable=files))
        for disk in ("root", "result"):
            (folder / disk).write_bytes(bytes(4096))
        machine = Machine(
            kernel,
            folder / "initramfs",
            root=folder / "root",
            result=folder / "result",
            arguments=(),
            console=folder / "console",
        )
        way.run(machine, _PROOF_S)
        if "MACHINE: here" not in machine.console.read_text(errors="replace"):
            raise MachineError(f"it doesn't start by {way.name}; {last_lines(machine.console)}")


def last_lines(console: Path, count: int = 15) -> str:
    """Return the end of the console's output."""
    text = console.read_text(errors="replace") if console.exists() else ""
    return "\n".join(text.splitlines()[-count:]) or "it printed nothing"


def ends_with_parent() -> None:
    """Make the kernel kill this child process when its parent exits."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _initramfs(
    kernel: Unpacked, disks: Disks, command: str, seconds: int, left_out: Collection[str]
) -> bytes:
    modules = dict(below(kernel.modules, f"lib/modules/{kernel.release}"))
    for name in left_out:
        found = [path for path in modules if _module(path) == name.replace("-", "_")]
        if not found:
            raise BuildError(f"cannot leave out {name}: it is no module of {kernel.release}")
        del modules[found[0]]
    settings = {
        "root": disks.root,
        "result": disks.result,
        "seconds": str(seconds),
        "left_out": " ".join(left_out),
    }
    files = {
        "init": _INIT.encode(),
        "bin/busybox": busybox().read_bytes(),
        "machine/first": " ".join(disks.modules).encode(),
        "machine/disks": "".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()).encode(),
        "machine/start": _START.encode(),
        "machine/command": command.encode(),
    }
    return archive(files | modules, executable=("init", "bin/busybox"))


def _module(path: str) -> str:
    """Return a module's name, as the kernel spells it, from its file."""
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def busybox() -> Path:
    """Return a statically linked busybox.

    Raises:
        BuildError: There is none.
    """
    for path in map(Path, ("/bin/busybox", "/usr/bin/busybox", "/usr/bin/busybox.static")):
        # A dynamically linked program names its interpreter near the start of the file.
        if path.exists() and b"/ld-" not in path.read_bytes()[:4096]:
            return path
    raise BuildError("cannot start a kernel: busybox-static is missing (make packages-kernels)")
