from userspace_proxy.cli.forward_text import (
    ForwardedPort,
    render_changes,
    render_left_out,
    render_start,
)

WEB = ForwardedPort("web.shop:80", "127.70.1.2:8080", 2)
DB = ForwardedPort("db.shop:5432", "127.90.4.4:5432", 0, "no pod is ready")
ONE = ForwardedPort("web.shop:80", "127.70.1.2:8080", 1)
MOVED = ForwardedPort("web.shop:80", "", 1, "the port is in use")


def by_name(*ports):
    return {port.name: port for port in ports}


def test_the_table_shows_names_addresses_and_what_is_not_forwarded():
    left_out = [("dns.shop:53/UDP", "port-forwards carry TCP only")]
    text = render_start(by_name(WEB, DB), left_out, head="Services of shop", dns="names: none")
    assert text == (
        "Services of shop\n"
        "  NAME          ADDRESS          PODS\n"
        "  web.shop:80   127.70.1.2:8080  2 pods\n"
        "  db.shop:5432  127.90.4.4:5432  no pod is ready\n"
        "not forwarded:\n"
        "  dns.shop:53/UDP  port-forwards carry TCP only\n"
        "names: none\n"
        "Ctrl-C ends it\n"
    )


def test_without_services_there_is_no_table():
    assert render_start({}, [], head="none", dns="dns") == "none\ndns\nCtrl-C ends it\n"


def test_a_long_reason_continues_in_its_column():
    reason = "no pod with an address was found for selector app=wbe,tier=front"
    text = render_start(by_name(WEB), [("db.shop", reason)], head="h", dns="d", columns=60)
    assert text.splitlines()[3:6] == [
        "not forwarded:",
        "  db.shop  no pod with an address was found for selector",
        "           app=wbe,tier=front",
    ]


def test_each_change_is_a_line():
    assert list(render_changes(by_name(WEB), by_name(WEB))) == []
    assert list(render_changes(by_name(WEB), by_name(ONE))) == ["  web.shop:80: 1 pod"]
    assert list(render_changes(by_name(ONE), by_name(MOVED))) == [
        "  web.shop:80 at -: the port is in use"
    ]
    assert list(render_changes(by_name(WEB), by_name(DB))) == [
        "+ db.shop:5432 at 127.90.4.4:5432: no pod is ready",
        "- web.shop:80 is gone",
    ]


def test_what_is_newly_left_out_is_a_line():
    udp, sctp = ("a:1/UDP", "TCP only"), ("a:2/SCTP", "TCP only")
    assert list(render_left_out([udp], [udp, sctp])) == ["  a:2/SCTP is not forwarded: TCP only"]
