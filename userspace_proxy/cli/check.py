"""``userspace-proxy check``: reports problems that ``run`` with the same flags would have.

    warning  routes: programs on this node can't dial 10.96.0.0/12: … -> ip route add …
    ok       steering: auto chooses nftables: …

It changes nothing. An unreadable file is a finding (exit 1), an invalid flag is wrong
usage (exit 2).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.flags import Flags, read_flags
from ..config.load import Loaded, load_flags
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..check import Finding

_FORMS = ("text", "json")
_OUTPUT = ("-o", "--output")


def check(words: Sequence[str]) -> int:
    """Print the findings; return the exit status, 1 if one is an error.

    Raises:
        ConfigError: A flag is wrong.
    """
    form, rest = take_output(words)
    flags = read_flags(rest, command="check")
    if flags.wants_help:
        from .help import help_text

        print(help_text("check"))
        return 0
    findings = _look(flags)

    from ..check import Mark, worst

    print(render_json(findings) if form == "json" else render_text(findings))
    return 1 if worst(findings) is Mark.ERROR else 0


def take_output(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the form given by ``-o``, and the other words.

    Raises:
        ConfigError: There is no such form.
    """
    form = "text"
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith(_OUTPUT[0]) and word != _OUTPUT[0] and not equals:
            # As for kubectl: -ojson.
            name, equals, value = _OUTPUT[0], "=", word.removeprefix(_OUTPUT[0])
        if name not in _OUTPUT:
            rest.append(word)
            continue
        form = value if equals else (left.pop(0) if left else "")
        if form not in _FORMS:
            raise ConfigError(f"{name}: {form!r} is not an output format", hint="use text or json")
    return form, rest


def render_text(findings: Sequence[Finding]) -> str:
    """Return one line per finding, and one with their counts."""
    counts = {mark: sum(f.mark == mark for f in findings) for mark in ("error", "warning", "ok")}
    words = ", ".join(f"{count} {mark}" for mark, count in counts.items())
    return "\n".join([*map(str, findings), words])


def render_json(findings: Sequence[Finding]) -> str:
    """Return an object with the worst mark and all findings."""
    from ..check import worst

    answer = {"mark": worst(findings), "findings": [dataclasses.asdict(f) for f in findings]}
    return json.dumps(answer, indent=2, ensure_ascii=False)


def _look(flags: Flags) -> list[Finding]:
    from ..check import check_settings

    problem = None
    try:
        loaded = load_flags(flags)
    except ConfigError as exc:
        problem, loaded = exc, _without_file(flags)
    return check_settings(loaded.settings, loaded.warnings, problem)


def _without_file(flags: Flags) -> Loaded:
    """Return the settings of the flags alone, so that the rest can be checked.

    Raises:
        ConfigError: The flags are invalid.
    """
    values = {name: value for name, value in flags.values.items() if name != "config_file"}
    return load_flags(dataclasses.replace(flags, values=values))
