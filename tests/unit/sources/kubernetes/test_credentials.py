"""Where the API server is and what to show it: real files, kubernetes-asyncio itself."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from tests.shell import write_program
from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.credentials import REFRESH_S, Credentials
from userspace_proxy.sources.kubernetes.responses import TransportError

URL = "http://10.0.0.1:8080"


def kubeconfig(folder: Path, user: str, server: str = URL, cluster: str = "") -> str:
    path = folder / "kubeconfig"
    path.write_text(
        dedent(f"""\
            current-context: test
            contexts: [{{name: test, context: {{cluster: home, user: alice}}}}]
            clusters: [{{name: home, cluster: {{server: "{server}"{cluster}}}}}]
            users: [{{name: alice, user: {user}}}]
            """)
    )
    return str(path)


async def shown_by(credentials: Credentials) -> str | None:
    return (await credentials.header()).get("Authorization")


@pytest.fixture
def account(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("a certificate")
    return tmp_path


async def test_a_kubeconfig_gives_server_and_token(tmp_path):
    path = kubeconfig(tmp_path, "{token: secret}")
    credentials = Credentials(kubeconfig=path)
    assert credentials.location == path
    await credentials.load(now=0)
    assert (credentials.location, await shown_by(credentials)) == (URL, "Bearer secret")
    assert credentials.description == f"the credentials in {path}"


async def test_master_wins_over_the_server_of_the_kubeconfig(tmp_path):
    path = kubeconfig(tmp_path, "{token: secret}")
    credentials = Credentials(kubeconfig=path, master="http://10.0.0.2:8080/")
    await credentials.load(now=0)
    assert credentials.location == "http://10.0.0.2:8080"
    assert await shown_by(credentials) == "Bearer secret"


async def test_master_alone_sends_no_credentials():
    credentials = Credentials(master=URL)
    await credentials.load(now=0)
    assert (credentials.location, await shown_by(credentials)) == (URL, None)


async def test_a_master_that_is_no_url_is_an_error():
    with pytest.raises(SourceError, match=r"cannot use --master 10\.0\.0\.1: it is not an http"):
        await Credentials(master="10.0.0.1").load(now=0)


async def test_a_pod_uses_its_service_account(account):
    credentials = Credentials(service_account=account)
    assert credentials.location == "the API server of this pod"
    await credentials.load(now=0)
    assert credentials.location == "https://[fd00::1]:443"
    assert await shown_by(credentials) == "Bearer first"
    assert credentials.description == f"the token in {account}/token"


async def test_outside_of_a_pod_the_error_contains_a_remedy(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SourceError) as caught:
        await Credentials().load(now=0)
    assert str(caught.value) == (
        "cannot find an API server: this is not a pod (KUBERNETES_SERVICE_HOST is not set) "
        "(give --kubeconfig FILE, --master URL, or --manifests PATH)"
    )


async def test_a_pod_without_a_token_is_an_error(account):
    (account / "token").unlink()
    with pytest.raises(SourceError, match="cannot use the service account of this pod: Service"):
        await Credentials(service_account=account).load(now=0)


async def test_a_token_file_is_read_again_each_minute_and_after_a_refusal(tmp_path):
    token = tmp_path / "token"
    token.write_text("first")
    credentials = Credentials(kubeconfig=kubeconfig(tmp_path, f"{{tokenFile: {token}}}"))
    await credentials.load(now=0)
    token.write_text("second")
    await credentials.refresh(now=REFRESH_S - 1)
    assert await shown_by(credentials) == "Bearer first"
    await credentials.refresh(now=REFRESH_S)
    assert await shown_by(credentials) == "Bearer second"
    token.write_text("third")
    await credentials.refresh(now=REFRESH_S + 1, is_refused=True)
    assert await shown_by(credentials) == "Bearer third"


async def test_a_kubeconfig_that_is_written_anew_is_read_again(tmp_path):
    credentials = Credentials(kubeconfig=kubeconfig(tmp_path, "{token: first}"))
    await credentials.load(now=0)
    kubeconfig(tmp_path, "{token: the second}", server="http://10.0.0.2")
    await credentials.refresh(now=REFRESH_S)
    assert credentials.location == "http://10.0.0.2"
    assert await shown_by(credentials) == "Bearer the second"


async def test_credentials_that_cannot_be_refreshed_are_an_error_and_the_old_ones_stay(tmp_path):
    credentials = Credentials(kubeconfig=kubeconfig(tmp_path, "{token: first}"))
    await credentials.load(now=0)
    (tmp_path / "kubeconfig").unlink()
    with pytest.raises(TransportError, match=r"cannot read kubeconfig .*: No such file"):
        await credentials.refresh(now=REFRESH_S)
    assert await shown_by(credentials) == "Bearer first"


@pytest.mark.parametrize(
    ("user", "words"),
    [
        pytest.param("null", "Expected key user in", id="no-user"),
        pytest.param("{tokenFile: /nowhere/token}", "/nowhere/token: No such file", id="no-token"),
        pytest.param("{exec: {command: x}}", "missing key 'apiVersion'", id="bad-plugin"),
    ],
)
async def test_what_kubernetes_asyncio_does_not_take_is_one_line(tmp_path, user, words):
    path = kubeconfig(tmp_path, user)
    with pytest.raises(SourceError) as caught:
        await Credentials(kubeconfig=path).load(now=0)
    assert caught.value.message.startswith(f"cannot use {path}: ")
    assert words in caught.value.message


# kubernetes-asyncio compares expiry with a clock that Python 3.12 deprecates.
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
async def test_a_plugin_is_asked_once_and_again_after_a_refusal(tmp_path):
    plugin = tmp_path / "plugin"
    write_program(
        plugin,
        dedent(f"""\
            import json, pathlib
            runs = pathlib.Path({str(tmp_path / "runs")!r})
            runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
            status = {{
                "token": "token-" + str(len(runs.read_text())),
                "expirationTimestamp": "2999-01-01T00:00:00Z",
            }}
            print(json.dumps({{"apiVersion": "v1", "kind": "ExecCredential", "status": status}}))
            """),
    )
    user = json.dumps({"exec": {"apiVersion": "v1", "command": str(plugin)}})
    credentials = Credentials(kubeconfig=kubeconfig(tmp_path, user))
    await credentials.load(now=0)
    await credentials.refresh(now=REFRESH_S)
    assert await shown_by(credentials) == "Bearer token-1"
    await credentials.refresh(now=REFRESH_S + 1, is_refused=True)
    assert await shown_by(credentials) == "Bearer token-2"


async def test_the_certificate_of_a_pods_server_may_change(account):
    credentials = Credentials(service_account=account)
    await credentials.load(now=0)
    before = credentials.tls_files()
    assert credentials.tls_files() == before
    (account / "ca.crt").write_text("another certificate")
    assert credentials.tls_files() != before


async def test_a_pods_token_that_vanishes_is_an_error(account):
    credentials = Credentials(service_account=account)
    await credentials.load(now=0)
    credentials.configuration.refresh_api_key_hook = lambda _: (account / "nothing").read_text()
    with pytest.raises(TransportError, match=r"cannot read the token in .*: No such file"):
        await credentials.header()


def checked(**where) -> str:
    credentials = Credentials(**where)
    credentials.check()
    return credentials.cluster


def test_a_cluster_is_its_server_and_authority(tmp_path):
    (tmp_path / "ca.crt").write_text("a certificate")
    in_file = checked(
        kubeconfig=kubeconfig(tmp_path, "{}", cluster=", certificate-authority: ca.crt")
    )
    assert in_file == f"{URL}, authority 81acd762140fa692"
    (tmp_path / "ca.crt").write_text("another certificate")
    assert checked(kubeconfig=str(tmp_path / "kubeconfig")) not in (in_file, URL)
    data = kubeconfig(tmp_path, "{}", cluster=", certificate-authority-data: YQ==")
    assert checked(kubeconfig=data).startswith(f"{URL}, authority ")
    (tmp_path / "ca.crt").unlink()
    gone = kubeconfig(tmp_path, "{}", cluster=", certificate-authority: ca.crt")
    assert checked(kubeconfig=gone) == URL
    assert checked(master="http://10.0.0.2:8080/") == "http://10.0.0.2:8080"


def test_a_pods_cluster_is_its_authority(account):
    first = checked(service_account=account)
    assert first.startswith("the API server of this pod, authority ")
    (account / "ca.crt").write_text("another certificate")
    assert checked(service_account=account) != first
