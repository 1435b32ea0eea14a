"""The last connections of each Service."""

import logging

from userspace_proxy.model import ServiceKey
from userspace_proxy.testing.decisions import KEPT, LOGGER, Decision, Decisions

WEB = ServiceKey("default", "web")


def log(service="default/web", endpoint="127.0.0.1:8080", outcome="complete"):
    logging.getLogger(LOGGER).info(
        "connection %s",
        outcome,
        extra={
            "service": service,
            "client": "127.0.0.1:40000",
            "endpoint": endpoint,
            "received_bytes": 7,
            "sent_bytes": 9,
            "duration_s": 0.25,
        },
    )


def test_connections_are_kept_by_service_and_only_the_last_ones():
    decisions = Decisions()
    decisions.begin()
    for number in range(KEPT + 2):
        log(endpoint=f"127.0.0.1:{number}")
    log("default/other:http (IPv6)")
    decisions.end()
    log()
    assert [d.endpoint for d in decisions.of(WEB)] == [
        f"127.0.0.1:{number}" for number in range(2, KEPT + 2)
    ]
    assert len(decisions.of(ServiceKey("default", "other"))) == 1
    assert decisions.of(ServiceKey("default", "none")) == ()


def test_the_logger_is_as_before_afterwards():
    logger = logging.getLogger(LOGGER)
    before = logger.level, logger.propagate, list(logger.handlers)
    decisions = Decisions()
    decisions.begin()
    decisions.end()
    decisions.end()
    assert (logger.level, logger.propagate, logger.handlers) == before


def test_a_decision_is_a_line():
    decision = Decision("127.0.0.1:40000", "127.0.0.1:80", "complete", 0.25, 7, 9)
    assert str(decision) == "127.0.0.1:40000 → 127.0.0.1:80: complete, 7 B in, 9 B out, 0.250 s"
    unanswered = Decision("127.0.0.1:40000", "", "unanswered", 0, 0, 0)
    assert str(unanswered).startswith("127.0.0.1:40000 → no endpoint: unanswered")
