"""The archives that containerd imports."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from .archive import Image, Layer, write_archive


def read_json(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file is not None
    return json.load(file)


def test_a_layer_that_two_images_share_is_written_once_under_its_digest(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    shared = Layer(files={"bin/program": program}, links={"bin/other": "program"}, folders=["tmp"])
    images = [
        Image(["example.org/a:1", "example.org/b:1"], [shared], ["/bin/program"], ["run"]),
        Image(["example.org/c:1"], [shared], user="65535", environment={"QUIET": "1"}),
    ]
    write_archive(tmp_path / "images.tar", images, "amd64")
    with tarfile.open(tmp_path / "images.tar") as archive:
        first, second = read_json(archive, "manifest.json")
        config = read_json(archive, first["Config"])
        environment = read_json(archive, second["Config"])["config"]["Env"]
        [layer] = first["Layers"]
        file = archive.extractfile(layer)
        assert file is not None
        digest = hashlib.sha256(file.read()).hexdigest()
        with tarfile.open(fileobj=archive.extractfile(layer)) as files:
            assert sorted(files.getnames()) == ["bin/other", "bin/program", "tmp"]
        assert sum(name == layer for name in archive.getnames()) == 1
    assert second["Layers"] == [layer]
    assert first["RepoTags"] == ["example.org/a:1", "example.org/b:1"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    assert config["config"]["Entrypoint"] == ["/bin/program"]
    assert environment[-1] == "QUIET=1"
