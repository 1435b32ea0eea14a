"""Lists the tested kernels, and fetches them from Debian.

    apt-get download, with its own lists ──▶ .deb ──▶ vmlinux, networking modules

Rule 1: this machine's apt isn't changed: lists, state and cache are in folders of this module.
Rule 2: downloads are cached by version; lists are fetched again once a day.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import BuildError, Write, cache_root, locked, step

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's architecture names, by the kernel's names."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LISTS_S = 86_400.0

MODULES = (
    "kernel/net/",
    "kernel/lib/",
    "kernel/crypto/",
    "kernel/arch/x86/crypto/",
    "kernel/arch/arm64/crypto/",
    "kernel/fs/ext4/",
    "kernel/fs/jbd2/",
    "kernel/fs/overlayfs/",
    "kernel/fs/mbcache",
    "kernel/fs/fuse/",
    "kernel/drivers/virtio/",
    "kernel/drivers/block/virtio_blk",
    "kernel/drivers/block/loop",
    "kernel/drivers/net/veth",
    "kernel/drivers/net/dummy",
    "kernel/drivers/net/tun",
    "kernel/drivers/net/tap",
    "kernel/drivers/net/macvlan",
    "kernel/drivers/net/macvtap",
    "kernel/drivers/net/ifb",
    "kernel/drivers/net/vrf",
    "kernel/drivers/net/geneve",
    "kernel/drivers/net/vxlan",
    "kernel/drivers/net/nlmon",
    "kernel/drivers/net/ipvlan/",
    "kernel/drivers/net/bonding/",
    "kernel/drivers/net/wireguard/",
)
"""Prefixes of the modules' paths: all networking modules, but no hardware drivers."""
_NO_MODULES = tuple(
    f"kernel/net/{name}/"
    for name in (
        "bluetooth",
        "mac80211",
        "wireless",
        "sunrpc",
        "ceph",
        "nfc",
        "batman-adv",
        "rxrpc",
    )
)
_BUILT_IN = ("modules.builtin", "modules.builtin.modinfo", "modules.order")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A tested kernel: a row of the table.

    Args:
        label: The name for users; ``newest`` is another version each month.
        suites: Debian's suites; the highest version in any of them is used.
        root: The suite whose programs run on it.
    """

    label: str
    suites: tuple[str, ...]
    root: str


KERNELS = (
    Kernel("5.10", ("bullseye-security",), "bookworm"),
    Kernel("6.1", ("bookworm-security",), "bookworm"),
    Kernel("6.12", ("trixie-security",), "trixie"),
    Kernel("newest", ("trixie-backports", "sid"), "trixie"),
)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A kernel that can be started.

    Args:
        release: The output of ``uname --kernel-release``.
        image: The file to start: on x86 an uncompressed ``vmlinux``, on arm64 an ``Image``.
        modules: A folder with ``modules.dep`` and, below ``kernel/``, uncompressed modules.
        machine: The output of ``uname --machine``.
    """

    release: str
    image: Path
    modules: Path
    machine: str = platform.machine()


def _address_of(archive: str) -> str:
    """Return the address of this machine's apt source for an archive of Debian.

    Raises:
        BuildError: No source is configured.
    """
    command = ["apt-get", "update", "--print-uris"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(rf"'(\S+/{archive})/+dists/", listed)
    if found is None:
        raise BuildError(f"apt's sources on this machine have no {archive}; add Debian's")
    return found[1]


def chosen(labels: Sequence[str], table: Sequence[Kernel] = KERNELS) -> list[Kernel]:
    """Return the kernels with these labels, in the table's order; by default, all kernels.

    Raises:
        BuildError: A label doesn't exist.
    """
    known = {kernel.label for kernel in table}
    if unknown := [label for label in labels if label not in known]:
        raise BuildError(f"there is no kernel {unknown[0]}: {', '.join(sorted(known))}")
    return [kernel for kernel in table if not labels or kernel.label in labels]


def ensure_kernel(
    kernel: Kernel, machine: str = platform.machine(), write: Write = sys.stdout.write
) -> Unpacked:
    """Return a kernel, after fetching it if its version isn't cached.

    Args:
        kernel: The row of the table.
        machine: A key of ``ARCHITECTURES``.
        write: Called with the progress.

    Raises:
        BuildError: The kernel can't be fetched or unpacked.
    """
    folder = cache_root() / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{kernel.label}.lock", write):
        apt = _Apt(folder / "apt" / f"{kernel.label}-{machine}", kernel, machine)
        apt.update(write)
        packages = apt.packages()
        image, version = packages[0]
        kept = folder / f"{image}_{version}".replace(":", "_")
        if not kept.is_dir():
            with (
                step(f"fetching and unpacking {image} {version}", write),
                tempfile.TemporaryDirectory(prefix=".kernel-", dir=folder) as unfinished,
            ):
                apt.download(packages, Path(unfinished))
                _unpack(Path(unfinished))
                (Path(unfinished) / "kernel").rename(kept)
    return Unpacked((kept / "release").read_text(), kept / "vmlinux", kept / "modules", machine)


class _Apt:
    """apt with separate folders, and with only the suites of one kernel."""

    def __init__(self, folder: Path, kernel: Kernel, machine: str) -> None:
        if not shutil.which("apt-get"):
            raise BuildError("cannot fetch kernels: apt-get is missing (make packages-kernels)")
        self._folder = folder
        self._kernel = kernel
        self._architecture = ARCHITECTURES[machine]
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "list").write_text("".join(self._sources()))
        # Otherwise, trixie-backports would have a lower priority than other suites.
        (folder / "preferences").write_text("Package: *\nPin: release *\nPin-Priority: 500\n")
        (folder / "conf").write_text(f"""\
Dir::Etc::SourceList "{folder}/list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "{folder}/preferences";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Architecture "{self._architecture}";
APT::Sandbox::User "";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
""")

    def _sources(self) -> Iterator[str]:
        signed = f"signed-by={KEYRING} " if KEYRING.exists() else ""
        for suite in self._kernel.suites:
            archive = "debian-security" if suite.endswith("-security") else "debian"
            options = f"[{signed}arch={self._architecture}]"
            yield f"deb {options} {_address_of(archive)} {suite} main\n"

    def update(self, write: Write) -> None:
        """Fetch lists that are older than a day; if that fails, use the old lists, if any."""
        stamp = self._folder / "updated"
        with contextlib.suppress(FileNotFoundError):
            if time.time() - stamp.stat().st_mtime < _LISTS_S:
                return
        try:
            with step(f"fetching Debian's list of kernels ({self._kernel.label})", write):
                self._run("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
        except BuildError:
            if not stamp.exists():
                raise
        else:
            stamp.touch()

    def packages(self) -> list[tuple[str, str]]:
        """Return name and version of the newest image and, since 7.3, of its modules' package."""
        meta = f"linux-image-{self._architecture}"
        shown = self._show(meta)
        images = dependencies(shown, "image")
        if not images:
            raise BuildError(f"cannot read what {meta} depends on: {shown}")
        shown = self._show(images[0])
        version = re.search(r"^Version: (\S+)", shown, re.MULTILINE)
        assert version is not None, "every package has one"
        return [
            (name, version[1]) for name in (*images, *dependencies(shown, "base|binary|modules"))
        ]

    def download(self, packages: list[tuple[str, str]], folder: Path) -> None:
        self._run("apt-get", "download", "-qq", *("=".join(p) for p in packages), folder=folder)

    def _show(self, package: str) -> str:
        return self._run("apt-cache", "show", "--no-all-versions", package)

    def _run(self, *command: str, folder: Path | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"APT_CONFIG": f"{self._folder}/conf", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            raise BuildError(f"{' '.join(command)}: {'; '.join(lines) or done.stderr}")
        return done.stdout


def dependencies(shown: str, parts: str) -> list[str]:
    """Return the dependencies that are parts of a kernel, such as ``image`` or ``base|modules``."""
    depends = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
    return re.findall(rf"\blinux-(?:{parts})-\d[^\s,]*", depends[1] if depends else "")


def _unpack(folder: Path) -> None:
    """Create ``kernel`` from the packages in a folder."""
    whole, target = folder / "whole", folder / "kernel"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, whole], check=True)
        package.unlink()
    found = [*whole.glob("lib/modules/*"), *whole.glob("usr/lib/modules/*")]
    release = found[0].name
    (image,) = [*whole.glob("boot/vmlinuz-*"), *found[0].glob("vmlinuz")]
    target.mkdir()
    (target / "release").write_text(release)
    (target / "vmlinux").write_bytes(startable(image.read_bytes()))
    modules = folder / "lib/modules" / release
    for path in sorted(found[0].rglob("*")):
        name = path.relative_to(found[0]).as_posix()
        if name.startswith(MODULES) and not name.startswith(_NO_MODULES) and path.is_file():
            place = modules / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.suffix == ".xz":
                # Decompress the modules here, because it would take longer in the machine.
                place.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
            else:
                shutil.copyfile(path, place)
        elif name in _BUILT_IN:
            modules.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, modules / name)
    depmod = shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin") or "depmod"
    subprocess.run([depmod, "--basedir", folder, release], check=True)
    modules.rename(target / "modules")


def startable(image: bytes) -> bytes:
    """Return the file that QEMU can start without firmware; for arm64, the unchanged image.

    Source: Documentation/arch/arm64/booting.rst.
    """
    is_arm64 = image[0x38:0x3C] == b"ARM\x64" or image[4:8] == b"zimg"
    return image if is_arm64 else uncompressed(image)


def uncompressed(image: bytes) -> bytes:
    """Return the vmlinux in a bzImage with boot protocol 2.08 or later.

    Raises:
        BuildError: The file isn't a bzImage, or its compression is unknown.

    Source: Documentation/arch/x86/boot.rst.
    """
    if image[0x202:0x206] != b"HdrS":
        raise BuildError("cannot read the kernel: it isn't a bzImage")
    setup_sectors = image[0x1F1] or 4
    offset = int.from_bytes(image[0x248:0x24C], "little") + (setup_sectors + 1) * 512
    length = int.from_bytes(image[0x24C:0x250], "little")
    payload = image[offset : offset + length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The last four bytes are the size, which isn't part of any compression format.
        command = ["zstd", "--decompress", "--quiet", "--stdout"]
        return subprocess.run(command, input=payload[:-4], capture_output=True, check=True).stdout
    raise BuildError(f"cannot uncompress the kernel: unknown compression {payload[:4].hex()}")
