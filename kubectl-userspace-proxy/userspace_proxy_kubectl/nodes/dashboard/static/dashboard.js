// Keeps a page up to date: it asks for it again and again, and replaces what differs.
// The server renders all markup.
"use strict";

const EVERY_MS = 1000;
// A search follows the last key after this many milliseconds.
const TYPING_MS = 150;

const byId = (id) => document.getElementById(id);
const live = byId("live");

// Makes one node like another, and touches only what differs: focus, selected text and
// scrolling of everything else stay.
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
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const had = [...old.childNodes];
  const have = [...wanted.childNodes];
  have.forEach((node, n) => (had[n] ? morph(had[n], node) : old.append(node)));
  had.slice(have.length).forEach((node) => node.remove());
}

let newsCame = Date.now();

function say(word) {
  if (word === "live") newsCame = Date.now();
  const age = Math.round((Date.now() - newsCame) / 1000);
  const text = word === "live" ? word : `${word} for ${age < 120 ? `${age} s` : `${Math.floor(age / 60)} min`}`;
  live.hidden = false;
  live.classList.toggle("connected", word === "live");
  if (live.textContent !== text) live.textContent = text;
  document.documentElement.classList.toggle("stale", word !== "live");
}

function show(text) {
  const wanted = new DOMParser().parseFromString(text, "text/html");
  for (const id of ["state", "main", "age"]) {
    if (wanted.getElementById(id)) morph(byId(id), wanted.getElementById(id));
  }
  if (byId("search")) byId("search").hidden = false;
  document.title = wanted.title;
  const icon = document.querySelector("link[rel=icon]");
  icon.href = wanted.querySelector("link[rel=icon]").getAttribute("href");
}

let due;
let asking;

// Asks for the page at once, and then from time to time while it is visible.
async function follow() {
  clearTimeout(due);
  asking?.abort();
  const mine = (asking = new AbortController());
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { signal: mine.signal, headers: { Accept: "text/html" } });
    const text = await answer.text();
    if (mine !== asking) return;
    if (answer.status === 403) return say("ended");
    if (answer.ok || answer.status === 404) {
      show(text);
      say("live");
    } else {
      say("no answer");
    }
  } catch {
    if (mine !== asking) return;
    say("no answer");
  }
  due = setTimeout(follow, EVERY_MS);
}

let typing;
document.addEventListener("input", ({ target }) => {
  if (target.id !== "q") return;
  clearTimeout(typing);
  typing = setTimeout(() => {
    const query = new URLSearchParams(location.search);
    query.delete("page");
    query.set("q", target.value.trim());
    if (!target.value.trim()) query.delete("q");
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    follow();
  }, TYPING_MS);
});

function leave(field) {
  if (field.value) {
    field.value = "";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  } else {
    field.blur();
  }
}

const help = byId("help");
document.addEventListener("keydown", (event) => {
  const field = byId("q");
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const isTyping = field && event.target === field;
  if (isTyping && event.key === "Escape") leave(field);
  else if (!isTyping && event.key === "/" && field) field.select();
  else if (!isTyping && event.key === "?") help.showModal();
  else return;
  event.preventDefault();
});
byId("help-button").addEventListener("click", () => help.showModal());
byId("help-button").hidden = false;

document.addEventListener("visibilitychange", follow);
if (byId("search")) byId("search").hidden = false;
say("live");
due = setTimeout(follow, EVERY_MS);
