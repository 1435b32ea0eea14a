import pytest

from userspace_proxy.agent.options import Options
from userspace_proxy.check.inputs import judge_settings, look_at_manifests
from userspace_proxy.errors import ConfigError

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}, {name: more, port: 81}]}
"""


def look(path):
    return look_at_manifests(str(path), options=Options(), service_cidrs=("10.96.0.0/12",))


def test_warnings_of_the_settings_are_findings_in_the_file():
    (found,) = judge_settings(["unknown field mods"], "/etc/kube-proxy.conf")
    assert str(found) == "warning  config: unknown field mods [/etc/kube-proxy.conf]"
    assert judge_settings([], "")[0].what == "flags are valid"


def test_settings_with_a_file_that_cant_be_used_are_not_called_valid():
    problem = ConfigError("cannot read --config=x", hint="check the path")
    found = judge_settings(["unknown flag"], "", problem)
    assert [str(f) for f in found] == [
        "error    config: cannot read --config=x -> check the path",
        "warning  config: unknown flag",
    ]


def test_the_number_of_service_ports_is_read_from_manifests(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(SERVICE.replace("{port: 80}", "{name: web, port: 80}"))
    findings, inputs = look(path)
    assert [str(f) for f in findings] == [f"ok       manifests: 1 Service read [{path}]"]
    assert (inputs.service_ports, inputs.service_ips) == (2, ("10.96.0.10",))


@pytest.mark.parametrize("text", [SERVICE.replace("80", "0"), "kind: ["])
def test_unreadable_manifests_are_an_error_with_its_place(tmp_path, text):
    path = tmp_path / "web.yaml"
    path.write_text(text)
    findings, _ = look(path)
    assert findings[0].mark == "error"
    assert findings[0].what.startswith(f"{path}:")


def test_a_missing_path_is_an_error(tmp_path):
    ((found,), inputs) = look(tmp_path / "nothing")
    assert found.what.startswith(f"cannot read manifests from {tmp_path}/nothing: No such file")
    assert inputs.service_ports is None
