import dataclasses
import json
import socket

import pytest

from userspace_proxy.config.kinds import BOOL
from userspace_proxy.config.load import load_settings
from userspace_proxy.config.settings import TABLE, Settings
from userspace_proxy.config.values import PortRange
from userspace_proxy.model import DataPath, SocketAddress
from userspace_proxy.status.answers import plain_setting


def test_the_node_name_defaults_to_the_host_name_in_lower_case(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Node-1 ")
    assert Settings(hostname_override="node-7").node_name == "node-7"
    assert Settings().node_name == "node-1"


def test_the_default_proxy_ports_are_below_node_ports_and_ephemeral_ports():
    ports = Settings().proxy_port_range
    assert ports == PortRange(17000, 29999)
    assert ports.last < 30000 < 32768


def test_every_setting_except_the_origins_has_a_row():
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields - set(TABLE) == {"origins"}


@pytest.mark.parametrize("attribute", ["kube_field", "own_field"])
def test_no_two_settings_share_a_field(attribute):
    fields = [getattr(row, attribute) for row in TABLE.values() if getattr(row, attribute)]
    assert len(fields) == len(set(fields))


def test_no_two_settings_share_a_flag():
    flags = [flag for row in TABLE.values() for flag in (row.flag, *row.aliases)]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("name", TABLE)
def test_each_default_is_valid_for_its_flag(name):
    kind = TABLE[name].kind
    default = getattr(Settings(), name)
    if default is None and kind.name == "DURATION":
        assert kind.parse("0") is None
    else:
        assert kind.parse(kind.write_text(default)) == default


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.kind is not BOOL])
def test_the_default_of_a_setting_has_a_documented_reason(name):
    assert TABLE[name].why or TABLE[name].shown_default


def test_configz_rows_contain_name_plain_value_and_origin():
    settings = Settings(
        drain_s=10.0, feature_gates=(("A", True),), origins={"drain_s": "flag", "master": "file"}
    )
    rows = {name: (value, origin) for name, value, origin in settings.as_rows()}
    assert list(rows) == list(TABLE)
    assert rows["drain_s"] == ("10s", "flag")
    assert rows["master"] == ("", "file")
    assert rows["feature_gates"] == ({"A": True}, "default")
    assert rows["healthz_bind_address"] == ("0.0.0.0:10256", "default")
    assert rows["udp_idle_s"] == (None, "default")


def test_configz_rows_are_json_serializable():
    assert json.loads(json.dumps(Settings().as_rows()))[0] == ["config_file", "", "default"]


@dataclasses.dataclass(frozen=True)
class Few:
    drain_s: float = 1.0
    dns: tuple[str, int] | None = None
    proxy_name: str | None = "mine"
    workload: str = "none"


def test_as_options_copies_settings_by_name_and_keeps_other_defaults():
    at = SocketAddress("127.0.0.1", 5353)
    assert Settings(drain_s=10.0, dns_bind_address=at).as_options(Few) == Few(10.0, at, None)


@pytest.mark.parametrize(
    ("settings", "option", "value"),
    [
        ({}, "node_addresses", ()),
        ({"bind_address": "::"}, "node_addresses", ()),
        ({"bind_address": "192.0.2.1"}, "node_addresses", ("192.0.2.1",)),
        ({"path": "auto"}, "path", DataPath.AUTO),
        ({"allow_paths": ("kernel",)}, "allowed_paths", (DataPath.KERNEL,)),
        ({}, "preserves_client_address", True),
        ({"preserve_client_address": "never"}, "preserves_client_address", False),
    ],
)
def test_a_setting_row_converts_its_value_for_an_option(settings, option, value):
    wanted = dataclasses.make_dataclass("One", [option])
    assert getattr(Settings(**settings).as_options(wanted), option) == value


def test_the_method_beside_adopts_another_proxys_settings_unless_set_explicitly():
    words = ["--service-proxy-name=try", "--cluster-cidr=10.244.0.0/16", "--allow-paths=kernel"]
    words += ["--nodeport-addresses=primary", "--allow-external-ips=192.0.2.0/24"]
    theirs = load_settings([*words, "--path=kernel", "--udp-idle-timeout=1m"]).settings
    rows = {name: plain_setting(value) for name, value, _ in theirs.as_rows()}
    own = load_settings(["--path=auto"]).settings
    both = own.beside({**rows, "of_another_version": 1, "steering": "ipvs"})
    assert both == dataclasses.replace(theirs, path="auto")


def test_no_two_settings_share_an_option():
    options = [row.option or name for name, row in TABLE.items()]
    assert len(options) == len(set(options))


FILE = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.244.0.0/16
hostnameOverride: node-7
bindAddress: 0.0.0.0
"""


@pytest.mark.parametrize(
    ("words", "given"),
    [
        pytest.param([], "", id="defaults"),
        pytest.param(["--drain-timeout=5s", "--bind-address=0.0.0.0"], "", id="given-defaults"),
        pytest.param(
            ["--steering=local", "--manifests=my services"],
            "'--manifests=my services' --steering=local",
            id="flags",
        ),
        pytest.param(
            ["--config=FILE", "--hostname-override=node-8"],
            "--config=FILE --hostname-override=node-8; its file: clusterCIDR=10.244.0.0/16",
            id="file",
        ),
    ],
)
def test_non_default_settings_are_shown_as_given(words, given, tmp_path):
    path = tmp_path / "kp.yaml"
    path.write_text(FILE)
    loaded = load_settings([word.replace("FILE", str(path)) for word in words])
    assert loaded.settings.as_given() == given.replace("FILE", str(path))


def test_the_connection_log_is_off_by_default() -> None:
    assert Settings().connection_log == 0.0
