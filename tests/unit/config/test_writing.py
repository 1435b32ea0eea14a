import pytest

from userspace_proxy.config.kubeproxy import read_config
from userspace_proxy.config.load import load_settings
from userspace_proxy.config.settings import Settings
from userspace_proxy.config.writing import render_config, write_config
from userspace_proxy.errors import ConfigError

EVERY_FLAG_WITH_A_FIELD = [
    "--kubeconfig=/etc/kube: conf #1",
    "--master=https://10.0.0.1:6443",
    "--manifests=true",
    "--service-cluster-ip-range=10.0.0.0/16,fd00::/112",
    "--service-proxy-name=null",
    "--config-sync-period=1m",
    "--hostname-override=no",
    "--bind-address=fd00::1",
    "--cluster-cidr=10.244.0.0/16,fd00:10::/56",
    "--nodeport-addresses=primary",
    "--connect-timeout=250ms",
    "--drain-timeout=0",
    "--udp-idle-timeout=1h30m",
    "--workers=3",
    "--preserve-client-address=never",
    "--steering=local",
    "--proxy-ports=18000+99",
    "--iptables-sync-period=1m0.5s",
    "--iptables-min-sync-period=2ms",
    "--proxy-mode=iptables",
    "--feature-gates=A=true,B=false",
    "--healthz-bind-address=",
    "--metrics-bind-address=fd://3",
    "--log-format=json",
    "--v=4",
]


@pytest.mark.parametrize(
    "words",
    [pytest.param([], id="defaults"), pytest.param(EVERY_FLAG_WITH_A_FIELD, id="all-given")],
)
def test_written_settings_read_back_as_the_same_settings(words, tmp_path):
    written = load_settings(words).settings
    write_config(written, str(tmp_path / "settings.yaml"))
    read = load_settings([f"--config={tmp_path / 'settings.yaml'}"]).settings
    without_path = {name: value for name, value, _ in read.as_rows() if name != "config_file"}
    assert without_path == {n: v for n, v, _ in written.as_rows() if n != "config_file"}


def test_written_defaults_read_back_without_a_warning():
    assert read_config(render_config(Settings()), place="settings.yaml").warnings == []


def test_nested_fields_are_written_below_their_parent():
    text = render_config(Settings(kubeconfig="/etc/kube.conf"))
    assert (
        "clientConnection:\n"
        "  # file with the address of the API server and the credentials for it\n"
        '  kubeconfig: "/etc/kube.conf"\n'
    ) in text


def test_an_unwritable_path_is_named_in_the_error():
    with pytest.raises(ConfigError) as caught:
        write_config(Settings(), "/nonexistent/settings.yaml")
    assert str(caught.value) == (
        "cannot write --write-config-to=/nonexistent/settings.yaml: No such file or directory"
    )
