// Returns the keyboard focus to its link after the page has loaded itself again.
"use strict";

const same = (href) => [...document.links].filter((link) => link.href === href);

const saved = JSON.parse(sessionStorage.getItem("focus"));
if (saved?.page === location.href) {
  same(saved.href)[saved.index]?.focus({ preventScroll: true });
}

addEventListener("pagehide", () => {
  const { href } = document.activeElement;
  const index = href ? same(href).indexOf(document.activeElement) : -1;
  sessionStorage.setItem("focus", JSON.stringify({ page: location.href, href, index }));
});
