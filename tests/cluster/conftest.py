"""Fixtures: the built binaries, our image, and a control plane on loopback for each module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from . import build
from .control_plane import ControlPlane
from .image import Image, build_image

BUILD_TIMEOUT_S = 1800
"""For the one test that pays for a cold build: five minutes on two idle cores."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Give the first test that needs the binaries time to build them, if they are missing."""
    users = (item for item in session.items if "cluster_binaries" in _fixtures(item))
    if (first := next(users, None)) is not None and build.missing_targets():
        first.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_S), append=False)
    # Whether the image is in the cache is known when all its files have been read.
    builder = next((item for item in session.items if "image" in _fixtures(item)), None)
    if builder is not None:
        builder.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_S), append=False)


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


@pytest.fixture(scope="session")
def cluster_binaries(pytestconfig: pytest.Config) -> build.Binaries:
    """The built etcd, kube-apiserver and kubectl.

    Without a Go to build them the test is skipped; with CI=true it fails.
    """
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    terminal = pytestconfig.get_terminal_writer()
    try:
        # A first build takes minutes, and one wants to see why nothing moves.
        with capture.global_and_fixture_disabled():
            return build.ensure_binaries(lambda text: terminal.write(text, flush=True))
    except build.NoGoError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def image() -> Image:
    """The image of our Dockerfile.

    Without root or mmdebstrap to build it the test is skipped; with CI=true it fails.
    """
    try:
        return build_image(write=lambda _: None)
    except build.BuildError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def control_plane(cluster_binaries: build.Binaries) -> Iterator[ControlPlane]:
    """A control plane on loopback, shared by the tests of one module."""
    with ControlPlane(cluster_binaries) as control_plane:
        yield control_plane
