"""The list of the image's packages is complete."""

from __future__ import annotations

import pytest

from .sbom import image_python, packages_of_image


def test_the_image_contains_runtime_but_no_build_packages() -> None:
    packages = packages_of_image("x86_64")
    assert {"aiohttp", "python-iptables", "uvloop", "yarl"} <= packages.keys()
    assert packages.keys().isdisjoint({"dnspython", "hatchling", "editables", "pluggy"})
    assert packages == packages_of_image("aarch64")


def test_the_images_python_version_follows_from_its_debian_release() -> None:
    assert image_python("FROM debian:forky-slim AS root\nFROM scratch\n") == "3.14"
    with pytest.raises(ValueError, match="not enough"):
        image_python("FROM debian:sid-slim\n")
