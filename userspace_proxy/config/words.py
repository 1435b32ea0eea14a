"""Splits a command line into flags and other words, by the rules of kube-proxy's pflag.

``--name=value`` and ``--name value`` · ``--name`` alone for a boolean, which never uses
the next word · ``-v4``, ``-v 4``, ``-v=4``, ``-ojson`` · underscores are dashes · no
abbreviations, no single dash before a long name · ``--`` ends the flags.

argparse does none of the first four in this way.

Source: github.com/spf13/pflag; k8s.io/component-base/cli/flag, WordSepNormalizeFunc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ConfigError
from ..model.similar import did_you_mean


def split_words(
    words: Sequence[str], flags: Mapping[str, bool], *, command: str = ""
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (flag, value) pairs in their order, and the other words.

    Args:
        words: The command line without the program and the command.
        flags: Whether a flag needs a value, by name without dashes; a boolean gets ``true``.
        command: For the hint about an unknown flag.

    Raises:
        ConfigError: An unknown flag, or one without its value.
    """
    given: list[tuple[str, str]] = []
    others: list[str] = []
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            others.extend(reversed(rest))
            break
        if len(word) < 2 or not word.startswith("-"):
            others.append(word)
            continue
        name, equals, value = _name_and_value(word, flags, command)
        if not equals:
            if not flags[name]:
                value = "true"
            elif rest:
                value = rest.pop()
            else:
                raise ConfigError(f"{dashed(name)} needs a value")
        given.append((name, value))
    return given, others


def dashed(name: str) -> str:
    """Return a flag with its dashes."""
    return f"-{name}" if len(name) == 1 else f"--{name}"


def _name_and_value(word: str, flags: Mapping[str, bool], command: str) -> tuple[str, str, str]:
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
    else:
        name = word[1:].partition("=")[0]
        is_joined = flags.get(word[1], False) and name.replace("_", "-") not in flags
        if word[1] not in flags or not (len(name) == 1 or is_joined):
            raise _unknown(word, name, flags, command)
        name, value, equals = word[1], word[2:].removeprefix("="), word[2:3]
    normal = name.replace("_", "-")
    if normal not in flags:
        raise _unknown(word, normal, flags, command)
    return normal, equals, value


def _unknown(word: str, name: str, flags: Mapping[str, bool], command: str) -> ConfigError:
    shown = word.partition("=")[0]
    known = [flag for flag in flags if len(flag) > 1]
    name = name.replace("_", "-")
    hint = f"did you mean --{name}?" if name in known else did_you_mean(name, known, prefix="--")
    called = f"userspace-proxy {command} --help".replace("  ", " ")
    return ConfigError(f"unknown flag {shown}", hint=hint or f"{called} lists them")
