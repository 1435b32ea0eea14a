"""Each alert leads to its section of the troubleshooting page."""

from __future__ import annotations

from urllib.parse import urldefrag

from userspace_proxy.causes.cause import CauseCode

from .addresses import repository
from .alerts import REASON, RULES, alerts_of, with_runbooks
from .guide_page import SOURCE, headings

PAGE = SOURCE.read_text(encoding="utf-8")
ALERTS = list(alerts_of(RULES.read_text(encoding="utf-8")))


def test_each_alert_leads_to_a_section_that_exists() -> None:
    sections = set(headings(PAGE))
    causes = set(map(str, CauseCode))
    for alert in ALERTS:
        address, section = urldefrag(alert["annotations"]["runbook_url"])
        assert address.startswith(repository + "/"), alert["alert"]
        assert address.endswith("/docs/troubleshooting.md"), alert["alert"]
        found = causes if section == REASON else {section}
        assert found <= sections, alert["alert"]


def test_each_alert_has_a_section_in_the_order_of_the_rules() -> None:
    part = PAGE.partition("\n## Alerts\n")[2]
    assert headings(part) == [alert["alert"].lower() for alert in ALERTS]


def test_an_alert_without_an_address_or_with_an_old_one_gets_the_current() -> None:
    rules = """\
spec:
  groups:
    - rules:
        - alert: ProxyDown
          annotations:
            summary: s
        - alert: PortProblem
          annotations:
            runbook_url: https://old.example/#x
            summary: "{{ $labels.reason }}"
"""
    first, second = alerts_of(with_runbooks(rules))
    assert urldefrag(first["annotations"]["runbook_url"]).fragment == "proxydown"
    assert urldefrag(second["annotations"]["runbook_url"]).fragment == REASON
    assert with_runbooks(with_runbooks(rules)) == with_runbooks(rules)
