// Keeps a page up to date by server-sent events, and follows keys and typing: the page of one
// proxy, and those of all nodes. The server renders all markup; this only replaces what differs.
"use strict";

const byId = (id) => document.getElementById(id);
// Pages of all nodes have no table whose rows come one by one, and those about one thing no search.
const table = byId("ports");
const field = () => byId("q");
const channel = document.querySelector("link[type='text/event-stream']").getAttribute("href");
const help = byId("help");
const live = byId("live");
const asOf = byId("as-of");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// A search follows the last key after this many milliseconds.
const TYPING_MS = 60;
const RETRY_MS = 3000;
// A very large node has news every few seconds only.
const SILENT_MS = 15000;
// An update of many rows is done in parts of this many milliseconds.
const SLICE_MS = 10;

// -- what changed ------------------------------------------------------------

// Makes one node like another, and touches only what differs: focus, selected text and
// tooltips of everything else stay.
function morph(old, wanted) {
  if (old.isEqualNode(wanted)) return;
  if (old.nodeName !== wanted.nodeName) return old.replaceWith(wanted);
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = wanted.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (old.getAttribute(name) === value) continue;
    old.setAttribute(name, value);
    if (name === "class" && old.tagName === "TBODY") flash(old);
  }
  const had = [...old.childNodes];
  const have = [...wanted.childNodes];
  have.forEach((node, n) => (had[n] ? morph(had[n], node) : old.append(node)));
  had.slice(have.length).forEach((node) => node.remove());
}

// Draws the eye to a row whose state has changed.
function flash(row) {
  if (!calm.matches) row.animate([{ opacity: 0.25 }, { opacity: 1 }], 600);
}

function parse(markup) {
  const template = document.createElement("template");
  template.innerHTML = markup;
  return template.content.firstElementChild;
}

// Puts the rows in order; those that are new are in `arrived`.
function arrange(ids, arrived) {
  const focused = document.activeElement;
  const wanted = new Set(ids);
  for (const row of [...table.tBodies]) {
    if (!wanted.has(row.id)) row.remove();
  }
  let last = table.tHead;
  for (const id of ids) {
    const row = byId(id) ?? arrived.get(id);
    if (last.nextElementSibling !== row) last.after(row);
    last = row;
  }
  // A row that was moved has lost the focus.
  if (focused.isConnected && focused !== document.activeElement) {
    focused.focus({ preventScroll: true });
  }
}

// Lets the browser draw and handle keys in between.
const pause = () => new Promise((resolve) => setTimeout(resolve));

let known = document.title;

async function update({ title, level, html = {}, rows }) {
  const arrived = new Map();
  let began = performance.now();
  for (const [id, markup] of Object.entries(html)) {
    if (performance.now() - began > SLICE_MS) {
      await pause();
      began = performance.now();
    }
    const old = byId(id);
    const wanted = parse(markup);
    if (old) morph(old, wanted);
    else arrived.set(id, wanted);
  }
  if (rows) arrange(rows, arrived);
  if (title) document.title = known = title;
  if (level) {
    const icon = document.querySelector("link[rel=icon]");
    icon.href = icon.getAttribute("href").replace(/icon-[a-z]+/, `icon-${level}`);
  }
  showSearch();
}

// -- the stream --------------------------------------------------------------

let stream;
let retry;
let updated = Promise.resolve();

function say(word) {
  live.hidden = false;
  live.classList.toggle("connected", word === "live");
  if (live.textContent !== word) live.textContent = word;
  showAge();
}

// The time of the node at the last news, and when it came.
let newsAt = asOf.dataset.at;
let newsCame = Date.now();

function noteNews(at) {
  newsAt = at;
  newsCame = Date.now();
}

// A page that isn't live looks so, and how old it is stays in view.
function showAge() {
  const age = Math.round((Date.now() - newsCame) / 1000);
  if (live.textContent === "live" && age * 1000 > SILENT_MS) return say("no news");
  const isStale = live.textContent !== "live" && live.textContent !== "";
  document.documentElement.classList.toggle("stale", isStale);
  asOf.hidden = !isStale;
  if (!isStale) {
    if (document.title !== known) document.title = known;
    return;
  }
  asOf.textContent = `as of ${newsAt}, ${age < 120 ? `${age} s` : `${Math.floor(age / 60)} min`} ago`;
  document.title = `Not live: ${known}`;
}
setInterval(showAge, 1000);

// Follows the selection in the address bar. A page that isn't visible has no stream: browsers
// allow six to one server.
function follow() {
  clearTimeout(retry);
  stream?.close();
  if (document.hidden) return;
  stream = new EventSource(`${channel}${location.search}`);
  stream.onmessage = ({ data, target }) => {
    const news = JSON.parse(data);
    noteNews(news.at);
    say("live");
    // One after the other, and none of a selection that was left meanwhile.
    updated = updated.then(() => target === stream && update(news));
  };
  stream.onerror = async ({ target }) => {
    say("reconnecting");
    if (target.readyState !== EventSource.CLOSED) return;
    retry = setTimeout(follow, RETRY_MS);
    const why = await refusal(target.url);
    if (why && target === stream) say(why);
  };
}

// Returns why the server refuses a stream, which an EventSource doesn't report; empty if it doesn't.
async function refusal(url) {
  const abort = new AbortController();
  try {
    const answer = await fetch(url, { signal: abort.signal });
    if (answer.status === 403) return "ended";
    return answer.status === 503 ? (await answer.text()).trim() : "";
  } catch {
    return "";
  } finally {
    abort.abort();
  }
}

// Shows another selection; `address` is that of the page without scripts.
function show(address, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  follow();
}

function selected() {
  return new URLSearchParams(location.search);
}

// Without scripts a page that loads itself again has no field; a part that came has it hidden.
function showSearch() {
  if (byId("search")) byId("search").hidden = false;
}

function showTyped() {
  clearTimeout(typing);
  const query = selected();
  const typed = field().value.trim();
  if ((query.get("q") ?? "") === typed) return;
  query.delete("page");
  query.set("q", typed);
  if (!typed) query.delete("q");
  show(query.size ? `?${query}` : location.pathname, { replace: true });
}

let typing;
document.addEventListener("input", ({ target }) => {
  if (target !== field()) return;
  clearTimeout(typing);
  typing = setTimeout(showTyped, TYPING_MS);
});
document.addEventListener("submit", (event) => {
  if (event.target.id !== "search") return;
  event.preventDefault();
  showTyped();
  step(1);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (link.pathname !== location.pathname || link.hash) return;
  event.preventDefault();
  show(link.href);
  showWanted();
  if (link.rel) rows()[0]?.scrollIntoView();
});

function showWanted() {
  if (field()) field().value = selected().get("q") ?? "";
}

addEventListener("popstate", () => {
  showWanted();
  follow();
});
document.addEventListener("visibilitychange", follow);

// -- keys --------------------------------------------------------------------

// The links of the rows of the page's first table.
function rows() {
  return [...(document.querySelector("main table")?.querySelectorAll("tbody .name a") ?? [])];
}

function step(by) {
  const links = rows();
  const focused = document.activeElement;
  // A proxy's row is a body of its table, which has what is shown when it is expanded, too.
  const row = focused.closest("tbody.port") ?? focused.closest("main tbody tr");
  const now = links.findIndex((link) => row?.contains(link));
  const next = links[now < 0 ? (by > 0 ? 0 : links.length - 1) : now + by];
  next?.focus({ preventScroll: true });
  next?.closest("tr").scrollIntoView({ block: "nearest" });
}

const keys = {
  j: () => step(1),
  k: () => step(-1),
  n: () => document.querySelector(".pages [rel=next]")?.click(),
  p: () => document.querySelector(".pages [rel=prev]")?.click(),
  "/": () => field()?.select(),
  "?": () => help.showModal(),
  Escape: () => {
    if (!field()) return;
    field().value = "";
    showTyped();
  },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const isTyping = field() && event.target === field();
  if (isTyping && event.key === "ArrowDown") step(1);
  else if (isTyping && event.key === "Escape" && !field().value) field().blur();
  else if (keys[event.key] && (!isTyping || event.key === "Escape")) keys[event.key]();
  else return;
  event.preventDefault();
});

byId("help-button").addEventListener("click", () => help.showModal());
byId("help-button").hidden = false;
showSearch();
follow();
