"""Lists the image's Python packages as CycloneDX, from its lock.

    requirements-image.lock ──what userspace-proxy[iptables] needs──▶ CycloneDX 1.6, JSON

Run it as ``python -m tests.tools.sbom``: it writes ``dist/userspace-proxy-VERSION.cdx.json``.

Rule 1: the same commit gives the same bytes.
Rule 2: packages that are only needed to build the image aren't listed, although they are locked.
Rule 3: Debian's packages aren't listed: the image has their versions in dpkg's database.
"""
# ruff: noqa: T201 - printing what it wrote is this program's interface.

from __future__ import annotations

import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalContact
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from userspace_proxy import __version__

from .clones import ROOT, committed_at
from .distributions import DIST
from .fresh_roots import SUITES

LOCK = ROOT / "requirements-image.lock"
EXTRAS = ("iptables",)
"""The extras that the Dockerfile installs."""
_OURS = "userspace-proxy"
_BY_PROJECT = f"{_OURS} (pyproject.toml)"


@dataclass(frozen=True, slots=True)
class Locked:
    """A package in a lock file."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """The SHA-256 of each of the package's files."""
    needed_by: frozenset[str]
    """Names of the packages that require it; ``_BY_PROJECT`` for the project itself."""


def image_python(dockerfile: str) -> str:
    """Return the Python version of the image, which is the Python of its Debian suite."""
    (version,) = (v for v, suite in SUITES.items() if f"FROM debian:{suite}-slim" in dockerfile)
    return version


def read_lock(text: str, environment: Mapping[str, str]) -> Iterator[Locked]:
    """Yield the packages of a lock whose markers match an environment."""
    for entry in re.split(r"\n(?=\S)", text.strip()):
        head, *rest = (line.strip().removesuffix("\\").strip() for line in entry.splitlines())
        wanted = Requirement(head)
        if wanted.marker is None or wanted.marker.evaluate(dict(environment)):
            (pin,) = wanted.specifier
            via = (line.removeprefix("#").strip().removeprefix("via").strip() for line in rest)
            yield Locked(
                canonicalize_name(wanted.name),
                pin.version,
                tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))),
                frozenset(name for name in via if name and not name.startswith("--hash")),
            )


def installed(lock: str, pyproject: str, environment: Mapping[str, str]) -> dict[str, Locked]:
    """Return the packages that the image's installation needs, by name.

    Args:
        environment: The image's values of markers.
    """
    locked = {each.name: each for each in read_lock(lock, environment)}
    project = tomllib.loads(pyproject)["project"]
    wanted = list(project["dependencies"])
    wanted += (line for extra in EXTRAS for line in project["optional-dependencies"][extra])
    named = {str(canonicalize_name(Requirement(line).name)) for line in wanted}
    names = named & locked.keys()
    while more := {each.name for each in locked.values() if each.needed_by & names} - names:
        names |= more
    return {name: locked[name] for name in sorted(names)}


def make_bom(packages: Mapping[str, Locked], epoch: int, repository: str, authors: str) -> str:
    """Return the document as JSON.

    Args:
        packages: The image's packages by name.
        epoch: The time of the commit, in seconds since 1970.
        repository: The address of the source.
        authors: The proxy's authors.
    """
    ours = Component(
        name=_OURS,
        version=__version__,
        type=ComponentType.APPLICATION,
        purl=PackageURL("pypi", name=_OURS, version=__version__),
        bom_ref=_OURS,
        authors=[OrganizationalContact(name=authors)],
        external_references=[
            ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(repository))
        ],
    )
    components = {name: _component(each) for name, each in packages.items()}
    bom = Bom(components=components.values())
    bom.metadata.component = ours
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    listed = "\n".join(f"{each.name}=={each.version}" for each in packages.values())
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{repository}@{epoch}\n{listed}")
    direct = [components[n] for n, each in packages.items() if _BY_PROJECT in each.needed_by]
    bom.register_dependency(ours, direct)
    for name, component in components.items():
        needs = [components[n] for n, each in packages.items() if name in each.needed_by]
        bom.register_dependency(component, needs)
    return f"{JsonV1Dot6(bom).output_as_string(indent=2)}\n"


def _component(package: Locked) -> Component:
    purl = PackageURL("pypi", name=package.name, version=package.version)
    # The machine determines which of the files is installed.
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(purl.to_string()),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in package.hashes],
    )
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=package.name,
        external_references=[files],
    )


def environment(python: str, machine: str) -> dict[str, str]:
    """Return the values of markers on Linux."""
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def packages_of_image(machine: str) -> dict[str, Locked]:
    """Return the Python packages of this checkout's image on a kind of machine."""
    python = image_python((ROOT / "Dockerfile").read_text())
    pyproject = (ROOT / "pyproject.toml").read_text()
    return installed(LOCK.read_text(), pyproject, environment(python, machine))


def main() -> int:
    """Write the document; return the exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = make_bom(
        packages_of_image("x86_64"),
        committed_at(),
        project["tool"][_OURS]["repository"],
        project["project"]["authors"][0]["name"],
    )
    path = DIST / f"{_OURS}-{__version__}.cdx.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(f"dist/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
