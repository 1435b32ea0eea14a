"""Which files a quick check is about, and which tests are theirs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .mirror import ROOT
from .quick import changed_files, git, own_tests

FIGURES, ERRORS = (f"userspace_proxy/{name}.py" for name in ("facts/figures", "errors"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    for name in (FIGURES, ERRORS, ".gitignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    git(tmp_path, "add", "--all")
    author = ("-c", "user.name=Alice", "-c", "user.email=alice@example.com")
    git(tmp_path, *author, "commit", "-q", "-m", "Add files")
    return tmp_path


def test_files_are_those_that_are_not_committed_or_those_at_the_given_places(root: Path) -> None:
    assert changed_files(root, ()) == []
    (root / FIGURES).write_text("new\n")
    (root / "userspace_proxy/facts/added.py").write_text("new\n")
    expected = [Path("userspace_proxy/facts/added.py"), Path(FIGURES)]
    assert changed_files(root, ["userspace_proxy/facts"]) == expected
    git(root, "rm", "-q", ERRORS)
    assert changed_files(root, ()) == expected
    with pytest.raises(subprocess.CalledProcessError):
        changed_files(root, ["nowhere"])


@pytest.mark.parametrize(
    ("path", "test"),
    [
        ("userspace_proxy/balance/slots.py", "tests/unit/balance/test_slots.py"),
        ("tests/unit/balance/test_slots.py", "tests/unit/balance/test_slots.py"),
        ("tests/tools/form.py", "tests/tools/test_form.py"),
        ("tests/node/test_check.py", None),
        ("docs/services.md", None),
    ],
)
def test_a_file_has_the_own_tests_its_own(path: str, test: str | None) -> None:
    assert (ROOT / path).is_file()
    assert own_tests(ROOT, [Path(path)]) == ([Path(test)] if test else [])
