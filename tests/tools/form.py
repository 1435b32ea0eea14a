"""Reports the sizes of the packages, and checks the form of the code.

Run it as ``python -m tests.tools.form``. It prints the longest modules and the largest subpackages
of all packages for information; their size breaks no rule. Then it prints one line per problem, and
exits with status 1 if there are problems.

Rule 1: a function has at most 60 lines, in all packages, tests, benchmarks and examples. All lines
count, including docstrings. It starts at its ``def``, so a table of cases in a decorator doesn't
count.
Rule 2: the modules and subfolders of a folder don't import each other in a cycle. All modules below
a subfolder count as the subfolder, and a folder's ``__init__`` counts as one of its modules, so no
two modules import each other. Imports for types and inside functions count. The node package's own
``__init__`` is exempt, because it imports on first use.
Rule 3: background tasks are started by a TaskGroup, which raises failures, in rounds/tasks.py,
which reports them, in status/accepting.py, whose tasks only pass a socket to the event loop, in
plugin.py, whose callers await the task, or in connections.py, whose tasks end with a connection.
Rule 4: every exception class of the packages derives from UserspaceProxyError.
Rule 5: a class name occurs once in all packages.
Rule 6: an object has at most 25 attributes, counted as set on ``self`` by the methods of its class
and base classes. The rule is for classes with an ``__init__``; dataclasses and named tuples may
have more.
Rule 7: a match over members of an enum of the packages ends in ``case _: assert_never(…)``, so that
mypy finds each match that lacks a new member. Modules in PARTLY treat all other members alike.
Rule 8: tests run, compare values, and end: see ``tests_form``.
Rule 9: an area of the project stays within its budget of lines: see ``budgets``.
Rule 10: problems in NOT_YET are exempt until they are fixed. An unneeded entry is a problem. An
entry with a number exempts only that number, so that the problem can't grow.
"""

from __future__ import annotations

import ast
import builtins
import gc
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

from . import budgets, tests_form
from .problem import CLIENT, KIT, PACKAGE, Files, Problem

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (PACKAGE, CLIENT, KIT)
FOLDERS = (*PACKAGES, "tests", "benchmarks", "examples")
MAX_FUNCTION_LINES = 60
MAX_ATTRIBUTES = 25
REPORTED = 10
"""The number of modules, and of subpackages, in the report."""
TASKS = (
    f"{PACKAGE}/agent/rounds/tasks.py",
    f"{PACKAGE}/status/accepting.py",
    f"{PACKAGE}/sources/kubernetes/plugin.py",
    f"{KIT}/connections.py",
)
ROOT_EXCEPTION = "UserspaceProxyError"
PARTLY: Mapping[str, str] = {
    f"{PACKAGE}/filters/rules.py": "what isn't read is unknown, and judged as such",
    f"{PACKAGE}/names/resolver.py": "a name has no record of other types, which clients ask for",
}
"""Modules whose matches cover only some members of an enum, each with the reason."""
_STARTERS = ("create_task", "ensure_future")


Link = tuple[str, str]
"""The names of a module and of a module that it imports."""

NOT_YET: Mapping[str, str] = {}
"""Problems that remain to be fixed, without their line numbers, and the reason."""


def parse_modules(root: Path, folders: Iterable[str]) -> Files:
    """Return the syntax nodes of each module below some folders."""
    texts = read_modules(root, folders)
    return {path: list(ast.walk(ast.parse(text))) for path, text in texts.items()}


def find_problems(parsed: Files, not_yet: Collection[str]) -> list[str]:
    """Return all problems of a checkout's modules, one line each, sorted by file.

    Args:
        not_yet: Like NOT_YET.
    """
    package = {path: nodes for path, nodes in parsed.items() if package_of(path)}
    problems = {
        *find_long_functions(parsed),
        *find_import_cycles(package),
        *find_stray_tasks(package),
        *find_stray_exceptions(package),
        *find_repeated_classes(package),
        *find_wide_classes(package),
        *find_open_matches(package, PARTLY),
    }
    found = {problem.without_line for problem in problems}
    return [
        *(str(problem) for problem in sorted(problems) if problem.without_line not in not_yet),
        *(f"in NOT_YET without need: {entry}" for entry in sorted(set(not_yet) - found)),
    ]


def find_unneeded(parsed: Files) -> Iterator[str]:
    """Yield the modules in PARTLY that need no exemption."""
    package = {path: nodes for path, nodes in parsed.items() if package_of(path)}
    needed = {problem.path for problem in find_open_matches(package, ())}
    yield from (f"listed without need: {path}" for path in sorted(PARTLY.keys() - needed))


def read_modules(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Return the text of each module below some folders, by its path."""
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for folder in folders
        for path in (root / folder).rglob("*.py")
    }


def report_sizes(root: Path) -> Iterator[str]:
    """Yield the longest modules and the largest subpackages of a checkout, one line each."""
    modules, subpackages = Counter[str](), Counter[str]()
    for path, text in read_modules(root, PACKAGES).items():
        modules[path] = len(text.splitlines())
        if (subpackage := subpackage_of(path)) != package_of(path):
            subpackages[subpackage] += modules[path]
    for title, sizes in (("longest modules", modules), ("largest subpackages", subpackages)):
        yield f"{title}, in lines:"
        for name, lines in sizes.most_common(REPORTED):
            yield f"{lines:7,}  {name}"


def package_of(path: str) -> str:
    """Return the folder of the package to which a file belongs; empty for other files."""
    return next((package for package in PACKAGES if path.startswith(f"{package}/")), "")


def subpackage_of(path: str) -> str:
    """Return the folder of the subpackage, or else of the package, to which a file belongs."""
    package = package_of(path)
    member, below, _ = path.removeprefix(f"{package}/").partition("/")
    return f"{package}/{member}" if below else package


def find_long_functions(files: Files) -> Iterator[Problem]:
    """Yield the functions with more than MAX_FUNCTION_LINES lines."""
    for path, nodes in files.items():
        for node in nodes:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                what = f"{node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"
                yield Problem(path, node.lineno, what)


def find_import_cycles(files: Files) -> Iterator[Problem]:
    """Yield one problem for each import cycle in a folder, at one of the importing files.

    If a module is in several cycles, reporting all of them may require several runs.
    """
    paths = {name_of(path): path for path in files if path != f"{PACKAGE}/__init__.py"}
    folders: dict[str, dict[str, dict[str, Link]]] = {}
    for name, path in sorted(paths.items()):
        for imported in imported_by(path, files[path], paths):
            if imported != name:
                folder, importer, member = siblings(path, paths[imported])
                links = folders.setdefault(folder, {}).setdefault(importer, {})
                links.setdefault(member, (name, imported))
    for graph in folders.values():
        for cycle in cycles_of(graph):
            what = ", ".join(f"{name} imports {imported}" for name, imported in cycle)
            yield Problem(paths[cycle[0][0]], 1, f"import cycle: {what}")


def siblings(path: str, other: str) -> tuple[str, str, str]:
    """Return the innermost common folder of two files, and the members of it that contain them."""
    parts, others = path.split("/"), other.split("/")
    depth = next(n for n, part in enumerate(parts) if part != others[n])
    return "/".join(parts[:depth]), parts[depth], others[depth]


def cycles_of(graph: dict[str, dict[str, Link]]) -> Iterator[list[Link]]:
    """Yield the imports of each cycle in order, and remove one of them from the graph.

    Args:
        graph: For each member of a folder, the imported members, each with one of the imports."""
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            # Each member of the list is imported by the following member.
            cycle: list[str] = error.args[1][::-1]
            links = [graph[member][imported] for member, imported in pairwise(cycle)]
            first = links.index(min(links))
            yield links[first:] + links[:first]
            del graph[cycle[0]][cycle[1]]
        else:
            return


def imported_by(path: str, nodes: Iterable[ast.AST], modules: Collection[str]) -> Iterator[str]:
    """Yield the names of the given modules that a file imports anywhere."""
    package = name_of(path) if path.endswith("/__init__.py") else name_of(path).rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                if (imported := name if name in modules else base) in modules:
                    yield imported


def name_of(path: str) -> str:
    """Return the dotted name of a module of a package."""
    path = path.removeprefix(package_of(path).rpartition("/")[0]).removeprefix("/")
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def find_stray_tasks(files: Files) -> Iterator[Problem]:
    """Yield calls that start a background task outside TASKS and without a TaskGroup."""
    for path, nodes in files.items():
        if path in TASKS:
            continue
        groups = set(task_groups(nodes))
        for node in nodes:
            match node:
                case ast.Call(func=ast.Name(name)):
                    owner = ""
                case ast.Call(func=ast.Attribute(value, name)):
                    owner = ast.unparse(value) if name in _STARTERS else ""
                case _:
                    continue
            if name in _STARTERS and owner not in groups:
                yield Problem(path, node.lineno, f"{name} outside of {TASKS[0]}")


def task_groups(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that ``async with TaskGroup() as NAME`` binds."""
    for node in nodes:
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                if item.optional_vars and "TaskGroup(" in ast.unparse(item.context_expr):
                    yield ast.unparse(item.optional_vars)


def find_stray_exceptions(files: Files) -> Iterator[Problem]:
    """Yield the exception classes that don't derive from ROOT_EXCEPTION."""
    classes = list(classes_of(files))
    known = {node.name: node for _, node in classes}
    for path, node in classes:
        above = set(lineage(node.name, known))
        if ROOT_EXCEPTION not in above and any(map(is_exception, above - known.keys())):
            what = f"{node.name} doesn't derive from {ROOT_EXCEPTION}"
            yield Problem(path, node.lineno, what)


def is_exception(name: str) -> bool:
    """Return whether a class from outside the package is an exception, by its name."""
    known = getattr(builtins, name, None)
    if isinstance(known, type):
        return issubclass(known, BaseException)
    return name.endswith(("Error", "Exception"))


def find_repeated_classes(files: Files) -> Iterator[Problem]:
    """Yield each class whose name is also the name of another class."""
    places: dict[str, list[tuple[str, int]]] = {}
    for path, node in classes_of(files):
        places.setdefault(node.name, []).append((path, node.lineno))
    for name, found in places.items():
        if len(found) > 1:
            for path, line in found:
                yield Problem(path, line, f"class {name} exists {len(found)} times")


def find_wide_classes(files: Files) -> Iterator[Problem]:
    """Yield the classes with an ``__init__`` whose objects have more than MAX_ATTRIBUTES."""
    classes = list(classes_of(files))
    known = {node.name: node for _, node in classes}
    for path, node in classes:
        parts = [known[name] for name in lineage(node.name, known) if name in known]
        names = {name for part in parts for name in attributes_of(part)}
        if len(names) > MAX_ATTRIBUTES and any(map(has_init, parts)):
            counts = f"{len(names)} attributes, at most {MAX_ATTRIBUTES}"
            yield Problem(path, node.lineno, f"an object of {node.name} has {counts}")


def find_open_matches(files: Files, partly: Collection[str]) -> Iterator[Problem]:
    """Yield the matches over members of an enum that don't end in ``assert_never``.

    Args:
        partly: Like PARTLY.
    """
    classes = list(classes_of(files))
    known = {node.name: node for _, node in classes}
    enums = {name for name in known if any(map(_is_enum, lineage(name, known)))}
    for path, nodes in files.items():
        for node in nodes if path not in partly else ():
            if not isinstance(node, ast.Match):
                continue
            about = {name for case in node.cases for name in _owners_of(case.pattern)} & enums
            last = node.cases[-1]
            is_closed = ast.unparse(last).startswith("case _:\n    assert_never(")
            if about and not is_closed:
                what = f"a match over {min(about)} doesn't end in assert_never"
                yield Problem(path, node.lineno, what)


def _is_enum(name: str) -> bool:
    return name in ("Enum", "StrEnum", "IntEnum")


def _owners_of(pattern: ast.pattern) -> Iterator[str]:
    """Yield the classes of the constants with which a pattern compares its subject or parts."""
    match pattern:
        case ast.MatchValue(ast.Attribute(ast.Name(name))):
            yield name
        case ast.MatchOr(parts) | ast.MatchSequence(parts):
            for part in parts:
                yield from _owners_of(part)


def attributes_of(node: ast.ClassDef) -> Iterator[str]:
    """Yield the attributes that a class's own methods set, once per assignment."""
    for part in ast.walk(node):
        match part:
            case ast.Attribute(ast.Name("self"), name, ast.Store()):
                yield name


def has_init(node: ast.ClassDef) -> bool:
    return any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body)


def lineage(name: str, known: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    """Yield a class and its direct and indirect base classes, by their last names.

    Args:
        known: The classes whose bases are followed, by name.
    """
    yield name
    for base in known[name].bases if name in known else ():
        yield from lineage(ast.unparse(base).partition("[")[0].rpartition(".")[2], known)


def classes_of(files: Files) -> Iterator[tuple[str, ast.ClassDef]]:
    for path, nodes in files.items():
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                yield path, node


def main() -> int:
    """Report and check this checkout; return the exit status."""
    # Otherwise, garbage collection of millions of syntax nodes would take most of the time.
    gc.disable()
    for line in report_sizes(ROOT):
        sys.stdout.write(f"{line}\n")
    areas = budgets.read_areas((ROOT / budgets.TABLE).read_text())
    lines = budgets.count_lines(areas, read_modules(ROOT, (*PACKAGES, "tests")))
    for line in budgets.report(areas, lines):
        sys.stdout.write(f"{line}\n")
    parsed = parse_modules(ROOT, FOLDERS)
    problems = [*find_problems(parsed, NOT_YET), *find_unneeded(parsed)]
    problems += tests_form.find_problems(ROOT, parsed)
    problems += budgets.find_problems(areas, lines)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
