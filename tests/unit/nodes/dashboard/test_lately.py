from userspace_proxy.status.history import Figures
from userspace_proxy_kubectl.nodes.dashboard.lately import Lately, Minute
from userspace_proxy_kubectl.nodes.merged import MergedKey

WEB, CART = (MergedKey("shop", name, "http", "IPv4", "") for name in ("web", "cart"))


def test_only_clients_in_the_last_minute_are_counted():
    lately = Lately()
    lately.note([WEB, CART], {}, 0.0)
    assert lately.minute() == Minute()
    lately.note([WEB, CART], {WEB: Figures(connections=5, failed=2)}, 2.5)
    lately.note([WEB, CART], {CART: Figures(connections=4, saved=1), WEB: Figures(failed=1)}, 5.0)
    assert lately.minute(WEB).words == "3 failed"
    assert lately.minute(CART).words == "1 saved"
    assert lately.minute().words == "3 failed, 1 saved"
    for at in range(8, 65, 2):
        lately.note([WEB, CART], {}, at)
    assert lately.minute().words == "1 failed, 1 saved"
    lately.note([WEB, CART], {}, 66.0)
    assert lately.minute().words == ""


def test_clients_during_a_gap_in_sampling_are_not_counted():
    lately = Lately()
    lately.note([WEB], {}, 0.0)
    lately.note([WEB], {WEB: Figures(connections=9, failed=1000)}, 3600.0)
    assert lately.minute() == Minute()
    lately.note([WEB], {WEB: Figures(connections=1)}, 3602.0)
    assert lately.minute().words == ""


def test_the_charted_span_covers_only_the_samples_since_the_last_gap():
    lately = Lately()
    for at in (0.0, 14.0):
        lately.note([WEB], {WEB: Figures(failed=3)}, at)
    assert (lately.minute(WEB).words, lately.minute(WEB).span_s) == ("3 failed", 14.0)
    assert lately.minute(WEB).span.endswith("14 s")
    # The gap shortens the span, and clients before the gap aren't counted.
    lately.note([WEB], {}, 40.0)
    lately.note([WEB], {WEB: Figures(failed=1)}, 50.0)
    assert (lately.minute(WEB).words, lately.minute(WEB).span_s) == ("1 failed", 10.0)
