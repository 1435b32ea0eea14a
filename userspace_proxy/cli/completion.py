"""Writes scripts that complete commands and flags in bash, zsh and fish.

The scripts contain commands, flags and values from the tables of commands and settings. For names
of namespaces and Services, and for search words, they call the command ``complete``. A line without
a command is completed like ``run``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

from .command import PROGRAM, Command, CommandFlag
from .help import all_flags, setting_flags

PLUGIN = "kubectl-userspace_proxy"
_PATH = "PATH"
_COMMAND = "[COMMAND]"
_DEFAULT = "run"


def completion_script(shell: str, commands: Sequence[Command]) -> str:
    """Return the script for ``bash``, ``zsh`` or ``fish``."""
    return "\n".join([*_SHELLS[shell](commands), ""])


def _choices(command: Command, commands: Sequence[Command]) -> tuple[str, ...]:
    if command.arguments == _COMMAND:
        return tuple(other.name for other in commands if other is not command)
    return command.choices


def _names(flag: CommandFlag) -> list[str]:
    short = [f"-{flag.short}"] if flag.short else []
    return [f"--{flag.name}", *short]


_BASH = """\
# bash completion for userspace-proxy: source it, or write it to /etc/bash_completion.d/
_userspace_proxy_names() {
    local names
    names=$("${line[0]}" complete "$1" -- "${line[@]:1}" 2>/dev/null)
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current")
    # bash replaces what follows the last colon.
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
    # A qualifier of a search is followed by its value.
    [[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace
}
_userspace_proxy() {
    # bash splits words at signs and colons.
    local typed=${COMP_LINE:0:COMP_POINT}
    local -a line
    read -ra line <<< "$typed"
    [[ $typed == *[[:space:]] ]] && line+=("")
    local last=$((${#line[@]} - 1))
    local current=${line[last]} previous=${line[last - 1]} command=${line[1]} words=
    if [[ $current == --*=* ]]; then
        previous=${current%%=*}
        current=${current#*=}
    fi
    [[ $command == -* || $last -eq 1 ]] && command=run
    case "$command $previous" in"""


def _bash(commands: Sequence[Command]) -> Iterator[str]:
    yield _BASH
    patterns: dict[str, list[str]] = {}
    own = [(f"'{command.name}", flag) for command in commands for flag in command.flags]
    settings = [("*'", flag) for _, flags in setting_flags() for flag in flags]
    for start, flag in (*own, *settings):
        if flag.value:
            names = [f"{start} {name}'" for name in _names(flag)]
            patterns.setdefault(_bash_value(flag), []).extend(names)
    for value, names in patterns.items():
        yield f"        {'|'.join(names)})"
        yield f"            {value}"
        yield "            return"
        yield "            ;;"
    yield "    esac"
    yield '    case "$command" in'
    for command in commands:
        flags = " ".join(name for flag in all_flags(command) for name in _names(flag))
        yield f"        {command.name}) words={shlex.quote(flags)} ;;"
    yield "    esac"
    yield "    if [[ $current != -* ]]; then"
    yield "        words="
    yield '        case "$command" in'
    for command in commands:
        if choices := _choices(command, commands):
            yield f"            {command.name}) words={shlex.quote(' '.join(choices))} ;;"
        elif command.completes:
            offer = f"_userspace_proxy_names {command.completes}"
            yield f"            {command.name}) {offer}; return ;;"
    yield "        esac"
    names_of_all = " ".join(command.name for command in commands)
    yield f"        [[ $last -eq 1 ]] && words={shlex.quote(names_of_all)}"
    yield "    fi"
    yield "    " + _offer('-W "$words"')
    yield "}"
    yield f"complete -F _userspace_proxy {PROGRAM} {PLUGIN}"


def _bash_value(flag: CommandFlag) -> str:
    if flag.value == _PATH:
        # Without this option, bash would add a blank after a folder's name.
        return f"compopt -o filenames; {_offer('-f')}"
    if flag.completes:
        return f"_userspace_proxy_names {flag.completes}"
    return _offer(f"-W {shlex.quote(' '.join(flag.choices))}") if flag.choices else "COMPREPLY=()"


def _offer(words: str) -> str:
    """Return a shell command that offers words, which may contain blanks."""
    return f'mapfile -t COMPREPLY < <(compgen {words} -- "$current")'


def _zsh(commands: Sequence[Command]) -> Iterator[str]:
    yield f"#compdef {PROGRAM} {PLUGIN}"
    yield "# zsh completion for userspace-proxy: source it, or write it to a folder of $fpath"
    yield f"compdef _{PROGRAM} {PROGRAM} {PLUGIN}"
    yield f"_{PROGRAM}_names() {{"
    yield "    local -a names"
    yield '    names=(${(f)"$($typed[1] complete ${@[-1]} -- "${(@)typed[2,-1]}" 2>/dev/null)"})'
    yield '    compadd "${@[1,-2]}" -a names'
    yield "}"
    yield f"_{PROGRAM}() {{"
    yield '    local -a typed=("${(@Q)words[1,CURRENT]}")'
    yield "    local -a commands=("
    for command in commands:
        # zsh reads the text before the first colon as the name.
        yield f"        {shlex.quote(f'{command.name}:{command.summary}')}"
    yield "    )"
    yield "    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then"
    yield "        _describe command commands"
    yield "        return"
    yield "    fi"
    yield f"    local command={_DEFAULT}"
    yield "    if [[ $words[2] != -* ]]; then"
    yield "        command=$words[2]"
    yield "        shift words"
    yield "        (( CURRENT-- ))"
    yield "    fi"
    yield "    case $command in"
    for command in commands:
        yield f"        {command.name})"
        yield "            _arguments \\"
        specs = [spec for flag in all_flags(command) for spec in _zsh_flag(flag)]
        if choices := _choices(command, commands):
            specs.append(shlex.quote(f"1:argument:({' '.join(choices)})"))
        elif command.completes:
            which = "*" if command.arguments.endswith("...]") else "1"
            specs.append(shlex.quote(f"{which}:argument:_{PROGRAM}_names {command.completes}"))
        yield " \\\n".join(f"                {spec}" for spec in specs)
        yield "            ;;"
    yield "    esac"
    yield "}"
    # At the first completion, zsh runs the file from $fpath as the function itself.
    yield f'[[ $funcstack[1] == _{PROGRAM} ]] && _{PROGRAM} "$@"'


def _zsh_flag(flag: CommandFlag) -> Iterator[str]:
    text = "".join(f"\\{c}" if c in "[]\\:" else c for c in flag.help)
    action = f"({' '.join(flag.choices)})" if flag.choices else ""
    if flag.value == _PATH:
        action = "_files"
    elif flag.completes:
        action = f"_{PROGRAM}_names {flag.completes}"
    value = f":value:{action}" if flag.value else ""
    names = _names(flag)
    for name in names:
        # Each name excludes the flag's other name; a long name also accepts its value after "=".
        excluded = f"({' '.join(names)})" if len(names) > 1 else ""
        sign = "=" if value and name.startswith("--") else ""
        yield shlex.quote(f"{excluded}{name}{sign}[{text}]{value}")


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    yield "# fish completion for userspace-proxy: source it, or write it to"
    yield "# ~/.config/fish/completions/userspace-proxy.fish"
    others = " ".join(command.name for command in commands if command.name != _DEFAULT)
    for program in (PROGRAM, PLUGIN):
        yield f"complete -c {program} -f"
        for command in commands:
            summary = _fish_text(command.summary)
            first = "-n __fish_use_subcommand"
            yield f"complete -c {program} {first} -a {command.name} -d {summary}"
        for command in commands:
            if command.name == _DEFAULT:
                when = f"'not __fish_seen_subcommand_from {others}'"
            else:
                when = f"'__fish_seen_subcommand_from {command.name}'"
            start = f"complete -c {program} -n {when}"
            if choices := _choices(command, commands):
                yield f"{start} -a {_fish_text(' '.join(choices))}"
            elif command.completes:
                yield f"{start} -a {_fish_names(program, command.completes)}"
            for flag in all_flags(command):
                names = _fish_names(program, flag.completes) if flag.completes else ""
                yield f"{start} {_fish_flag(flag, names)} -d {_fish_text(flag.help)}"


def _fish_names(program: str, kind: str) -> str:
    typed = "(commandline -opc)[2..-1] (commandline -ct)"
    return _fish_text(f"({program} complete {kind} -- {typed} 2>/dev/null)")


def _fish_flag(flag: CommandFlag, names: str) -> str:
    words = [f"-l {flag.name}"]
    if flag.short:
        words.append(f"-s {flag.short}")
    if flag.value == _PATH:
        words.append("-r -F")
    elif flag.value:
        words.append("-x")
    if flag.choices:
        words.append(f"-a {_fish_text(' '.join(flag.choices))}")
    elif names:
        words.append(f"-a {names}")
    return " ".join(words)


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_SHELLS: dict[str, Callable[[Sequence[Command]], Iterator[str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
