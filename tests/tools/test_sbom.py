"""The list of packages that the image contains."""

from __future__ import annotations

import json

import pytest

from .sbom import environment, image_python, installed, make_bom, packages_of_image, read_lock

ON_3_13 = environment("3.13", "x86_64")
A, B, C = ("a" * 64, "b" * 64, "c" * 64)
LOCK = f"""\
aiohttp==3.0 \\
    --hash=sha256:{B} \\
    --hash=sha256:{A}
    # via userspace-proxy (pyproject.toml)
Hatch_ling==1.0 \\
    --hash=sha256:{A}
    # via userspace-proxy (pyproject.toml)
pluggy==1.7 \\
    --hash=sha256:{A}
    # via hatch-ling
pyparsing==3.2 \\
    --hash=sha256:{A}
    # via userspace-proxy (pyproject.toml)
typing-extensions==4.0 ; python_full_version < '3.13' \\
    --hash=sha256:{A}
    # via
    #   aiohttp
    #   yarl
yarl==1.2 ; platform_machine == 'x86_64' \\
    --hash=sha256:{C}
    # via aiohttp
"""
PYPROJECT = """\
[project]
dependencies = ["aiohttp>=3"]
optional-dependencies = {iptables = ["pyparsing"], build = ["hatch-ling"]}
"""


def bom(epoch: int = 1_700_000_000) -> str:
    packages = installed(LOCK, PYPROJECT, ON_3_13)
    return make_bom(packages, epoch, "https://example.com/r", "The authors")


def test_a_lock_is_read_with_markers_hashes_and_what_needs_each_package() -> None:
    found = {each.name: each for each in read_lock(LOCK, environment("3.11", "aarch64"))}
    assert list(found) == ["aiohttp", "hatch-ling", "pluggy", "pyparsing", "typing-extensions"]
    assert found["aiohttp"].hashes == (A, B)
    assert found["typing-extensions"].needed_by == {"aiohttp", "yarl"}
    assert {each.name for each in read_lock(LOCK, ON_3_13)} >= {"yarl"}


def test_what_only_builds_is_not_installed() -> None:
    assert list(installed(LOCK, PYPROJECT, ON_3_13)) == ["aiohttp", "pyparsing", "yarl"]


def test_the_document_names_packages_their_files_and_what_needs_them() -> None:
    document = json.loads(bom())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = {each["name"]: each for each in document["components"]}
    assert components["aiohttp"]["purl"] == "pkg:pypi/aiohttp@3.0"
    (files,) = components["aiohttp"]["externalReferences"]
    assert [each["content"] for each in files["hashes"]] == [A, B]
    needs = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    assert needs == {
        "userspace-proxy": ["aiohttp", "pyparsing"],
        "aiohttp": ["yarl"],
        "pyparsing": [],
        "yarl": [],
    }
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


def test_this_image_contains_what_it_runs_with_and_not_what_builds_it() -> None:
    packages = packages_of_image("x86_64")
    assert {"aiohttp", "python-iptables", "uvloop", "yarl"} <= packages.keys()
    assert packages.keys().isdisjoint({"dnspython", "hatchling", "editables", "pluggy"})
    assert packages == packages_of_image("aarch64")


def test_the_images_python_is_that_of_its_debian() -> None:
    assert image_python("FROM debian:forky-slim AS root\nFROM scratch\n") == "3.14"
    with pytest.raises(ValueError, match="not enough"):
        image_python("FROM debian:sid-slim\n")
