"""The checks of the code's form, on small trees."""

from __future__ import annotations

import ast
import functools
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from .form import (
    FOLDERS,
    PACKAGES,
    PARTLY,
    ROOT,
    find_open_matches,
    find_problems,
    parse_modules,
    report_sizes,
)

EMPTY = "\n"
KIT = "pytest-userspace-proxy/userspace_proxy_testing"


def problems(root: Path, files: Mapping[str, str], *, not_yet: Collection[str] = ()) -> list[str]:
    """Return what is found in a checkout with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return find_problems(parse_modules(root, FOLDERS), not_yet)


@functools.cache
def parsed_packages() -> Mapping[str, Sequence[ast.AST]]:
    """Return the syntax nodes of this checkout's packages, which takes seconds."""
    return parse_modules(ROOT, PACKAGES)


def package_problems(root: Path, **modules: str) -> list[str]:
    """Return what is found in a package with these modules; their names have ``_`` for ``/``."""
    files = {f"userspace_proxy/{name.replace('_', '/')}.py": modules[name] for name in modules}
    found = problems(root, files)
    return [line.removeprefix("userspace_proxy/") for line in found]


def test_sizes_are_reported_and_no_problem(tmp_path: Path) -> None:
    files = {f"userspace_proxy/part{n}/one.py": EMPTY * n for n in range(12)}
    files |= {"userspace_proxy/part1/deep/large.py": EMPTY * 5000, f"{KIT}/a.py": EMPTY * 9}
    files |= {f"{KIT}/fakes/b.py": EMPTY * 10, "tests/large.py": EMPTY * 5000}
    assert problems(tmp_path, files) == []
    report = list(report_sizes(tmp_path))
    assert len(report) == 2 * (1 + 10)
    assert report[:3] == [
        "longest modules, in lines:",
        "  5,000  userspace_proxy/part1/deep/large.py",
        "     11  userspace_proxy/part11/one.py",
    ]
    assert report[11:14] == [
        "largest subpackages, in lines:",
        "  5,001  userspace_proxy/part1",
        "     11  userspace_proxy/part11",
    ]
    assert f"     10  {KIT}/fakes" in report[11:]


@pytest.mark.parametrize("before", ["", "async ", "@cases([\n    1,\n])\n"])
def test_a_function_may_have_60_lines_without_its_decorators(before: str, tmp_path: Path) -> None:
    full, over = (f'{before}def f():\n    """Text.\n{EMPTY * n}    """\n' for n in (57, 58))
    line = before.count("\n") + 1
    files = {"tests/full.py": full, "tests/over.py": over}
    assert problems(tmp_path, files) == [f"tests/over.py:{line}: f has 61 lines, at most 60"]


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("from .b import thing", id="name"),
        pytest.param("from . import b", id="module"),
        pytest.param("from ..part import b", id="through-the-package"),
        pytest.param("import userspace_proxy.part.b", id="absolute"),
        pytest.param("if TYPE_CHECKING:\n    from .b import thing", id="types"),
        pytest.param("def f():\n    from .b import thing", id="in-a-function"),
    ],
)
def test_two_modules_that_import_each_other_are_a_cycle(imports: str, tmp_path: Path) -> None:
    b = "from userspace_proxy.part.a import thing"
    assert package_problems(tmp_path, part_a=imports, part_b=b) == [
        "part/a.py:1: import cycle: userspace_proxy.part.a imports userspace_proxy.part.b,"
        " userspace_proxy.part.b imports userspace_proxy.part.a"
    ]


def test_a_folder_that_imports_what_imports_it_is_a_cycle_without_one_of_modules(
    tmp_path: Path,
) -> None:
    files = {
        "userspace_proxy/part/core.py": "from .below.deep.a import thing",
        "userspace_proxy/part/middle.py": "from . import core",
        "userspace_proxy/part/below/b.py": "from ..middle import thing",
        "userspace_proxy/part/below/deep/a.py": "",
    }
    part = "userspace_proxy.part"
    assert problems(tmp_path, files) == [
        f"userspace_proxy/part/below/b.py:1: import cycle: {part}.below.b imports {part}.middle,"
        f" {part}.middle imports {part}.core, {part}.core imports {part}.below.deep.a"
    ]


def test_two_folders_that_import_each_other_are_a_cycle(tmp_path: Path) -> None:
    files = {
        "userspace_proxy/one/a.py": "from ..two import b",
        "userspace_proxy/one/c.py": "",
        "userspace_proxy/two/__init__.py": "from ..one.c import thing",
        "userspace_proxy/two/b.py": "",
    }
    assert problems(tmp_path, files) == [
        "userspace_proxy/one/a.py:1: import cycle: userspace_proxy.one.a imports"
        " userspace_proxy.two.b, userspace_proxy.two imports userspace_proxy.one.c"
    ]


def test_a_module_may_import_from_its_package_what_another_one_offers(tmp_path: Path) -> None:
    files = {
        "userspace_proxy/part/__init__.py": "from .a import thing",
        "userspace_proxy/part/a.py": "",
        "userspace_proxy/part/b.py": "from . import thing",
    }
    assert problems(tmp_path, files) == []


def test_a_module_that_imports_from_the_package_that_offers_it_is_a_cycle(tmp_path: Path) -> None:
    files = {
        "userspace_proxy/part/__init__.py": "from .a import thing",
        "userspace_proxy/part/a.py": "from . import other",
    }
    (found,) = problems(tmp_path, files)
    assert found.startswith("userspace_proxy/part/__init__.py:1: import cycle: ")


def test_a_cycle_in_the_test_kit_is_found(tmp_path: Path) -> None:
    files = {
        f"{KIT}/a.py": "from .part import b",
        f"{KIT}/part/b.py": "from userspace_proxy_testing import a",
    }
    (found,) = problems(tmp_path, files)
    assert found.startswith(f"{KIT}/a.py:1: import cycle: ")


def test_a_class_name_occurs_in_one_package_only(tmp_path: Path) -> None:
    files = {f"{KIT}/a.py": "class Noun: ...", "userspace_proxy/part/b.py": "class Noun: ..."}
    assert problems(tmp_path, files) == [
        f"{KIT}/a.py:1: class Noun exists 2 times",
        "userspace_proxy/part/b.py:1: class Noun exists 2 times",
    ]


def test_imports_in_one_direction_and_of_the_versions_module_are_no_cycle(tmp_path: Path) -> None:
    files = {
        "userspace_proxy/__init__.py": "from .part import thing",
        "userspace_proxy/part/__init__.py": "from .a import thing",
        "userspace_proxy/part/a.py": "from .. import __version__\nfrom . import b\nimport os",
        "userspace_proxy/part/b.py": "from os import path",
    }
    assert problems(tmp_path, files) == []


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("asyncio.create_task(run())", "create_task"),
        ("asyncio.ensure_future(run())", "ensure_future"),
        ("self._loop.create_task(run())", "create_task"),
        ("create_task(run())", "create_task"),
    ],
)
def test_a_task_is_started_in_one_module_only(call: str, name: str, tmp_path: Path) -> None:
    assert package_problems(tmp_path, agent_rounds_tasks=call, part_a=call) == [
        f"part/a.py:1: {name} outside of userspace_proxy/agent/rounds/tasks.py"
    ]


def test_a_task_group_starts_tasks_anywhere(tmp_path: Path) -> None:
    text = """\
    async def f():
        async with asyncio.TaskGroup() as group:
            group.create_task(run())
    """
    assert package_problems(tmp_path, part_a=text) == []


@pytest.mark.parametrize("base", ["Exception", "ValueError", "asyncio.CancelledError", "Local"])
def test_an_exception_outside_of_the_tree_is_found(base: str, tmp_path: Path) -> None:
    local = "class UserspaceProxyError(Exception): ...\nclass Local(OSError): ..."
    found = package_problems(tmp_path, errors=local, part_a=f"class Stray({base}): ...")
    assert found[-1] == "part/a.py:1: Stray doesn't derive from UserspaceProxyError"


def test_exceptions_below_the_root_and_other_classes_are_no_problem(tmp_path: Path) -> None:
    errors = "class UserspaceProxyError(Exception): ...\nclass Middle(UserspaceProxyError): ..."
    text = "class Leaf(Middle, ValueError): ...\nclass Plain(dict): ...\nclass Noun: ..."
    assert package_problems(tmp_path, errors=errors, part_a=text) == []


def test_a_class_name_that_occurs_twice_is_reported_for_both_files(tmp_path: Path) -> None:
    nested = "class Outer:\n    class Noun: ..."
    assert package_problems(tmp_path, part_a="class Noun: ...", part_b=nested) == [
        "part/a.py:1: class Noun exists 2 times",
        "part/b.py:2: class Noun exists 2 times",
    ]


def wide(count: int, first: int = 0) -> str:
    """Return the lines of an ``__init__`` that sets some attributes."""
    lines = [f"self.a{n} = self.a{n} = n" for n in range(first, first + count)]
    return "\n        ".join(["    def __init__(self):", *lines])


def test_an_object_may_have_25_attributes_which_methods_set(tmp_path: Path) -> None:
    more = "    def start(self):\n        self.a0, self.more = self._told.other = 1, 2"
    text = f"class Full:\n{wide(25)}\nclass Over:\n{wide(25)}\n{more}"
    line = text.split("\n").index("class Over:") + 1
    assert package_problems(tmp_path, part_a=text) == [
        f"part/a.py:{line}: an object of Over has 26 attributes, at most 25"
    ]


def test_attributes_of_base_classes_count(tmp_path: Path) -> None:
    base = f"class Base(Generic[T]):\n{wide(20)}"
    derived = f"class Derived(a.Base[int]):\n{wide(10, 20)}\nclass Last(Derived): ..."
    assert package_problems(tmp_path, part_a=base, part_b=derived) == [
        "part/b.py:1: an object of Derived has 30 attributes, at most 25",
        "part/b.py:13: an object of Last has 30 attributes, at most 25",
    ]


def test_a_row_of_data_may_have_more_attributes(tmp_path: Path) -> None:
    fields = "\n".join(f"    a{n}: int = 0" for n in range(40))
    init = wide(30).replace("__init__", "__post_init__")
    assert package_problems(tmp_path, part_a=f"@dataclass\nclass Row:\n{fields}\n{init}") == []


def test_a_listed_problem_is_exempt_and_an_entry_without_need_is_a_problem(tmp_path: Path) -> None:
    f, g = (f'def {name}():\n    """Text.\n{EMPTY * 58}    """\n' for name in "fg")
    listed = [f"tests/over.py: {name} has 61 lines, at most 60" for name in "fh"]
    assert problems(tmp_path, {"tests/over.py": f + g}, not_yet=listed) == [
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
        ("case Colour.RED, True: a()\n        case _, True: b()", False),
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


def test_modules_with_matches_over_some_members_have_one() -> None:
    assert {problem.path for problem in find_open_matches(parsed_packages(), ())} == PARTLY.keys()
