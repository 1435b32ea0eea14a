"""The address and credentials of the API server: real files, and kubernetes-asyncio itself."""

from __future__ import annotations

import base64
import calendar
import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.shell import write_program
from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import SourceError
from userspace_proxy.secrets import without_secrets
from userspace_proxy.sources.kubernetes.credentials import REFRESH_S, Credentials
from userspace_proxy.sources.kubernetes.responses import TransportError

from .certificates import FIRST

URL = "https://10.0.0.1:6443"
VERSION = "client.authentication.k8s.io/v1beta1"


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


async def loaded(**options: Any) -> Credentials:
    """Return credentials that were loaded at startup."""
    credentials = Credentials(**options)
    await credentials.load(now=0)
    return credentials


async def shown_by(credentials: Credentials) -> str | None:
    return (await credentials.header()).get("Authorization")


@pytest.fixture
def account(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("a certificate")
    return tmp_path


async def test_a_kubeconfig_provides_server_and_token(tmp_path):
    path = kubeconfig(tmp_path, "{token: secret}")
    credentials = Credentials(kubeconfig=path)
    assert credentials.location == path
    await credentials.load(now=0)
    assert (credentials.location, await shown_by(credentials)) == (URL, "Bearer secret")
    assert credentials.description == f"the credentials in {path}"


async def test_with_only_a_master_url_no_credentials_are_sent():
    credentials = await loaded(master=URL)
    assert (credentials.location, await shown_by(credentials)) == (URL, None)


def test_an_invalid_master_url_is_an_error():
    with pytest.raises(SourceError, match=r"cannot use --master ftp://a: it is not an http"):
        Credentials(master="ftp://a").check()


async def test_a_pod_uses_its_service_account(account):
    credentials = Credentials(service_account=account)
    assert credentials.location == "the API server of this pod"
    await credentials.load(now=0)
    assert credentials.location == "https://[fd00::1]:443"
    assert await shown_by(credentials) == "Bearer first"
    assert credentials.description.startswith(f"the token in {account}/token, which")


async def test_outside_a_pod_the_error_contains_a_remedy(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SourceError) as caught:
        await loaded()
    assert str(caught.value) == (
        "cannot find an API server: this is not a pod (KUBERNETES_SERVICE_HOST is not set) "
        "(give --kubeconfig FILE, --master URL, or --manifests PATH)"
    )


async def test_a_pod_without_a_token_is_an_error(account):
    (account / "token").unlink()
    with pytest.raises(SourceError, match="cannot use the service account of this pod: Service"):
        await loaded(service_account=account)


async def test_a_token_file_is_reread_each_minute_and_after_a_401(tmp_path):
    token = tmp_path / "token"
    token.write_text("first")
    credentials = await loaded(kubeconfig=kubeconfig(tmp_path, f"{{tokenFile: {token}}}"))
    token.write_text("second")
    await credentials.refresh(now=REFRESH_S - 1)
    assert await shown_by(credentials) == "Bearer first"
    await credentials.refresh(now=REFRESH_S)
    assert await shown_by(credentials) == "Bearer second"
    token.write_text("third")
    await credentials.refresh(now=REFRESH_S + 1, is_refused=True)
    assert await shown_by(credentials) == "Bearer third"


async def test_an_oversized_token_file_is_an_error(tmp_path):
    with (tmp_path / "token").open("wb") as stream:
        stream.truncate((1 << 20) + 1)
    credentials = Credentials(kubeconfig=kubeconfig(tmp_path, "{tokenFile: token}"))
    with pytest.raises(SourceError, match="token: it is larger than 1 MiB"):
        await credentials.load(now=0)


async def test_a_rewritten_kubeconfig_is_reread(tmp_path):
    credentials = await loaded(kubeconfig=kubeconfig(tmp_path, "{token: first}"))
    kubeconfig(tmp_path, "{token: the second}", server="https://10.0.0.2")
    await credentials.refresh(now=REFRESH_S)
    assert credentials.location == "https://10.0.0.2"
    assert await shown_by(credentials) == "Bearer the second"


async def test_a_failed_refresh_is_an_error_and_keeps_the_old_credentials(tmp_path):
    credentials = await loaded(kubeconfig=kubeconfig(tmp_path, "{token: first}"))
    (tmp_path / "kubeconfig").unlink()
    with pytest.raises(TransportError, match=r"cannot read kubeconfig .*: No such file"):
        await credentials.refresh(now=REFRESH_S)
    assert await shown_by(credentials) == "Bearer first"


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ("{tokenFile: /no/token}", "", "/no/token: No such file"),
        ("{tokenFile: kubeconfig}", "", "it contains no token"),
        ("{}", ", certificate-authority: /no/ca", "/no/ca: No such file"),
        ("{client-certificate: /no/crt, client-key: /k}", "", "/no/crt: No such"),
        (
            f"{{exec: {{command: /no/plug, apiVersion: {VERSION}, installHint: brew}}}}",
            "",
            "exec: /no/plug can't be started: No such file or directory",
        ),
        (
            f"{{exec: {{command: x, apiVersion: {VERSION}, provideClusterInfo: true}}}}",
            ", certificate-authority: /no/ca",
            "/no/ca: No such file",
        ),
    ],
)
async def test_a_missing_or_unusable_file_is_reported_in_one_line(tmp_path, user, cluster, words):
    path = kubeconfig(tmp_path, user, cluster=cluster)
    with pytest.raises(SourceError) as caught:
        await loaded(kubeconfig=path)
    assert caught.value.message.startswith(f"cannot use kubeconfig {path}: ")
    assert words in caught.value.message
    assert "\n" not in str(caught.value)


async def test_a_token_file_is_preferred_with_the_token_as_a_fallback(tmp_path):
    token = tmp_path / "token"
    token.write_text("file-0123\n")
    credentials = await loaded(kubeconfig=kubeconfig(tmp_path, "{token: own, tokenFile: token}"))
    assert await shown_by(credentials) == "Bearer file-0123"
    token.unlink()
    await credentials.refresh(now=REFRESH_S)
    assert await shown_by(credentials) == "Bearer file-0123"
    other = await loaded(kubeconfig=str(tmp_path / "kubeconfig"))
    assert await shown_by(other) == "Bearer own"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbft", b"\xff\xfet\x00", b"a\nb", b"t\x00"])
async def test_a_token_file_without_a_valid_token_is_an_error(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    path = kubeconfig(tmp_path, "{token: own, tokenFile: token}")
    with pytest.raises(SourceError, match=r"/token: it contains no token"):
        await loaded(kubeconfig=path)


async def test_an_inline_token_replaces_an_empty_token_file(tmp_path):
    (tmp_path / "token").write_text(" \n")
    credentials = await loaded(kubeconfig=kubeconfig(tmp_path, "{token: own, tokenFile: token}"))
    assert await shown_by(credentials) == "Bearer own"


async def test_a_username_and_password_are_sent_as_basic_auth(tmp_path):
    path = kubeconfig(tmp_path, "{username: ü, password: b}")
    credentials = await loaded(kubeconfig=path)
    assert await shown_by(credentials) == "Basic w7w6Yg=="


async def test_over_plain_http_only_impersonation_headers_are_sent(tmp_path):
    user = f"{{token: t, as: jane, exec: {{command: /no/plug, apiVersion: {VERSION}}}}}"
    path = kubeconfig(tmp_path, user, "http://a", ", certificate-authority: /no/ca")
    credentials = await loaded(kubeconfig=path)
    assert await shown_by(credentials) is None
    assert credentials.impersonation == (("Impersonate-User", "jane"),)
    assert credentials.description == f"{path}: its credentials are sent only to https"
    moved = await loaded(kubeconfig=path, master="http://b")
    assert await shown_by(moved) is None


async def test_an_oidc_token_is_used_until_it_expires(tmp_path):
    claims = encoded(json.dumps({"exp": 1000}))
    provider = f"{{name: oidc, config: {{id-token: a.{claims}.c}}}}"
    now = 999.0
    path = kubeconfig(tmp_path, f"{{auth-provider: {provider}}}")
    credentials = await loaded(kubeconfig=path, clock=lambda: now)
    assert str(await shown_by(credentials)).startswith("Bearer a.")
    now = 1000.0
    text = f"cannot use kubeconfig {path}: its id-token has expired (run kubectl once, which renews"
    with pytest.raises(TransportError) as caught:
        await credentials.header()
    assert str(caught.value).startswith(text)
    with pytest.raises(SourceError) as at_start:
        await loaded(kubeconfig=path, clock=lambda: now)
    assert str(at_start.value).startswith(text)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_keys_in_a_kubeconfig_are_held_only_in_memory(tmp_path):
    pair = f"client-certificate-data: {encoded('crt')}, client-key-data: {encoded('key')}"
    authority = f", certificate-authority-data: {encoded('authority')}, tls-server-name: a"
    path = kubeconfig(tmp_path, f"{{{pair}}}", cluster=authority)
    credentials = await loaded(kubeconfig=path)
    found = credentials.configuration
    paths = (found.ssl_ca_cert, found.cert_file, found.key_file)
    assert [Path(file).read_text() for file in paths] == ["authority", "crt", "key"]
    assert all(file.startswith("/proc/self/fd/") for file in paths)
    assert (found.tls_server_name, found.verify_ssl) == ("a", True)
    moved = await loaded(kubeconfig=path, master=f"{URL}1")
    assert moved.configuration.tls_server_name is None
    for used in (credentials, moved):
        used.close()
        used.close()
    assert not any(Path(file).exists() for file in paths)
    assert list(tmp_path.iterdir()) == [Path(path)]


async def test_credential_files_stay_until_a_refresh_succeeds(tmp_path):
    text = "{client-certificate-data: Y3J0, client-key-data: a2V5}"
    credentials = await loaded(kubeconfig=kubeconfig(tmp_path, text))
    before = len(list(Path("/proc/self/fd").iterdir()))
    kubeconfig(tmp_path, "{client-certificate-data: WFhY, client-key: /no/key}")
    with pytest.raises(TransportError, match="/no/key: No such file"):
        await credentials.refresh(now=REFRESH_S)
    assert Path(credentials.configuration.cert_file).read_text() == "crt"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    kubeconfig(tmp_path, "{client-certificate-data: WFhY, client-key-data: a2V5}")
    await credentials.refresh(now=REFRESH_S)
    assert Path(credentials.configuration.cert_file).read_text() == "XXX"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture
def plugin(tmp_path):
    """Return a function that writes a plugin, which numbers its tokens, and a kubeconfig for it."""

    def plugin(**status: str) -> str:
        write_program(
            tmp_path / "plugin",
            dedent(f"""\
                import json, pathlib
                runs = pathlib.Path({str(tmp_path / "runs")!r})
                runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
                status = {{"token": f"token-{{len(runs.read_text())}}", **{status!r}}}
                print(json.dumps({{"apiVersion": {VERSION!r}, "status": status}}))
                """),
        )
        user = {"exec": {"apiVersion": VERSION, "command": "./plugin"}}
        return kubeconfig(tmp_path, json.dumps(user))

    return plugin


async def test_a_plugin_failing_on_refresh_is_a_transport_error(plugin, tmp_path):
    credentials = await loaded(kubeconfig=plugin())
    (tmp_path / "plugin").unlink()
    with pytest.raises(TransportError, match=r"cannot refresh .*exec: .*No such file"):
        await credentials.refresh(now=1, is_refused=True)
    assert await shown_by(credentials) == "Bearer token-1"


async def test_a_refresh_replaces_the_file_of_a_plugins_certificate(plugin):
    path = plugin(clientCertificateData="certificate", clientKeyData="key")
    credentials = await loaded(kubeconfig=path)
    found = credentials.configuration
    assert Path(found.cert_file).read_text() == "certificate"
    assert Path(found.key_file).read_text() == "key"
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    await credentials.refresh(now=1, is_refused=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    credentials.close()


async def test_credentials_in_use_are_removed_from_texts(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:of%20proxy%201@proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "")
    for user in ("{token: of-token-1}", "{username: alice, password: of-password-1}"):
        credentials = await loaded(kubeconfig=kubeconfig(tmp_path, user))
        header = await shown_by(credentials)
        assert header.partition(" ")[2] not in without_secrets(f"echo: {header}")
    secrets = "of-token-1, of-password-1, of%20proxy%201, of proxy 1"
    assert "1" not in without_secrets(secrets.replace("of%", "me:of%"))


async def test_the_proxy_is_read_from_the_kubeconfig_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    direct = await loaded(kubeconfig=kubeconfig(tmp_path, "{}"))
    assert direct.proxy is None
    monkeypatch.setenv("NO_PROXY", "")
    await direct.load(now=0)
    assert str(direct.proxy) == "the proxy http://proxy.test:3128 of HTTPS_PROXY"
    path = kubeconfig(tmp_path, "{}", cluster=', proxy-url: "socks5://a.test"')
    own = await loaded(kubeconfig=path)
    place = f"{path}:3: clusters[0].cluster.proxy-url"
    assert str(own.proxy) == f"the proxy socks5://a.test:1080 of {place}"


async def test_a_rotated_ca_certificate_of_a_pod_is_reread(account):
    credentials = await loaded(service_account=account)
    before = credentials.tls_files()
    assert credentials.tls_files() == before
    (account / "ca.crt").write_text("another certificate")
    assert credentials.tls_files() != before


async def test_a_token_that_a_pod_can_no_longer_read_is_a_transport_error(account):
    credentials = await loaded(service_account=account)
    credentials.configuration.refresh_api_key_hook = lambda _: (account / "nothing").read_text()
    with pytest.raises(TransportError, match=r"cannot read the token in .*: No such file"):
        await credentials.header()


def checked(**where) -> str:
    credentials = Credentials(**where)
    credentials.check()
    return credentials.cluster


def test_a_cluster_is_identified_by_its_server_and_certificate_authority(tmp_path):
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
    assert checked(master="https://10.0.0.2:8080/") == "https://10.0.0.2:8080"


def test_the_cluster_of_a_pod_is_identified_by_its_certificate_authority(account):
    first = checked(service_account=account)
    assert first.startswith("the API server of this pod, authority ")
    (account / "ca.crt").write_text("another certificate")
    assert checked(service_account=account) != first


@pytest.mark.parametrize(
    ("year", "expiry"),
    [
        pytest.param(2126, "", id="valid"),
        pytest.param(2127, ": the client certificate expired on 2126-10-27", id="expired"),
    ],
)
async def test_only_expired_credentials_are_described_with_their_expiry_date(
    tmp_path, monkeypatch, year, expiry
):
    data = base64.b64encode(FIRST.encode()).decode()
    path = kubeconfig(tmp_path, f"{{client-certificate-data: {data}, client-key-data: {data}}}")
    credentials = await loaded(kubeconfig=path)
    monkeypatch.setattr(Clocks, "time", lambda: calendar.timegm((year, 1, 1, 0, 0, 0)))
    assert credentials.description == f"the credentials in {path}{expiry}"
