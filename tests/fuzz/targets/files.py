"""Targets for handwritten files: YAML and JSON, manifests, configuration, kubeconfigs."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from userspace_proxy.config.kubeproxy import read_config
from userspace_proxy.config.settings import Settings
from userspace_proxy.config.writing import render_config
from userspace_proxy.errors import ConfigError, InputError, SourceError
from userspace_proxy.model.document import decode, parse_documents, split_documents
from userspace_proxy.model.kubectl_yaml import parse_first
from userspace_proxy.sources.kubernetes import kubeconfig
from userspace_proxy.sources.kubernetes.plugin import cluster_info
from userspace_proxy.sources.kubernetes.proxies import choose_proxy, proxy_of_environment
from userspace_proxy.sources.manifests.objects import ManifestReader

PLACE = "file.yaml"


def check_yaml(data: bytes) -> None:
    """Check that line numbers exist in the text, and that JSON is parsed as by another parser."""
    if (text := _text(data)) is None:
        return
    try:
        documents = parse_documents(text, place=PLACE)
    except InputError as exc:
        _check_line(str(exc), text)
        return
    parts = split_documents(text)
    assert [document.value for document in documents] == [
        document.value for part in parts for document in parse_documents(part.text, place=PLACE)
    ]
    for document in documents:
        for path in ("", "kind", "metadata.name", "spec.ports[0].port", "items[1].spec", "a..b[["):
            assert 1 <= document.line_of(path) <= _lines(text)
    with contextlib.suppress(ValueError, RecursionError):
        meant = json.loads(
            text,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_in_64_bits,
            object_pairs_hook=_without_merge,
        )
        if meant is not None:
            assert [document.value for document in documents] == [meant]


def check_manifest(data: bytes) -> None:
    """Check that each problem is one line with a position, and that reading is repeatable."""
    if (text := _text(data)) is None:
        return
    reader = ManifestReader(PLACE)
    read = reader.read(text)
    for line in (*read.problems, *read.ignored):
        _check_line(line, text)
    assert reader.read(text) == read
    assert ManifestReader(PLACE).read(text) == read


def check_config(data: bytes) -> None:
    """Check that a parsed configuration can be written and read again with equal settings."""
    if (text := _text(data)) is None:
        return
    try:
        file = read_config(text, place=PLACE)
    except ConfigError as exc:
        if not str(exc).startswith(f"{PLACE}: is empty"):
            _check_line(str(exc), text)
        return
    for warning in file.warnings:
        assert "\n" not in warning
    settings = Settings(**file.values)
    again = read_config(render_config(settings), place=PLACE)
    assert Settings(**again.values) == settings


def check_kubeconfig(data: bytes) -> None:
    """Check that a kubeconfig yields a server and its credentials, or one line with the problem.

    A line with two section signs separates the files of a list.
    """
    try:
        files = []
        for number, part in enumerate(data.split(b"\xc2\xa7\xc2\xa7\n")):
            place = f"{PLACE}{number}"
            document = parse_first(decode(part), place=place)
            files.append(kubeconfig.KubeconfigFile(place, PurePath("/etc"), document))
        config = kubeconfig.read_client_config(files)
        cluster = config.cluster
        choose_proxy(cluster.server, cluster.proxy_url, cluster.proxy_place, {})
    except (InputError, SourceError) as exc:
        problem = str(exc)
    else:
        problem = ""
    assert "\n" not in problem
    if problem:
        assert PLACE in problem
        return
    assert kubeconfig.server_url(cluster.server) == cluster.server
    json.dumps(cluster_info(replace(cluster, authority=kubeconfig.Content())))
    for _, value in config.user.impersonation:
        assert not {"\r", "\n", "\0"} & set(value)


def check_no_proxy(data: bytes) -> None:
    """Check that the proxies in the environment are valid, or that the problem is one line."""
    texts = data.decode(errors="replace").split("\0")
    names = ("HTTPS_PROXY", "NO_PROXY", "https_proxy", "no_proxy")
    environment = dict(zip(names, texts, strict=False))
    for server in ("https://10.9.8.7:6443", "https://api.test", "https://[fd00::1]"):
        problem = ""
        try:
            proxy = proxy_of_environment(server, environment)
            assert proxy is None or 0 < proxy.port < 65536
        except SourceError as exc:
            problem = str(exc)
        assert "\n" not in problem


def _text(data: bytes) -> str | None:
    """Return the text of a file; None if the file's reader rejects it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _check_line(problem: str, text: str) -> None:
    place, line, rest = problem.split(":", 2)
    assert place == PLACE
    assert 1 <= int(line) <= _lines(text)
    assert rest.strip()
    assert "\n" not in problem


def _lines(text: str) -> int:
    # YAML counts the end of the text as a line, and also ends lines at a lone CR.
    return len(text.splitlines()) + 1


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _in_64_bits(text: str) -> int | float:
    number = int(text)
    # Go parses a larger number as a float.
    return number if abs(number) < 1 << 64 else _finite(text)


def _finite(text: str) -> float:
    number = float(text)
    # YAML, as read by kubectl, parses infinity as text, and JSON rejects it.
    if math.isinf(number):
        _refuse(text)
    return number


def _without_merge(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping; reject merge keys and repeated keys, which YAML reads differently."""
    made = dict(pairs)
    if "<<" in made or len(made) < len(pairs):
        raise ValueError("YAML differs from JSON here")
    return made
