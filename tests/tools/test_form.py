"""The checks of the code's form, on small trees."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from .form import (
    FOLDERS,
    find_problems,
    parse_modules,
)

EMPTY = "\n"
KIT = "pytest-userspace-proxy/userspace_proxy_testing"
PROXY = "userspace_proxy"


def problems(root: Path, files: Mapping[str, str], *, not_yet: Collection[str] = ()) -> list[str]:
    """Return what is found in a checkout with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return find_problems(parse_modules(root, FOLDERS), not_yet)


def function(lines: int, name: str = "f") -> str:
    return f'def {name}():\n    """Text.\n{EMPTY * (lines - 3)}    """\n'


def wide(count: int, first: int = 0, name: str = "__init__") -> str:
    """Return the lines of a method that sets some attributes."""
    lines = [f"self.a{n} = self.a{n} = n" for n in range(first, first + count)]
    return "\n        ".join([f"    def {name}(self):", *lines])


CYCLE = (
    f"import cycle: {PROXY}.part.a imports {PROXY}.part.b, {PROXY}.part.b imports {PROXY}.part.a"
)
FROM_A = f"from {PROXY}.part.a import thing"
TASKS = f"{PROXY}/agent/rounds/tasks.py"
GROUP = (
    "async def f():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(run())"
)
TREE = "class UserspaceProxyError(Exception): ...\n"
FIELDS = "\n".join(f"    a{n}: int = 0" for n in range(40))
FOUND: Mapping[str, tuple[Mapping[str, str], Sequence[str]]] = {
    "60-lines": ({"tests/a.py": function(60)}, []),
    "61-lines": ({"tests/a.py": function(61)}, [":1: f has 61 lines, at most 60"]),
    "decorated": ({"tests/a.py": f"@cases([\n])\n{function(60)}"}, []),
    **{
        f"cycle-by-{name}": ({f"{PROXY}/part/a.py": text, f"{PROXY}/part/b.py": FROM_A}, [CYCLE])
        for name, text in {
            "module": "from . import b",
            "absolute": f"import {PROXY}.part.b",
            "function": "def f():\n    from .b import thing",
        }.items()
    },
    "cycle-of-two-folders": (
        {
            f"{PROXY}/one/a.py": "from ..two import b",
            f"{PROXY}/one/c.py": "",
            f"{PROXY}/two/__init__.py": "from ..one.c import thing",
            f"{PROXY}/two/b.py": "",
        },
        [f"one/a.py:1: import cycle: {PROXY}.one.a imports {PROXY}.two.b, "],
    ),
    "no-cycle-by-what-a-package-offers": (
        {
            f"{PROXY}/__init__.py": "from .part import thing",
            f"{PROXY}/part/__init__.py": "from .a import thing",
            f"{PROXY}/part/a.py": "from .. import __version__\nimport os",
            f"{PROXY}/part/b.py": "from . import thing",
        },
        [],
    ),
    "classes": (
        {f"{KIT}/a.py": "class A: ...", f"{PROXY}/b.py": "class Outer:\n    class A: ..."},
        ["a.py:1: class A exists 2 times", "b.py:2: class A exists 2 times"],
    ),
    **{
        f"task-by-{call}": (
            {TASKS: call, f"{PROXY}/a.py": call},
            [f"{PROXY}/a.py:1: {call.partition('(')[0].rpartition('.')[2]} outside of {TASKS}"],
        )
        for call in (
            "asyncio.ensure_future(run())",
            "self._loop.create_task(run())",
        )
    },
    "task-of-a-group": ({f"{PROXY}/a.py": GROUP}, []),
    **{
        f"exception-of-{base}": (
            {f"{PROXY}/errors.py": TREE, f"{PROXY}/part/a.py": f"class Stray({base}): ..."},
            ["a.py:1: Stray doesn't derive from UserspaceProxyError"],
        )
        for base in ("ValueError", "asyncio.CancelledError")
    },
    "exceptions-below-the-root": (
        {
            f"{PROXY}/errors.py": f"{TREE}class Middle(UserspaceProxyError): ...",
            f"{PROXY}/a.py": "class Leaf(Middle, ValueError): ...\nclass Plain(dict): ...",
        },
        [],
    ),
    "attributes-by-a-method": (
        {f"{PROXY}/a.py": f"class Over:\n{wide(25)}\n{wide(1, 25, 'start')}"},
        ["a.py:1: an object of Over has 26 attributes, at most 25"],
    ),
    "attributes-of-bases": (
        {
            f"{PROXY}/a.py": f"class Base(Generic[T]):\n{wide(20)}",
            f"{PROXY}/b.py": f"class Derived(a.Base[int]):\n{wide(10, 20)}",
        },
        ["b.py:1: an object of Derived has 30 attributes, at most 25"],
    ),
    "parsed-texts": (
        {
            f"{PROXY}/a.py": "def f(one): return one.hint.split(';')",
            f"{PROXY}/b.py": "def f(one): return one.name.split('/')",
            f"{PROXY}/c.py": "def f(one): return one.service.partition(' ')",
        },
        ["a.py:1: ", "c.py:1: "],
    ),
    "row-of-data": ({f"{PROXY}/a.py": f"class Row:\n{FIELDS}\n{wide(30, 0, 'post')}"}, []),
}


@pytest.mark.parametrize(("files", "expected"), FOUND.values(), ids=FOUND)
def test_what_breaks_a_rule_is_found_and_nothing_else(
    files: Mapping[str, str], expected: Sequence[str], tmp_path: Path
) -> None:
    found = problems(tmp_path, files)
    assert len(found) == len(expected), found
    assert all(part in line for part, line in zip(expected, found, strict=True)), found


def test_a_listed_problem_is_exempt_and_an_entry_without_need_is_a_problem(tmp_path: Path) -> None:
    listed = [f"tests/over.py: {name} has 61 lines, at most 60" for name in "fh"]
    files = {"tests/over.py": function(61) + function(61, "g")}
    assert problems(tmp_path, files, not_yet=listed) == [
        "tests/over.py:62: g has 61 lines, at most 60",
        "in NOT_YET without need: tests/over.py: h has 61 lines, at most 60",
    ]


ENUM = """
    import enum
    class Colour(enum.StrEnum):
        RED = "red"
        BLUE = "blue"
    """


@pytest.mark.parametrize(
    ("cases", "is_closed"),
    [
        ("case Colour.RED: a()\n        case _: assert_never(colour)", True),
        ("case Colour.RED | Colour.BLUE: a()\n        case _: b()", False),
        ("case Colour.RED: a()\n        case Colour.BLUE: b()", False),
        ("case other.RED: a()\n        case 7: b()", True),
    ],
)
def test_a_match_over_an_enum_ends_in_assert_never(
    cases: str, is_closed: bool, tmp_path: Path
) -> None:
    user = f"def f(colour):\n    match colour:\n        {cases}\n"
    files = {"userspace_proxy/colours.py": ENUM, f"{KIT}/user.py": user}
    what = f"{KIT}/user.py:2: a match over Colour doesn't end in assert_never"
    assert problems(tmp_path, files) == ([] if is_closed else [what])
