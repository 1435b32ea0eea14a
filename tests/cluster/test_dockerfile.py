"""What a Dockerfile and a .dockerignore mean, without building anything."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from .build import BuildError
from .dockerfile import Copy, Run, files_of, is_ignored, read_dockerfile


def test_stages_arguments_and_environment_reach_the_steps_after_them() -> None:
    builder, last = read_dockerfile(
        dedent("""\
            FROM debian AS builder
            # A word about it.
            RUN apt-get update \\
             && apt-get install gcc
            WORKDIR /build
            COPY a.txt b.txt ./
            FROM debian
            ARG VERSION=1
            LABEL title="a proxy" version="${VERSION}"
            ENV HOME=/none
            COPY --from=builder /opt/x /opt/x
            RUN true
            ENTRYPOINT ["/bin/x", "run"]
            """),
        {"VERSION": "2"},
    )
    assert builder.steps == [
        Run("apt-get update  && apt-get install gcc", (), "/"),
        Copy(("a.txt", "b.txt"), "/build/", ""),
    ]
    assert last.steps == [
        Copy(("/opt/x",), "/opt/x", "builder"),
        Run("true", (("HOME", "/none"), ("VERSION", "2")), "/"),
    ]
    assert (builder.base, builder.name, last.base) == ("debian", "builder", "debian")
    assert last.labels == {"title": "a proxy", "version": "2"}
    assert last.entrypoint == ("/bin/x", "run")


@pytest.mark.parametrize(("given", "base"), [({}, "debian:b"), ({"SUITE": "c"}, "debian:c")])
def test_an_argument_before_the_first_stage_chooses_its_base(
    given: dict[str, str], base: str
) -> None:
    (stage,) = read_dockerfile("ARG SUITE=b\nFROM debian:${SUITE} AS root\n", given)
    assert (stage.base, stage.name, stage.arguments) == (base, "root", {})


@pytest.mark.parametrize(
    "line", ["ADD x /x", "COPY --chown=1 x /x", "ENTRYPOINT sh", "HEALTHCHECK CMD x"]
)
def test_an_unknown_instruction_stops_the_build(line: str) -> None:
    with pytest.raises(BuildError, match="not known here"):
        read_dockerfile(f"FROM debian\n{line}\n")


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("LICENSE", False),
        ("Makefile", True),
        ("package/deep/module.py", False),
        ("package/deep/__pycache__/module.pyc", True),
        ("package/module.pyc", True),
        ("tests/LICENSE", True),
    ],
)
def test_the_last_line_that_names_a_file_decides(path: str, ignored: bool) -> None:
    lines = ["# all but", "*", "!LICENSE", "!package", "**/__pycache__", "**/*.pyc"]
    assert is_ignored(path, lines) is ignored


def test_only_allowed_files_are_copied(tmp_path: Path) -> None:
    for name in ("package/a.py", "package/b.pyc", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    lines = ["*", "!package", "**/*.pyc"]
    assert list(files_of(tmp_path, "package", lines)) == [tmp_path / "package/a.py"]
    with pytest.raises(BuildError, match=r"cannot copy c\.txt"):
        list(files_of(tmp_path, "c.txt", lines))
