"""Whether kubectl 1.36 uses a proxy for a server, depending on environment variables."""

from __future__ import annotations

PROXY = "http://127.0.0.2:3128"
ADDRESS = "https://10.9.8.7:6443"
NAME = "https://api.example.internal:6443"
IPV6 = "https://[fd00::1]:6443"

EXCLUSIONS = [
    *((server, "", False) for server in (ADDRESS, NAME, IPV6)),
    *(
        (f"https://{host}:1", "", True)
        for host in ("127.0.0.9", "localhost", "[::1]", "[::ffff:127.0.0.1]")
    ),
    *(
        (ADDRESS, text, True)
        for text in (
            "10.0.0.0/8", "10.1.2.3/8", "10.9.8.7", "10.9.8.7:6443", "10.9.8.0/24, foo", "*",
            "foo,*,bar", "10.9.8.7/32", "::ffff:10.9.8.7", "[::ffff:10.9.8.7]:6443", "0.0.0.0/0",
            "10.9.8.7/08", "[10.9.8.7]:6443", "10.9.8.7:", "::ffff:10.0.0.0/104", " 10.9.8.7 ",
        )
    ),
    *(
        (ADDRESS, text, False)
        for text in (
            "10.0.0.0/255.0.0.0", "10.9.8.7:443", "10.0.0.0/33", "10.9.8.07", "10.", "::/0", ",",
            "[10.9.8.7]", "example.internal", "10.9.8.7/",
        )
    ),
    *(
        (NAME, text, True)
        for text in (
            "example.internal", ".example.internal", "*.example.internal", "api.example.internal",
            "internal", "API.Example.Internal", "example.internal:6443",
            ".example.internal:6443", " example.internal ",
        )
    ),
    *(
        (NAME, text, False)
        for text in (
            "*.api.example.internal", ".api.example.internal", "example.internal:443",
            "xample.internal", "api.example.internal.", "*example.internal", "*.", "...", "api",
            "example.internal:6443:1", ":6443", "https://api.example.internal", "10.0.0.0/8",
        )
    ),
    ("https://api.example.internal", "example.internal:443", True),
    *(
        (IPV6, text, True)
        for text in ("fd00::/8", "fd00::1", "[fd00::1]:6443", "FD00::1", "fd00:0::1", "fd00::1/128")
    ),
    *((IPV6, text, False) for text in ("[fd00::1]:443", "[fd00::1]", "10.0.0.0/8")),
]  # fmt: skip
"""A server, NO_PROXY, and whether the server is reached without a proxy."""

CHOICES = [
    (ADDRESS, {"HTTPS_PROXY": PROXY}, True),
    (ADDRESS, {"https_proxy": PROXY}, True),
    (ADDRESS, {"HTTPS_PROXY": PROXY, "https_proxy": "http://127.0.0.2:1"}, True),
    (ADDRESS, {"HTTPS_PROXY": "", "https_proxy": PROXY}, True),
    (ADDRESS, {"HTTP_PROXY": PROXY}, False),
    (ADDRESS, {"ALL_PROXY": PROXY}, False),
    (ADDRESS, {"HTTPS_PROXY": PROXY, "REQUEST_METHOD": "GET"}, True),
    (ADDRESS, {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.9.8.7", "no_proxy": "x"}, False),
    (ADDRESS, {"HTTPS_PROXY": PROXY, "NO_PROXY": "x", "no_proxy": "10.9.8.7"}, True),
    (ADDRESS, {"HTTPS_PROXY": PROXY, "no_proxy": "10.9.8.7"}, False),
    (ADDRESS, {}, False),
    ("http://10.9.8.7:6443", {"HTTP_PROXY": PROXY}, True),
    ("http://10.9.8.7:6443", {"HTTPS_PROXY": PROXY}, False),
    *(
        (ADDRESS, {"HTTPS_PROXY": text}, True)
        for text in (
            "127.0.0.2:3128", "HTTP://127.0.0.2:3128", "http://127.0.0.2:3128/path?x",
            "http://u:p@127.0.0.2:3128", "u:p@127.0.0.2:3128", "socks5://127.0.0.2:3128",
            "socks5h://127.0.0.2:3128", "http://u:p@x@127.0.0.2:3128",
        )
    ),
]  # fmt: skip
"""A server, the environment, and whether the proxy is used."""
