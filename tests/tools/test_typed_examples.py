"""The check of the examples' types."""

from __future__ import annotations

import pytest

from .typed_examples import problems, python_of

PAGE = """\
# A page

```console
$ pytest
```

```python
x: int = 1
```

Text.

```python
print(x)
```
"""


def test_the_blocks_of_a_page_make_one_file_with_the_pages_line_numbers() -> None:
    lines = python_of(PAGE).splitlines()
    assert len(lines) == len(PAGE.splitlines())
    assert {number: line for number, line in enumerate(lines, 1) if line} == {
        8: "x: int = 1",
        14: "print(x)",
    }


@pytest.mark.long
def test_each_type_checker_reports_what_is_wrong_and_where() -> None:
    only_pyright = "\nif input():\n    why = 1\nprint(why)\n"
    only_mypy = "def answer() -> str:\n    return __import__('json').loads('1')\n"
    found = list(
        problems(
            {
                "README.md": only_pyright,
                "examples/a/test_it.py": only_mypy,
                "examples/b/test_it.py": "x: int = 'one'  # type: ignore\n",
            }
        )
    )
    places = [problem.rpartition("[")[2] for problem in found[1:]]
    assert found[0].startswith("examples/b/test_it.py:1: an example has no comment")
    assert [problem.partition(": ")[0] for problem in found[1:]] == [
        "examples/a/test_it.py:2",
        "README.md:4",
    ], found
    assert places == ["no-any-return]", "reportPossiblyUnboundVariable]"]
