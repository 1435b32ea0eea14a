"""Tests of the command check in steering mode ``none``, which requires no kernel feature."""

import json

from userspace_proxy.check.finding import ok, warning
from userspace_proxy.cli import main
from userspace_proxy.cli.check import render_text

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
"""
QUIET = ("--steering=none", "--healthz-bind-address=", "--metrics-bind-address=127.0.0.1:0")


def test_check_prints_a_line_for_each_finding_and_a_summary():
    assert render_text([ok("config", "understood"), warning("ports", "taken", "", "sysctl")]) == (
        "ok       config: understood\nwarning  ports: taken -> sysctl\n0 error, 1 warning, 1 ok"
    )


def test_a_long_finding_is_wrapped_in_its_column_on_a_terminal():
    what = "kube-proxy is running, and both would steer the same addresses of Services"
    findings = [
        warning("proxies", what, "/proc/77", "Stop it first: its rules come before these ones"),
        warning("ports", what, "", "sysctl -w net.ipv4.ip_local_reserved_ports=20000-21023,30000"),
        ok("config", "understood"),
    ]
    assert render_text(findings, 60).splitlines() == [
        "warning  proxies: kube-proxy is running, and both would",
        "         steer the same addresses of Services [/proc/77]",
        "         -> Stop it first: its rules come before these ones",
        "warning  ports: kube-proxy is running, and both would steer",
        "         the same addresses of Services",
        "         -> sysctl -w net.ipv4.ip_local_reserved_ports=20000-21023,30000",
        "ok       config: understood",
        "0 error, 2 warning, 1 ok",
    ]


def test_control_characters_in_a_finding_are_escaped():
    text = render_text([warning("manifests", "\x1b[2Ja\nok  b: not YAML")])
    assert text.splitlines()[0] == "warning  manifests: \\u001b[2Ja\\nok  b: not YAML"


def test_check_exits_with_status_1_if_a_finding_is_an_error(tmp_path, capsys):
    path = tmp_path / "web.yaml"
    path.write_text(SERVICE)
    assert main(["check", f"--manifests={path}", *QUIET]) == 0
    assert "1 Service read" in capsys.readouterr().out
    path.write_text(SERVICE.replace("80", "0"))
    assert main(["check", f"--manifests={path}", *QUIET, "-o", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["mark"] == "error"
    assert answer["findings"][1] == {
        "mark": "error",
        "topic": "manifests",
        "what": f"{path}:4: spec.ports[0].port: 0 is not in 1–65535",
        "where": "",
        "hint": "",
    }


def test_an_unreadable_configuration_file_is_reported_once(tmp_path, capsys):
    path = tmp_path / "web.yaml"
    path.write_text(SERVICE)
    assert main(["check", "--config=/none.yaml", f"--manifests={path}", *QUIET]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if " config: " in line]
    assert lines == ["error    config: cannot read --config=/none.yaml: No such file or directory"]
