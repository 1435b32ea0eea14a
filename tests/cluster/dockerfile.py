"""Parses a Dockerfile and its .dockerignore into steps for :mod:`.image`.

Rule 1: steps are parsed here, but not run.
Rule 2: an unknown instruction or form is an error: an image built from only a part of its
Dockerfile would prove nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path, PurePosixPath

from dockerfile_parse import DockerfileParser
from dockerfile_parse.parser import image_from
from dockerfile_parse.util import WordSplitter, extract_key_values

from .build import BuildError

_SILENT = frozenset({"COMMENT", "EXPOSE", "STOPSIGNAL"})


@dataclass(frozen=True, slots=True)
class Run:
    """A shell command, its environment and its working folder."""

    command: str
    environment: tuple[tuple[str, str], ...]
    folder: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Files from the context or, with ``stage``, from an earlier stage."""

    sources: tuple[str, ...]
    target: str
    """An absolute path; a folder if it ends with a slash."""
    stage: str


@dataclass(slots=True)
class Stage:
    """One image of a Dockerfile: its base and its steps."""

    name: str
    base: str
    """The base image, or the name of an earlier stage."""
    steps: list[Run | Copy] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    folder: str = "/"


def read_dockerfile(text: str, arguments: Mapping[str, str] | None = None) -> list[Stage]:
    """Return the stages of a Dockerfile in order; the last stage is the image.

    Args:
        text: The whole file.
        arguments: Values of ``--build-arg``, used for declared ARGs.

    Raises:
        BuildError: It contains an unknown instruction or form.
    """
    given = arguments or {}
    stages: list[Stage] = []
    # ARGs before the first FROM apply only to base image names.
    outside: dict[str, str] = {}
    for row in DockerfileParser(fileobj=BytesIO(text.encode())).structure:
        instruction, value = row["instruction"], row["value"]
        if instruction in _SILENT:
            continue
        if instruction == "FROM":
            base, name = image_from(WordSplitter(value, args=outside).dequote())
            stages.append(Stage(name or str(len(stages)), base))
        elif not stages and instruction == "ARG":
            outside |= _argument(value, given)
        elif not stages:
            raise BuildError(f"cannot read the Dockerfile: {instruction} before the first FROM")
        else:
            _add(stages[-1], instruction, value, given)
    return stages


def _add(stage: Stage, instruction: str, value: str, given: Mapping[str, str]) -> None:
    known = stage.arguments | stage.environment
    match instruction:
        case "RUN":
            environment = tuple(sorted(known.items()))
            stage.steps.append(Run(value, environment, stage.folder))
        case "COPY":
            stage.steps.append(_copy(value, stage.folder))
        case "WORKDIR":
            stage.folder = str(PurePosixPath(stage.folder, value))
        case "ARG":
            stage.arguments |= _argument(value, given)
        case "ENV" | "LABEL":
            pairs = dict(
                extract_key_values(
                    env_replace=True, args=stage.arguments, envs=known, instruction_value=value
                )
            )
            (stage.environment if instruction == "ENV" else stage.labels).update(pairs)
        case "ENTRYPOINT" if value.startswith("["):
            stage.entrypoint = tuple(json.loads(value))
        case _:
            raise BuildError(f"cannot build by {instruction} {value}: not known here")


def _argument(value: str, given: Mapping[str, str]) -> dict[str, str]:
    name, _, default = value.partition("=")
    return {name: given.get(name, WordSplitter(default).dequote())}


def _copy(value: str, folder: str) -> Copy:
    words = value.split()
    stage = ""
    if words[0].startswith("--from="):
        stage = words.pop(0).removeprefix("--from=")
    if words[0].startswith(("-", "[")):
        raise BuildError(f"cannot build by COPY {value}: not known here")
    *sources, target = words
    whole = str(PurePosixPath(folder, target))
    if target.endswith("/") or len(sources) > 1:
        whole = whole.rstrip("/") + "/"
    return Copy(tuple(sources), whole, stage)


def files_of(context: Path, source: str, ignored: Sequence[str]) -> Iterator[Path]:
    """Yield the files below ``context/source`` that .dockerignore doesn't exclude, sorted.

    Args:
        context: The build context's folder.
        source: A file or folder in it.
        ignored: The lines of .dockerignore.

    Raises:
        BuildError: No file matches, which is a mistake in a COPY.
    """
    whole = context / source
    every = sorted(whole.rglob("*")) if whole.is_dir() else [whole]
    found = [
        path
        for path in every
        if path.is_file() and not is_ignored(path.relative_to(context).as_posix(), ignored)
    ]
    if not found:
        raise BuildError(f"cannot copy {source}: no such file, or .dockerignore keeps it out")
    yield from found


def is_ignored(path: str, lines: Sequence[str]) -> bool:
    """Return whether .dockerignore excludes a file: the last line that matches it counts.

    Source: docs.docker.com, "Build context", the section on .dockerignore.
    """
    kept_out = False
    for line in lines:
        pattern = line.strip().rstrip("/")
        if not pattern or pattern.startswith("#"):
            continue
        lets_in = pattern.startswith("!")
        if _names(pattern.removeprefix("!").removeprefix("/"), path):
            kept_out = not lets_in
    return kept_out


def _names(pattern: str, path: str) -> bool:
    """Return whether a pattern matches a file or a folder that contains the file."""
    parts = PurePosixPath(path).parts
    for end in range(1, len(parts) + 1):
        if pattern.startswith("**/"):
            tails = range(end)
            name = pattern.removeprefix("**/")
            if any(_matches(name, parts[begin:end]) for begin in tails):
                return True
        elif _matches(pattern, parts[:end]):
            return True
    return False


def _matches(pattern: str, parts: Sequence[str]) -> bool:
    words = PurePosixPath(pattern).parts
    return len(words) == len(parts) and all(map(fnmatchcase, parts, words))
