"""Checks that mypy and pyright, both strict, accept the examples as in a user's project.

    examples/pytest/test_shop.py ──▶ pytest_test_shop.py ─┐
    README.md, its Python blocks ──▶ README.py ───────────┴─▶ mypy --strict, pyright

Run it as ``python -m tests.tools.typed_examples``. It prints the reports of both, and exits with
status 1 if there are any.

Rule 1: the files are in a folder of their own, so that this project's settings don't apply.
Rule 2: the blocks of a page become one file with the page's line numbers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from .mirror import ROOT

PAGES = (
    "README.md",
    "pytest-userspace-proxy/README.md",
    "docs/in-tests.md",
    "docs/index.md",
    "docs/scale-to-zero-for-tcp-and-udp.md",
)
"""Pages whose Python blocks are checked."""

_IGNORED = re.compile(r"#\s*(?:type:\s*ignore|pyright:)")


def sources(root: Path) -> Iterator[Path]:
    """Yield the examples and pages, relative to the checkout."""
    yield from sorted(file.relative_to(root) for file in (root / "examples").rglob("*.py"))
    yield from map(Path, PAGES)


def python_of(page: str) -> str:
    """Return the Python blocks of a page; all other lines are empty."""
    lines, is_code = [], False
    for line in page.splitlines():
        if line.startswith("```"):
            is_code = line == "```python"
            lines.append("")
        else:
            lines.append(line if is_code else "")
    return "\n".join(lines) + "\n"


def problems(texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the type checkers' errors, and comments that would suppress errors.

    Args:
        texts: Python code by the path for problems.
    """
    for path, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if _IGNORED.search(line):
                yield f"{path}:{number}: an example has no comment for a type checker"
    with tempfile.TemporaryDirectory(prefix="typed-examples-") as name:
        folder = Path(name)
        paths = {_file_name(path): path for path in texts}
        assert len(paths) == len(texts), "two files would have the same name"
        for file, path in paths.items():
            (folder / file).write_text(texts[path])
        for line in (*_mypy(folder), *_pyright(folder)):
            file, _, rest = line.removeprefix(f"{folder.resolve()}/").partition(":")
            yield f"{paths.get(file, file)}:{rest}"


def _file_name(path: str) -> str:
    """Return a unique name, but for a conftest its own name, by which it is imported."""
    file = Path(path)
    if file.name == "conftest.py":
        return file.name
    return re.sub(r"\W", "_", str(file.with_suffix(""))) + ".py"


def _mypy(folder: Path) -> list[str]:
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\nwarn_unreachable = true\n")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-color-output"]
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'examples'}"
    done = subprocess.run([*command, cache, "."], cwd=folder, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def _pyright(folder: Path) -> list[str]:
    # pyright's command would look for updates, and for Node.js on this machine.
    pyright, playwright = (_folder_of(package) for package in ("pyright", "playwright"))
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "pythonVersion": "3.11"})
    )
    command = [str(playwright / "driver" / "node"), str(pyright / "dist" / "index.js")]
    command += [f"--pythonpath={sys.executable}", "--project=.", "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr or done.stdout
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [
        f"{each['file']}:{each['range']['start']['line'] + 1}: {each['severity']}: "
        f"{' '.join(each['message'].split())}  [{each.get('rule', 'syntax')}]"
        for each in found
    ]


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None, package
    assert spec.origin is not None, package
    return Path(spec.origin).parent


def main() -> int:
    """Check this checkout; return the exit status."""
    texts = {}
    for path in sources(ROOT):
        text = (ROOT / path).read_text()
        texts[str(path)] = python_of(text) if path.suffix == ".md" else text
    found = list(problems(texts))
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
