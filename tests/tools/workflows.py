"""Checks the workflows in ``.github`` with actionlint, and by this project's rules.

Run it as ``python -m tests.tools.workflows``. It prints one line per problem, and exits with status
1 if there are problems.

Rule 1: a workflow has no logic. A step runs one make target, which can be run on any machine, or is
an action; only ``if: always()`` and ``needs`` control execution.
Rule 2: a workflow names no host: registries are variables of the repository.
Rule 3: an action is pinned to a commit's hash, with its version in a comment.
Rule 4: a workflow may read the repository, and a job that needs more declares it. Each job has a
deadline. A concurrency group begins with its file's name, because a called workflow with its
caller's group would wait for itself.
Rule 5: a job's Pythons are in the classifiers, and the matrix ``python`` has all of these."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.tools import ACTIONLINT, ensure

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ".github/workflows"
PROJECTS = (
    "pyproject.toml",
    "kubectl-userspace-proxy/pyproject.toml",
    "pytest-userspace-proxy/pyproject.toml",
)
HOST = re.compile(r"(?<![\w.-])(?:[a-z0-9-]+\.)+(?:cloud|com|dev|io|net|org)\b")

_CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
_EXPRESSION = re.compile(r"\$\{\{.*?\}\}")
_IN_MATRIX = re.compile(r"\$\{\{ matrix\.(\w+) \}\}")
_PINNED = re.compile(r"\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
_PYTHON_IMAGE = re.compile(r"\bpython:(\d+\.\d+)")
_USES = re.compile(r"^\s*(?:- )?uses: (.*)$", re.MULTILINE)

Job = Mapping[str, Any]


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):(?!=)", makefile, re.MULTILINE))


def pythons(pyproject: str) -> list[str]:
    """Return the Pythons in a project's classifiers, in order."""
    classifiers = tomllib.loads(pyproject)["project"]["classifiers"]
    return [found[1] for line in classifiers if (found := _CLASSIFIER.fullmatch(line))]


def problems(name: str, text: str, targets: set[str], tested: Sequence[str]) -> Iterator[str]:
    """Yield one line for each rule that a workflow breaks.

    Args:
        name: The name of its file, without the suffix.
        text: The file's content.
        targets: The Makefile's targets.
        tested: The Pythons in the classifiers.
    """
    workflow = yaml.safe_load(text)
    yield from (f"{name}: {problem}" for problem in _of_all(name, text, workflow))
    for job_name, job in workflow["jobs"].items():
        for problem in _of_job(job, targets, tested):
            yield f"{name}, job {job_name}: {problem}"


def _of_all(name: str, text: str, workflow: Mapping[str, Any]) -> Iterator[str]:
    if workflow.get("permissions") != {"contents": "read"}:
        yield "permissions aren't `contents: read`; a job declares what else it needs"
    group = workflow.get("concurrency", {}).get("group", "")
    if not group.startswith(f"{name}-"):
        yield f"concurrency has no group that begins with {name}-"
    for host in HOST.findall(_EXPRESSION.sub("", yaml.safe_dump(workflow))):
        yield f"it names the host {host}; use a variable of the repository"
    for action in _USES.findall(text):
        if not action.startswith("./") and not _PINNED.match(action):
            yield f"{action} isn't pinned as NAME@HASH # vVERSION"


def _of_job(job: Job, targets: set[str], tested: Sequence[str]) -> Iterator[str]:
    if "uses" not in job and "timeout-minutes" not in job:
        yield "no timeout-minutes"
    matrix = job.get("strategy", {}).get("matrix", {})
    if "python" in matrix and matrix["python"] != list(tested):
        yield f"its Pythons are {matrix['python']}, the classifiers' {list(tested)}"
    for container in _expanded(str(job.get("container", "")), matrix):
        for version in set(_PYTHON_IMAGE.findall(container)) - set(tested):
            yield f"Python {version} isn't among the classifiers' {list(tested)}"
    for step in [job, *job.get("steps", [])]:
        if step.get("if", "always()") != "always()" or "continue-on-error" in step:
            yield "it decides by `if` or `continue-on-error`; a make target decides"
        for command in _expanded(step.get("run", "make help"), matrix):
            verb, _, target = command.partition(" ")
            if verb != "make" or target not in targets:
                yield f"`{command}` isn't `make TARGET` with a target of the Makefile"


def _expanded(text: str, matrix: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the text with each combination of the matrix values that it uses."""
    used = [key for key in dict.fromkeys(_IN_MATRIX.findall(text)) if key in matrix]
    for values in itertools.product(*(matrix[key] for key in used)):
        expanded = text
        for key, value in zip(used, values, strict=True):
            expanded = expanded.replace(f"${{{{ matrix.{key} }}}}", value)
        yield expanded


def problems_of_project(root: Path) -> Iterator[str]:
    """Yield one line for each rule that one of the project's workflows breaks."""
    by_project = [pythons((root / project).read_text()) for project in PROJECTS]
    if any(versions != by_project[0] for versions in by_project):
        yield f"the classifiers of {', '.join(PROJECTS)} name different Pythons"
    targets = make_targets((root / "Makefile").read_text())
    for path in sorted((root / WORKFLOWS).iterdir()):
        yield from problems(path.stem, path.read_text(), targets, by_project[0])


def lint(files: Sequence[Path]) -> bool:
    """Print actionlint's findings in workflows; return whether there are none."""
    # Disable optional programs, so that actionlint's findings are the same on all machines.
    command = [str(ensure(ACTIONLINT)), "-shellcheck=", "-pyflakes=", *map(str, files)]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def main() -> int:
    """Print all problems; return the exit status."""
    found = list(problems_of_project(ROOT))
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.stdout.flush()
    is_clean = lint(sorted((ROOT / WORKFLOWS).iterdir()))
    return 1 if found or not is_clean else 0


if __name__ == "__main__":
    sys.exit(main())
