"""Records an animated picture of the status page while a pod fails: ``make recording``.

    sandbox: client (traffic) ── node-1 (proxy) ── web-1…3, dns-1…2
    here: Chromium ◀── the page; one picture a second, with a line that says what happens

The traffic, the proxy and the page are real. Only the pauses are artificial: each picture is shown
for as long as a reader needs.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from userspace_proxy_testing.commands.demo_commands import Tour
from userspace_proxy_testing.commands.demo_manifests import (
    DNS_PODS,
    WEB_PODS,
    manifests_for,
    sample_traffic,
)
from userspace_proxy_testing.commands.sandbox_proxy import (
    page_socket,
    running_proxy,
    wait_until_ready,
)
from userspace_proxy_testing.sandbox import Sandbox

from .conftest import ARGS, CHROMIUM

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "demo.webp"
SIZE = {"width": 1280, "height": 520}
QUALITY = 82

_CAPTION = """text => {
  const line = document.getElementById("caption") ?? document.createElement("p");
  line.id = "caption";
  line.textContent = text;
  line.style = "position: fixed; inset: auto 0 0 0; margin: 0; padding: 12px 18px; z-index: 9;"
    + "font: 600 19px/1.3 sans-serif; color: #fff; background: #1f2937;";
  document.documentElement.append(line);
}"""


@dataclass
class Recording:
    """The pictures of a page, and the time for which each is shown."""

    page: Page
    pictures: list[Image.Image] = field(default_factory=list)
    durations_ms: list[int] = field(default_factory=list)

    def caption(self, text: str) -> None:
        """Show a line below the page from now on."""
        self.page.evaluate(_CAPTION, text)

    def take(self, *, shown_ms: int, seconds: int = 1) -> None:
        """Take a picture in each of the next seconds, because the page changes once a second."""
        for _ in range(seconds):
            before = self.page.locator("#figures").inner_text()
            self.page.wait_for_function(
                "before => document.getElementById('figures').innerText !== before", arg=before
            )
            picture = Image.open(io.BytesIO(self.page.screenshot()))
            self.pictures.append(picture.convert("RGB"))
            self.durations_ms.append(shown_ms)

    def save(self, path: Path) -> None:
        self.pictures[0].save(
            path,
            save_all=True,
            append_images=self.pictures[1:],
            duration=self.durations_ms,
            loop=0,
            quality=QUALITY,
            method=6,
            minimize_size=True,
        )


@contextlib.contextmanager
def scene() -> Iterator[tuple[Tour, int]]:
    """Run the demo's healthy Services with traffic; yield the tour and the status page's port."""
    with (
        page_socket(0) as page,
        tempfile.TemporaryDirectory(prefix="recording-") as name,
        Sandbox() as sandbox,
    ):
        folder, tour = Path(name), Tour()
        pods = {name: sandbox.add_pod(name) for name in (*WEB_PODS, *DNS_PODS)}
        for name in WEB_PODS:
            tour.serve(pods[name], tcp=8080)
        for name in DNS_PODS:
            tour.serve(pods[name], udp=5353)
        addresses = {name: str(pod.ip) for name, pod in pods.items()}
        objects = manifests_for({**addresses, "broken": "10.244.0.9"}).split("---\n")
        manifests = folder / "manifests"
        manifests.mkdir()
        (manifests / "shop.yaml").write_text(
            "---\n".join(each for each in objects if "flaky" not in each)
        )
        sandbox.add_pod("client").popen(
            [sys.executable, "-m", "userspace_proxy_testing.sandbox.traffic"]
            + [target for target in sample_traffic() if "10.96.0.30" not in target],
            stdin=subprocess.DEVNULL,
        )
        with running_proxy(sandbox, page, manifests, folder / "log") as proxy:
            port = page.getsockname()[1]
            wait_until_ready(port, proxy, folder / "log", lambda: False)
            yield tour, port


def record(recording: Recording, tour: Tour) -> None:
    """Break a pod, show the cause and the effects, and repair the pod."""
    page = recording.page
    recording.caption("Four Services of a node, with 30 new connections a second.")
    recording.take(shown_ms=1300, seconds=2)
    tour.run("break web-2")
    recording.caption("A pod stops listening. It is still listed as ready.")
    page.locator("tbody.attention .why").first.wait_for()
    recording.take(shown_ms=1600, seconds=2)
    recording.caption(
        "No request fails: other pods serve the connections. The page shows the cause."
    )
    page.locator("tbody.port", has_text="shop/web").get_by_role("link").first.click()
    page.get_by_text("ejected for").first.wait_for()
    recording.take(shown_ms=1700, seconds=3)
    tour.run("heal web-2")
    recording.caption("The pod answers again, and gets its share of connections.")
    page.locator("#events li", has_text="answers again").first.wait_for()
    recording.take(shown_ms=2200, seconds=2)


def main() -> None:
    """Write the picture."""
    with scene() as (tour, port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("live", exact=True).wait_for()
        recording = Recording(page)
        record(recording, tour)
        browser.close()
    recording.save(PICTURE)
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
