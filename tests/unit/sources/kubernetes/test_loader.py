"""A kubeconfig with keys in it: they are never in a file, and cost no descriptor."""

from __future__ import annotations

import base64
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.shell import write_program
from userspace_proxy.sources.kubernetes.library import import_library
from userspace_proxy.sources.kubernetes.loader import MemoryFiles, TemporaryFiles, make_loader
from userspace_proxy.sources.kubernetes.plugin import PluginError

from . import certificates

SERVER = "https://10.0.0.1:6443"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a kubeconfig as an API server's client would; files of the library would be seen."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    loaders = []

    async def load(user, cluster=None):
        path = tmp_path / "kubeconfig"
        content = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "home", "user": "alice"}}],
            "clusters": [{"name": "home", "cluster": {"server": SERVER, **(cluster or {})}}],
            "users": [{"name": "alice", "user": user}],
        }
        path.write_text(yaml.safe_dump(content))
        library = import_library()
        configuration = library.kube_config.Configuration()
        loader = make_loader(library, str(path), plugin_s=20)
        loaders.append(loader)
        await loader.load_and_set(configuration)
        assert list(temporary.iterdir()) == []
        return loader, configuration

    yield load
    for loader in loaders:
        loader.close()


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def plugin_that_prints(folder, *statuses):
    """Write a plugin that prints one status after the other; return its part of a user."""
    answers = [json.dumps({"apiVersion": "v1", "status": status}) for status in statuses]
    write_program(
        folder / "plugin",
        f"import pathlib\nruns = pathlib.Path({str(folder / 'runs')!r})\n"
        "count = int(runs.read_text()) if runs.exists() else 0\n"
        f"runs.write_text(str(count + 1))\nprint({answers!r}[count])\n",
    )
    return {"exec": {"apiVersion": "v1", "command": "./plugin"}}


async def test_keys_in_a_kubeconfig_stay_in_memory(load):
    user = {"client-certificate-data": encoded("certificate"), "client-key-data": encoded("key")}
    loader, configuration = await load(user, {"certificate-authority-data": encoded("authority")})
    paths = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    assert [Path(path).read_text() for path in paths] == ["authority", "certificate", "key"]
    assert all(path.startswith("/proc/self/fd/") for path in paths)
    loader.close()
    assert not any(Path(path).exists() for path in paths)


async def test_files_that_a_kubeconfig_names_are_used_as_they_are(load, tmp_path):
    (tmp_path / "ca.crt").write_text(certificates.FIRST)
    _, configuration = await load({"token": "secret"}, {"certificate-authority": "ca.crt"})
    assert configuration.ssl_ca_cert == str(tmp_path / "ca.crt")
    assert configuration.api_key["BearerToken"] == "Bearer secret"


async def test_a_plugins_certificate_stays_in_memory_and_costs_no_descriptor(load, tmp_path):
    statuses = [
        {"clientCertificateData": f"certificate {n}", "clientKeyData": f"key {n}"}
        for n in range(20)
    ]
    loader, configuration = await load(plugin_that_prints(tmp_path, *statuses))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(1, 20):
        loader.expire()
        await loader.load_and_set(configuration)
        assert Path(configuration.cert_file).read_text() == f"certificate {number}"
        assert Path(configuration.key_file).read_text() == f"key {number}"
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        pytest.param(None, "first", id="without-an-end-it-counts-until-it-is-refused"),
        pytest.param(timedelta(hours=1), "first", id="in-an-hour"),
        pytest.param(timedelta(minutes=1), "second", id="soon"),
    ],
)
async def test_a_plugin_is_asked_again_before_its_answer_ends(load, tmp_path, ends, expected):
    end = {} if ends is None else {"expirationTimestamp": (datetime.now(UTC) + ends).isoformat()}
    statuses = [{"token": token, **end} for token in ("first", "second")]
    loader, configuration = await load(plugin_that_prints(tmp_path, *statuses))
    await loader.load_and_set(configuration)
    assert configuration.api_key["BearerToken"] == f"Bearer {expected}"


async def test_a_plugin_without_a_credential_is_an_error(load, tmp_path):
    with pytest.raises(PluginError, match="neither a token nor a certificate and key"):
        await load(plugin_that_prints(tmp_path, {"clientCertificateData": "alone"}))


def test_a_memory_file_stays_while_its_content_does():
    files = MemoryFiles()
    path = files.put("key", b"first")
    before = Path(path).stat().st_ino
    assert files.put("key", b"first") == path
    assert Path(path).stat().st_ino == before
    changed = files.put("key", b"second")
    assert Path(changed).read_bytes() == b"second"
    assert Path(changed).stat().st_ino != before
    files.close()
    files.close()
    assert not Path(changed).exists()


def test_without_memory_files_a_key_is_in_a_folder_of_this_user(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = TemporaryFiles()
    path = Path(files.put("key", b"first"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    os.utime(path, (1, 1))
    assert files.put("key", b"first") == str(path)
    assert path.stat().st_mtime == 1
    assert Path(files.put("key", b"second")).read_bytes() == b"second"
    files.close()
    files.close()
    assert list(tmp_path.iterdir()) == []
