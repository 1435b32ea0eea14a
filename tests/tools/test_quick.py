"""Which files a quick check is about, and which tests are theirs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .mirror import ROOT
from .quick import changed_files, commands, git, own_tests

FIGURES, PORT, ERRORS = (
    f"userspace_proxy/{name}.py" for name in ("facts/figures", "facts/deep/port", "errors")
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    for name in (FIGURES, PORT, ERRORS, ".gitignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    git(tmp_path, "add", "--all")
    author = ("-c", "user.name=Alice", "-c", "user.email=alice@example.com")
    git(tmp_path, *author, "commit", "-q", "-m", "Add files")
    return tmp_path


def test_what_is_not_committed_is_changed(root: Path) -> None:
    assert changed_files(root, ()) == []
    (root / FIGURES).write_text("new\n")
    (root / "userspace_proxy/added.py").write_text("new\n")
    git(root, "rm", "-q", ERRORS)
    assert changed_files(root, ()) == [Path("userspace_proxy/added.py"), Path(FIGURES)]


def test_places_are_files_and_what_is_below_folders(root: Path) -> None:
    (root / "userspace_proxy/facts/added.py").write_text("new\n")
    expected = ["userspace_proxy/facts/added.py", PORT, FIGURES]
    assert changed_files(root, ["userspace_proxy/facts"]) == list(map(Path, expected))
    assert changed_files(root, [expected[0], ERRORS]) == [Path(ERRORS), Path(expected[0])]
    with pytest.raises(subprocess.CalledProcessError):
        changed_files(root, ["nowhere"])


@pytest.mark.parametrize(
    ("path", "test"),
    [
        ("userspace_proxy/balance/slots.py", "tests/unit/balance/test_slots.py"),
        (
            "pytest-userspace-proxy/userspace_proxy_testing/places.py",
            "tests/kit/test_places.py",
        ),
        ("tests/unit/balance/test_slots.py", "tests/unit/balance/test_slots.py"),
        ("tests/tools/form.py", "tests/tools/test_form.py"),
        ("userspace_proxy/balance/__init__.py", None),
        ("tests/node/test_check.py", None),
        ("docs/services.md", None),
    ],
)
def test_a_file_has_the_own_tests_its_own(path: str, test: str | None) -> None:
    assert (ROOT / path).is_file()
    assert own_tests(ROOT, [Path(path)]) == ([Path(test)] if test else [])


def test_what_has_no_code_needs_no_check() -> None:
    assert list(commands([Path("docs/services.md")], [])) == []
    code = list(commands([Path(FIGURES)], [Path("tests/unit/test_a.py")]))
    assert [command[-1] for command in (code[0], code[-1])] == [FIGURES, "tests/unit/test_a.py"]


def test_contributors_read_of_it_first() -> None:
    assert "$ make quick " in (ROOT / "CONTRIBUTING.md").read_text()[:300]
