import json

import pytest

from tests.fuzz.cost import check_cost
from userspace_proxy.secrets import REMOVED, Secrets, without_secrets, without_users
from userspace_proxy_kubectl.port_forward import ForwardTarget

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nabc\n-----END RSA PRIVATE KEY-----"
PGP = "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF/abc\n-----END PGP PRIVATE KEY BLOCK-----"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param("sent Authorization: Bearer abc.def-123", "sent Authorization: ", id="header"),
        pytest.param("with bearer abcdef123 and more", "with bearer  and more", id="scheme"),
        pytest.param(f"token {JWT}!", "token !", id="jwt"),
        pytest.param("AWS_SECRET_ACCESS_KEY=hunter2 x", "AWS_SECRET_ACCESS_KEY= x", id="variable"),
        pytest.param('"password": "a b c", "x"', '"password": , "x"', id="json"),
        pytest.param(r"{\"token\":\"abc\"}", r"{\"token\":}", id="json-in-json"),
        pytest.param("run with --token hunter2", "run with --token ", id="flag"),
        pytest.param("at https://alice:pw@api.test/x", "at https://@api.test/x", id="url"),
        pytest.param("at db://alice:p/w@db.test/x", "at db://@db.test/x", id="url-with-a-slash"),
        pytest.param("MYSQL_PWD=hunter2 x", "MYSQL_PWD= x", id="pwd"),
        pytest.param("?X-Amz-Signature=abc, x", "?X-Amz-Signature=, x", id="signed-url"),
        pytest.param("DB_PASS=hunter x", "DB_PASS= x", id="pass"),
        pytest.param("dbPass: hunter x", "dbPass:  x", id="camel-case"),
        pytest.param(f"key {KEY}", "key ", id="private-key"),
        pytest.param("AKIAIOSFODNN7EXAMPLE", "", id="aws"),
        pytest.param("ghp_0123456789abcdefABCDEF", "", id="github"),
        pytest.param("hvs.CAESIJlU02LQZq07", "", id="vault"),
        pytest.param("curl -u alice:hunter2 x", "curl -u alice: x", id="curl"),
        pytest.param(PGP, "", id="pgp"),
        pytest.param("join abcdef.0123456789abcdef now", "join  now", id="bootstrap"),
        pytest.param("key mine-own-token.", "key .", id="the-users-own"),
        pytest.param("x q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA= y", "x  y", id="random"),
    ],
)
def test_values_that_are_probably_secrets_are_removed(text, left):
    removed = Secrets("mine-own-token").remove(text)
    assert removed.replace(REMOVED, "") == left
    assert REMOVED in removed


NAMES = (
    *("DB_PASS", "pass", "dbPass", "DBPASS", "PGPASSWORD", "MYSQL_PWD", "passwd", "passphrase"),
    *("passcode", "token", "API_KEY", "apiKey", "api-key", "access_key", "AccountKey", "secret"),
    *("CLIENT_SECRET", "ENCRYPTION_KEY", "signing-key", "privateKey", "_authToken", "storepass"),
)
ALONE = (
    *("credentials", "creds", "REDIS_AUTH", "auth", "bearer", "session", "session_id"),
    *("JSESSIONID", "PHPSESSID", "pw", "rootPw", "sig", "jwt"),
)
"""Names of secret settings that are also ordinary words."""
FORMS = (
    *("{}=hunter2x", '{}="hunter2x"', "export {}=hunter2x;", "?a=1&{}=hunter2x", "{} = hunter2x"),
    *("--{} hunter2x", "--{}=hunter2x", "{}: hunter2x", "{}:\n  hunter2x", "{}: |\n  hunter2x"),
    *('{{"{}": "hunter2x"}}', "{{'{}': 'hunter2x'}}", r"{{\"{}\": \"hunter2x\"}}"),
    *("<{}>hunter2x</a>", "('{}', 'hunter2x')", '{{"name": "{}", "value": "hunter2x"}}'),
    "- name: {}\n  value: hunter2x",
)


@pytest.mark.parametrize("form", FORMS)
def test_values_named_like_a_secret_are_removed_in_every_format(form):
    """Source: issue 74."""
    texts = [form.format(name) for name in (*NAMES, *ALONE)]
    assert [text for text in texts if "hunter2x" in Secrets().remove(text)] == []


@pytest.mark.parametrize("form", ["{}=a1b2c3", "{}: a1b2c3"])
@pytest.mark.parametrize(
    "name",
    [
        *("bypass", "BYPASS", "byPassed", "compass", "COMPASS", "passive", "PASSIVE", "passes"),
        *("passthrough", "author", "authority", "authentication", "sessionAffinity", "signal"),
        *("session_affinity", "public_key", "key", "keyboard", "cookies-accepted"),
    ],
)
def test_words_resembling_a_secrets_name_are_kept(name, form):
    text = form.format(name)
    assert Secrets().remove(text) == without_secrets(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "shop/web: refused on node-7: 10.244.3.9:8080 doesn't answer; served on 118",
        "version 0.1.0 (commit 0123456789abcdef0123456789abcdef01234567)",
        "uid 0f3a5c1e-7d7b-4f0e-9a53-111111111111",
        "cannot read /var/lib/userspace-proxy/state.json.gz: Permission denied",
        'User "alice" cannot list resource "endpointslices" in API group "discovery.k8s.io"',
        str(ForwardTarget("kube-system", "userspace-proxy-6c9f7d5b8-x2x4z", 10249)),
        "ip-10-0-3-7.eu-west-1.compute.internal",
        "the API server rejected the credentials: Unauthorized",
        'User "alice@example.com" at https://api.test:6443/version is forbidden',
        "bypass: none, 7 of 7 passed",
        "passive=30000-30100, path: kernel, auth: none, session: 10800 s, -p 5353",
        "the image nginx:1.27@sha256:0123abcd, credentials: of the file, auth: 403 Forbidden",
    ],
)
def test_texts_without_secrets_are_not_changed(text):
    assert Secrets().remove(text) == text
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param(
            "400, url='http://me:p@127.0.0.1:1'", "400, url='http://@127.0.0.1:1'", id="url"
        ),
        pytest.param("http://me:p/@w@host/x is none", "http://@host/x is none", id="url-in-part"),
        pytest.param("Proxy-Authorization: Basic bWU6cA==", "Proxy-Authorization: ", id="header"),
        pytest.param("{'Authorization': 'opaque'}", "{'Authorization': ''}", id="mapping"),
        pytest.param("b'Bearer abc.def-1'", "b'Bearer '", id="scheme"),
        pytest.param(f"got {JWT} back", "got  back", id="jwt"),
        pytest.param(f"key {KEY}", "key ", id="private-key"),
        pytest.param("client-key-data: LS0tLS1CRUdJTiBSU0E=", "client-key-data: ", id="base64"),
        pytest.param("sh: A_PASS=hunter --token=x", "sh: A_PASS= --token=", id="variables"),
        pytest.param('{"token": "opaque", "a": 1}', '{"token": "", "a": 1}', id="json"),
        pytest.param("token: hunter2", "token: ", id="yaml"),
        pytest.param("407 for mine-own-token1!", "407 for !", id="the-users-own"),
    ],
)
def test_known_secrets_are_removed(text, left):
    shown = Secrets("mine-own-token1", "default").remove_certain(text)
    assert (shown.replace(REMOVED, ""), REMOVED in shown) == (left, True)


@pytest.mark.parametrize(
    "text",
    [
        "shop/token: 10.244.0.9:8080 refused; default/basic: bearer of bad news",
        "kubectl get pods -n password -l app=token,secret=web",
        "users[0].user.token: is not text, basic authentication",
        "cannot read token: No such file or directory",
        "http://127.0.0.1:10299/?secret=q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA",
        "/home/me/.kube/EKS_Prod_Cluster_2024_Frankfurt_Admin.yaml",
    ],
)
def test_words_and_names_are_kept_if_a_secret_is_an_ordinary_word(text):
    assert Secrets("default").remove_certain(text) == text


def test_only_the_newest_learned_credentials_are_removed():
    secrets = Secrets()
    for number in range(100):
        secrets.learn(f"credential-{number}")
    assert secrets.remove_certain("credential-1 credential-99") == f"credential-1 {REMOVED}"


def test_removing_users_from_urls_keeps_json_valid():
    value = {"what": "http://me:p@host:1 fails", "é": "a@b", "other": "https://host"}
    body = without_users(json.dumps(value, ensure_ascii=False).encode())
    assert json.loads(body) == {**value, "what": f"http://{REMOVED}@host:1 fails"}


@pytest.mark.parametrize(
    "part",
    [
        "-----BEGIN RSA PRIVATE KEY----- ", "token=", 'password="', "eyJ", "a.", "Aa1", "://a",
        "x-", "bearer ", " ", "\\", "eyJ-", "token:", "authorization:", "://", "https://a@",
        "--", "--a", "auth:", "auth: ", "pass\"", "pass,", "pass ", "sess",
        "-u a", "pass: | ", "pass value",
    ],
)  # fmt: skip
def test_removing_secrets_takes_linear_time(part):
    def remove(data):
        assert len(Secrets().remove(data.decode())) <= 2 * len(data)

    check_cost(remove, part.encode() * ((1 << 16) // len(part)))
