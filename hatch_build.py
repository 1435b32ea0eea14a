"""Adds the manual page and completions to a distribution, and metadata from the checkout.

The package's own code generates the manual page from its tables, without other packages. A shell's
completion calls the program, because other distributions add commands. An index shows the readme on
a page of its own, so its links are absolute: they point to the repository, at the version's tag. A
source distribution has all this in its metadata, which hatchling then uses.
"""

from __future__ import annotations

import os
import posixpath
import re
import runpy
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

COMPLETIONS = {
    "share/bash-completion/completions/userspace-proxy": (
        "source <(userspace-proxy completion bash)\n"
    ),
    "share/zsh/site-functions/_userspace-proxy": (
        "#compdef userspace-proxy kubectl-userspace_proxy\n"
        "source <(userspace-proxy completion zsh)\n"
        '_userspace-proxy "$@"\n'
    ),
    "share/fish/vendor_completions.d/userspace-proxy.fish": (
        "userspace-proxy completion fish | source\n"
    ),
}
"""Completions for shells, by their path below a prefix such as ``/usr/local``."""

_COMMIT = "commit"
_FENCE = re.compile(r"^([ \t]*```.*?^[ \t]*```|[ \t]*~~~.*?^[ \t]*~~~)", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(`[^`\n]*`)")
# The target of a link in Markdown or HTML, unless it has a scheme, and is therefore absolute.
_TARGET = re.compile(r"""((?:\]\(|\b(?:src|href)="))(?![a-z]+:)([^)"\s]+)""")
_PICTURES = (".gif", ".jpg", ".png", ".svg", ".webp")


class Addresses(MetadataHookInterface):
    """Adds the metadata that depends on the repository's address and the version."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Part of MetadataHookInterface."""
        root = Path(self.root)
        metadata |= addresses(root, root)


def declared_version(checkout: Path) -> str:
    """Return the version that a checkout declares for all its distributions."""
    return str(runpy.run_path(str(checkout / "userspace_proxy/version.py"))["__version__"])


def declared_repository(checkout: Path) -> str:
    """Return the URL at which the source is published, without a slash at the end."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["tool"]["userspace-proxy"]["repository"])


def tag_of(version: str) -> str:
    """Return the Git tag of a version."""
    return f"v{version}"


def addresses(checkout: Path, root: Path) -> dict[str, Any]:
    """Return the metadata ``readme`` and ``urls`` of a distribution.

    Args:
        checkout: The repository's folder.
        root: The distribution's folder in it.
    """
    repository, tag = declared_repository(checkout), tag_of(declared_version(checkout))
    page = root / "README.md"
    address = links_from(page.relative_to(checkout).as_posix(), repository, tag)
    text = with_links(page.read_text(encoding="utf-8"), address)
    return {
        "readme": {"content-type": "text/markdown", "text": text},
        "urls": {
            "Source": repository,
            "Documentation": f"{repository}/tree/{tag}/docs",
            "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
            "Issues": f"{repository}/issues",
        },
    }


def of_same_version(root: Path) -> dict[str, Any]:
    """Return the metadata of a distribution that requires userspace-proxy in the same version.

    Args:
        root: The distribution's folder in it.
    """
    checkout = root.parent
    version = declared_version(checkout)
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    return {
        **addresses(checkout, root),
        "authors": project["project"]["authors"],
        "version": version,
        "dependencies": [f"userspace-proxy=={version}"],
    }


def links_from(page: str, repository: str, tag: str) -> Callable[[str], str]:
    """Return a function that makes the links of a page of the checkout absolute.

    Args:
        page: The path of the page in the checkout: ``docs/api.md``.
    """

    def address(link: str) -> str:
        path, mark, anchor = link.partition("#")
        whole = posixpath.join(posixpath.dirname(page), path) if path else page
        kind = "raw" if path.endswith(_PICTURES) else "tree" if path.endswith("/") else "blob"
        return f"{repository}/{kind}/{tag}/{posixpath.normpath(whole)}{mark}{anchor}"

    return address


def with_links(text: str, address: Callable[[str], str]) -> str:
    """Return Markdown with relative links and pictures replaced by the results of ``address``."""

    def change(part: str) -> str:
        return _TARGET.sub(lambda found: found[1] + address(found[2]), part)

    return outside_fences(text, lambda part: _between(_CODE, part, change))


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Return Markdown, with each part outside fenced code blocks replaced by ``change``."""
    return _between(_FENCE, text, change)


def _between(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    parts = pattern.split(text)
    return "".join(part if at % 2 else change(part) for at, part in enumerate(parts))


class Texts(BuildHookInterface[Any]):
    """Adds the generated files to a build; they exist on disk only during the build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files, except to an editable install, in which they would become outdated."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        root, is_wheel = Path(self.root), self.target_name == "wheel"
        if commit := commit_of(root):
            # Only an installed package contains the commit, so no checkout has an outdated one.
            path = f"userspace_proxy/{_COMMIT}" if is_wheel else _COMMIT
            build_data["force_include"][self._write(_COMMIT, f"{commit}\n")] = path
        for path, text in made_texts(root).items() if is_wheel else ():
            build_data["shared_data"][self._write(path, text)] = path

    def _write(self, path: str, text: str) -> str:
        file = Path(self._folder.name, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return str(file)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the files."""
        if version != "editable":
            self._folder.cleanup()


def commit_of(root: Path) -> str:
    """Return the commit from which the distribution is built; empty if it is unknown.

    It is in the environment when an image is built, in a file of a source distribution, and
    otherwise in the git repository.
    """
    if stated := os.environ.get("USERSPACE_PROXY_COMMIT"):
        return stated
    if (noted := root / _COMMIT).is_file():
        return noted.read_text(encoding="utf-8").strip()
    source = runpy.run_path(str(root / "userspace_proxy/version.py"))
    return str(source["commit_of_checkout"](root))


def made_texts(root: Path) -> dict[str, str]:
    """Return the manual page and the completions, by their paths below the prefix."""
    sys.path.insert(0, str(root))
    from userspace_proxy.cli.command_table import COMMANDS, SUMMARY
    from userspace_proxy.cli.man import man_page

    page = man_page(SUMMARY, tuple(COMMANDS.values()))
    return {"share/man/man8/userspace-proxy.8": page, **COMPLETIONS}
