"""Runs one container of a pod according to its manifest, without a container runtime.

    pod spec + image ──▶ overlay root, read-only ──▶ volumes ──▶ `limited.py` ──▶ the program
                         as a runtime mounts it                             chroot, few capabilities

Rule 1: only the rights in the manifest are granted: the capabilities, a read-only root,
``/proc/sys`` read-only, no new privileges, only the container's own environment variables.
Rule 2: an unknown field that would change the granted rights is an error.
Rule 3: no seccomp filter, cgroup or PID namespace is created; these need a real runtime.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from userspace_proxy_testing.sandbox import Namespace

from .image import Image

Manifest = Mapping[str, Any]

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_LIMITED = Path(__file__).with_name("limited.py")
_KNOWN_SECURITY = frozenset(
    {
        "allowPrivilegeEscalation",
        "capabilities",
        "privileged",
        "readOnlyRootFilesystem",
        "runAsUser",
    }
)
# Arguments: lower folders, work folder, type, file and place of each volume, "--", command.
_SCRIPT = """
set -eu
lower=$1 ours=$2 root=$2/root
shift 2
mkdir -p "$root" "$ours/upper" "$ours/work"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$ours/upper,workdir=$ours/work" "$root"
while [ "$1" != -- ]; do
  # Links are the image's own: its /var/run is not ours.
  if [ -d "$2" ]; then folder=$3 name=; else folder=$(dirname "$3") name=/$(basename "$3"); fi
  place=$root$(chroot "$root" sh -c 'mkdir -p "$1" && readlink -f "$1"' sh "$folder")$name
  [ -d "$2" ] || : >"$place"
  mount --bind "$2" "$place"
  [ "$1" = rw ] || mount -o remount,bind,ro "$place"
  shift 3
done
shift
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -o remount,ro "$root"
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Volumes:
    """The contents of the volumes and variables that a cluster provides to a pod.

    Args:
        config_maps: The data of the pod's ConfigMaps.
        token: The token of the pod's ServiceAccount.
        ca: The API server's CA certificate, as PEM.
        node: The name of the pod's node.
        service_host: The API server's address, unless the manifest sets one.
        service_port: The API server's port.
    """

    config_maps: Mapping[str, Mapping[str, str]]
    token: str
    ca: str
    node: str
    service_host: str
    service_port: int


def start_container(
    pod: Manifest,
    image: Image,
    volumes: Volumes,
    *,
    where: Namespace,
    folder: Path,
    log: IO[str],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start the only container of a pod; the returned process has the PID of its program.

    Args:
        pod: Its spec.
        image: The image of its container.
        volumes: The contents of its volumes.
        where: The node's network namespace, because the pod must have ``hostNetwork``.
        folder: An empty folder, which the caller removes afterwards.
        log: The file for standard output and standard error.
        environment: Additional variables of the program.
    """
    if not pod.get("hostNetwork"):
        raise ValueError("only hostNetwork is known here")
    (container,) = pod["containers"]
    known = _environment(container, volumes)
    start = [*container.get("command", image.entrypoint), *container.get("args", ())]
    return start_process(
        [_expanded(word, known) for word in start],
        image,
        _mounts(pod, container, volumes, folder),
        privileges(container["securityContext"]),
        where=where,
        folder=folder,
        log=log,
        environment={**known, **(environment or {})},
    )


def start_process(
    words: Sequence[str],
    image: Image,
    mounts: Sequence[str],
    limits: Sequence[str],
    *,
    where: Namespace,
    folder: Path,
    log: IO[str],
    environment: Mapping[str, str],
) -> subprocess.Popen[str]:
    """Start a program in an image's root filesystem, read-only except for its mounts.

    Args:
        mounts: For each mount: ``ro`` or ``rw``, the file or folder, and its mount point.
        limits: The result of `privileges`.
        where: Its network namespace.
        folder: A folder, which the caller removes afterwards.
        log: The file for standard output and standard error.
        environment: Variables in addition to those of the image.
    """
    command = ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh"]
    command += [":".join(map(str, reversed(image.layers))), str(folder), *mounts, "--"]
    command += [sys.executable, "-IS", str(_LIMITED), f"--root={folder}/root"]
    command += [*limits, "--", *words]
    seen = {"PATH": _PATH, "HOME": "/root", **image.environment, **environment}
    return where.popen(command, stdout=log, stderr=log, env=seen)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def privileges(context: Manifest) -> list[str]:
    """Return the options of `limited` for a security context; raise ValueError if it is unknown."""
    if unknown := context.keys() - _KNOWN_SECURITY:
        raise ValueError(f"securityContext: {', '.join(unknown)} isn't known here")
    if context.get("privileged") or not context["readOnlyRootFilesystem"]:
        raise ValueError("only an unprivileged container with a read-only root is known here")
    if context["capabilities"]["drop"] != ["ALL"]:
        raise ValueError("only capabilities after drop: [ALL] are known here")
    granted = ",".join(name.lower() for name in context["capabilities"]["add"])
    limits = [f"--user={context['runAsUser']}", f"--add={granted}"]
    return limits + ([] if context["allowPrivilegeEscalation"] else ["--no-new-privs"])


def _environment(container: Manifest, volumes: Volumes) -> dict[str, str]:
    known = {
        "KUBERNETES_SERVICE_HOST": volumes.service_host,
        "KUBERNETES_SERVICE_PORT": str(volumes.service_port),
    }
    fields = {
        "spec.nodeName": volumes.node,
        # The namespace and the name are arbitrary: no test looks this pod up.
        "metadata.namespace": "kube-system",
        "metadata.name": f"userspace-proxy-{volumes.node}",
    }
    for entry in container.get("env", ()):
        if "value" in entry:
            known[entry["name"]] = entry["value"]
        elif key := entry["valueFrom"].get("configMapKeyRef"):
            known[entry["name"]] = volumes.config_maps[key["name"]][key["key"]]
        elif (field := entry["valueFrom"].get("fieldRef", {}).get("fieldPath")) in fields:
            known[entry["name"]] = fields[field]
        else:
            raise ValueError(f"env: {entry['name']} isn't known here")
    return known


def _expanded(word: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        word = word.replace(f"$({name})", value)
    return word


def _mounts(pod: Manifest, container: Manifest, volumes: Volumes, folder: Path) -> Sequence[str]:
    """Create the files of all volumes; return ``ro`` or ``rw``, file and mount point of each."""
    account = folder / "token"
    account.mkdir()
    (account / "token").write_text(volumes.token)
    (account / "ca.crt").write_text(volumes.ca)
    (account / "namespace").write_text("kube-system")
    mounts = ["ro", str(account), TOKEN_FOLDER]
    by_name = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        volume = by_name[mount["name"]]
        place = folder / f"volume-{mount['name']}"
        if source := volume.get("configMap"):
            place.mkdir()
            data = volumes.config_maps[source["name"]]
            items = source.get("items") or [{"key": key, "path": key} for key in data]
            for item in items:
                (place / item["path"]).write_text(data[item["key"]])
        elif volume["hostPath"].get("type") == "FileOrCreate":
            # Don't share the machine's lock file: the tests' namespaces have their own rules.
            place.touch()
        elif volume["hostPath"].get("type") == "DirectoryOrCreate":
            place.mkdir()
        else:
            place = Path(volume["hostPath"]["path"])
            if not place.exists():
                continue
        mounts += ["ro" if mount.get("readOnly") else "rw", str(place), mount["mountPath"]]
    return mounts
