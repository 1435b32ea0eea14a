"""Checks that nothing is read in texts that the packages have written.

Rule 1: nothing searches, splits or replaces in text that the packages have written for people: what
a program must know is a value beside it. This finds attributes and calls whose names are TEXTS,
what a function binds to them, or to one of SEVERAL_TEXTS, and NAMES, where methods that are READERS
are called on them, where something is looked for in them, and where they are compared with words.
Rule 2: it finds the same of a text that a function has just written, with a blank in a literal
part, or that another function of its module has, and of READERS that look for several words.
Modules in READING read words of other programs, or write for a notation that has blanks.
Rule 3: nothing splits the text of an identity of ours, which is a value before it is a text: that
of a table or a label (IDENTITIES), of a Service where it is an attribute (ATTRIBUTES), and of
whatever is called so or by one of KEYS at a blank, which only a text of several parts has.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping

from .problem import KIT, PACKAGE, Files, Problem

TEXTS = (
    "cause", "chain", "hint", "message", "object", "problem", "remedy", "say", "say_before",
    "sentence", "sentence_at", "sentence_of", "target", "verdict", "what", "why",
)  # fmt: skip
"""The names of attributes and functions that are sentences, or return them."""
SEVERAL_TEXTS = ("notes", "problems")
"""The names of attributes that are several sentences, or values in place of them."""
NAMES = ("note",)
"""The names of variables that were sentences, and are values."""
READERS = (
    "count", "endswith", "find", "findall", "finditer", "fullmatch", "index", "match", "partition",
    "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "search",
    "split", "startswith", "sub",
)  # fmt: skip
"""Methods of texts and patterns that look into a text."""
_OF_PATTERNS = ("findall", "finditer", "fullmatch", "match", "search", "sub")
IDENTITIES = ("label", "reference", "table")
"""The names of attributes and variables that are the text of an identity of several parts."""
ATTRIBUTES = ("service",)
"""Those that are one as an attribute; as a variable they may be what a user has typed."""
KEYS = (*IDENTITIES, *ATTRIBUTES, "chain", "key", "name", "port", "service_port")
"""The names of what has no blank, unless it is the text of several parts."""
_SPLITTING = ("partition", "rpartition", "rsplit", "split")
_CUTTING = (*_SPLITTING, "removeprefix", "removesuffix", "startswith")
WRITERS = ("capitalised", "listed", "plural", "say", "format_seconds", "sentence_of")
"""Functions of other modules that write a text for people."""
READING: Mapping[str, str] = {
    f"{KIT}/commands/demo_commands.py": "what a test prints begins with the name of a stream",
    f"{KIT}/commands/sandbox_proxy.py": "what another process prints",
    f"{KIT}/sandbox/backend_process.py": "what another process prints",
    f"{KIT}/sandbox/backends.py": "a module's docstring, of which its help is made",
    f"{KIT}/sandbox/namespace.py": "errors of the program ip",
    f"{PACKAGE}/agent/after_hand_over.py": "the last line of a process that ended by an exception",
    f"{PACKAGE}/kernel/memory_limits.py": "the kernel's list of mounts",
    f"{PACKAGE}/model/wire.py": "msgspec's errors",
    f"{PACKAGE}/sources/kubernetes/responses.py": "the API server's messages",
    f"{PACKAGE}/status/chart.py": "the notation of SVG",
    f"{PACKAGE}/steering/iptables/legacy_table.py": "what iptables-save prints",
}
"""Modules that look for several words, and whose words these are."""


def find_parsed_texts(files: Files) -> Iterator[Problem]:
    """Yield where a text that is written for people is searched, split, replaced or compared in."""
    for path, nodes in files.items():
        sets = set(word_sets(nodes))
        bound = {id(name): text for node in nodes for name, text in bound_texts(node)}
        for node in nodes:
            match node:
                case ast.Call(ast.Attribute(text, name), args, keywords) if name in READERS:
                    # A value's own replace() has keywords; bytes are no text for people.
                    are_bytes = any(isinstance(getattr(arg, "value", ""), bytes) for arg in args)
                    texts = [] if are_bytes or (keywords and not args) else [text, *args]
                case ast.Compare(left, ops, comparators):
                    pairs = list(zip(ops, comparators, strict=True))
                    texts = [right for op, right in pairs if isinstance(op, ast.In | ast.NotIn)]
                    if any(is_words(right, sets) for _, right in pairs):
                        texts.append(left)
                case _:
                    continue
            for text in texts:
                if name := name_of_text(text) or bound.get(id(text), ""):
                    what = f"text is parsed: {name} is written for people"
                    yield Problem(path, node.lineno, what)


def find_split_identities(files: Files) -> Iterator[Problem]:
    """Yield where the text of an identity is split, or its beginning looked at."""
    for path, nodes in files.items():
        for node in nodes:
            match node:
                case ast.Call(ast.Attribute(text, method), [separator, *_]):
                    if name := _split_identity(text, method, separator):
                        what = f"text is parsed: {name} is an identity, whose parts are values"
                        yield Problem(path, node.lineno, what)


def _split_identity(text: ast.expr, method: str, separator: ast.expr) -> str:
    """Return the name of the identity whose text a method reads; empty if it reads none."""
    match text:
        case ast.Attribute(_, name):
            is_identity = name in (*IDENTITIES, *ATTRIBUTES)
        case ast.Name(name):
            is_identity = name in IDENTITIES
        case _:
            return ""
    is_at_blank = isinstance(separator, ast.Constant) and separator.value == " "
    is_split = method in _SPLITTING and (is_identity or (is_at_blank and name in KEYS))
    is_cut = method in _CUTTING and name in IDENTITIES
    return name if is_split or is_cut else ""


def bound_texts(function: ast.AST) -> Iterator[tuple[ast.Name, str]]:
    """Yield the uses of a function's names that are bound to such a text, or to one of several."""
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    texts: dict[str, str] = {}
    for part in ast.walk(function):
        match part:
            case ast.comprehension(ast.Name(name), value) | ast.For(ast.Name(name), value):
                found = getattr(value, "attr", "")
                found = found if found in SEVERAL_TEXTS else ""
            case ast.Assign([ast.Name(name)], value) | ast.NamedExpr(ast.Name(name), value):
                values = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                found = next(filter(None, map(name_of_text, values)), "")
            case _:
                continue
        if found:
            texts[name] = found
    for part in ast.walk(function):
        if isinstance(part, ast.Name) and part.id in texts:
            yield part, texts[part.id]


def word_sets(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names of the module's constants that are collections of words."""
    for node in nodes:
        match node:
            case ast.Assign([ast.Name(name)], value) if name.isupper():
                words = [part for part in ast.walk(value) if isinstance(part, ast.Constant)]
                if words and all(isinstance(word.value, str) for word in words):
                    yield name


def is_words(node: ast.AST, sets: Collection[str]) -> bool:
    """Return whether something is a word, or one of several."""
    match node:
        case ast.Constant(str(word)):
            return bool(word)
        case ast.Name(name):
            return name in sets
        case ast.Tuple(parts) | ast.Set(parts) | ast.List(parts):
            return any(is_words(part, sets) for part in parts)
    return False


def name_of_text(node: ast.AST) -> str:
    """Return the name of a text that is written for people; empty for anything else."""
    match node:
        case ast.Attribute(_, name) | ast.Call(ast.Name(name) | ast.Attribute(_, name)):
            return name if name in TEXTS else ""
        case ast.Name(name):
            return name if name in NAMES else ""
    return ""


def find_parsed_words(files: Files, reading: Collection[str]) -> Iterator[Problem]:
    """Yield where words are looked for in a text, or a text that was just written is read.

    Args:
        reading: As READING.
    """
    for path, nodes in files.items():
        if path in reading:
            continue
        writers = set(writers_of(nodes))
        written = {id(name) for node in nodes for name in written_names(node, writers)}
        for node in nodes:
            for what in _read_words(node, writers, written):
                yield Problem(path, getattr(node, "lineno", 0), f"text is parsed: {what}")


def _read_words(node: ast.AST, writers: Collection[str], written: Collection[int]) -> Iterator[str]:
    match node:
        case ast.Call(ast.Attribute(text, name), args) if name in READERS:
            # What is replaced, or searched for, is first; what replaces it may be anything.
            if args and (words := _several_words(args[0])):
                yield f"{words!r} is looked for"
            # Without an argument it makes one line of a text.
            are_lines = name == "split" and not args
            # The first argument of sub() is what replaces.
            searched = args[name == "sub" :] if name in _OF_PATTERNS else []
            texts = [] if are_lines else [text, *searched]
        case ast.Compare(left, [ast.In() | ast.NotIn()], [text]):
            if words := _several_words(left):
                yield f"{words!r} is looked for"
            texts = [text]
        case ast.Compare(text, [ast.Eq() | ast.NotEq()], [right]):
            words = "" if isinstance(right, ast.JoinedStr) else _several_words(right)
            if words:
                yield f"it is compared with {words!r}"
            texts = []
        case _:
            return
    if any(id(text) in written or is_written(text, writers) for text in texts):
        yield "it was just written"


def _several_words(node: ast.AST) -> str:
    """Return a literal that has a letter and a blank; empty for any other thing."""
    parts = getattr(node, "elts", getattr(node, "values", [node]))
    texts = [one.value for one in parts if isinstance(one, ast.Constant)]
    words = [one for one in texts if isinstance(one, str) and " " in one]
    return next((one for one in words if any(map(str.isalpha, one))), "")


def is_written(node: ast.AST, writers: Collection[str]) -> bool:
    """Return whether an expression is a text with a blank that is written there.

    Args:
        writers: The functions that return one.
    """
    match node:
        case ast.JoinedStr(parts):
            texts = (getattr(part, "value", "") for part in parts)
            return any(isinstance(text, str) and " " in text for text in texts)
        case ast.Call(ast.Name(name)):
            return name in writers
        case ast.Call(ast.Attribute(ast.Constant(str(between)), "join"), [parts]):
            # " ".join(text.split()) is a text of another program on one line.
            return " " in between and not isinstance(getattr(parts, "func", None), ast.Attribute)
        case ast.IfExp(_, one, other):
            return is_written(one, writers) or is_written(other, writers)
    return False


def writers_of(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the functions of a module that return a text with a blank, and WRITERS."""
    yield from WRITERS
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            parts = [part for part in ast.walk(node) if isinstance(part, ast.Return)]
            if any(part.value and is_written(part.value, WRITERS) for part in parts):
                yield node.name


def written_names(function: ast.AST, writers: Collection[str]) -> Iterator[ast.Name]:
    """Yield the uses of a function's names that are bound to such a text."""
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    texts = {
        target.id
        for part in ast.walk(function)
        if isinstance(part, ast.Assign) and is_written(part.value, writers)
        for target in part.targets
        if isinstance(target, ast.Name)
    }
    for part in ast.walk(function):
        if isinstance(part, ast.Name) and part.id in texts:
            yield part
