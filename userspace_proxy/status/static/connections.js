// Shows connections as they happen, while their part of the page is open and visible.
// The server has the words; this script only places them, as text.
"use strict";

{
  const part = document.getElementById("connections");
  const toggle = document.getElementById("connections-toggle");
  const panel = document.getElementById("connections-panel");
  const form = document.getElementById("connections-form");
  const state = document.getElementById("connections-live");
  const list = document.getElementById("connection-rows");
  const edges = document.getElementById("edge-rows");

  // As many rows as a reader scrolls through; the oldest make room.
  const ROWS = 200;
  const RETRY_MS = 3000;
  const MARKS = { trouble: "✕", attention: "!", ok: "✓", "": "·" };

  let stream;
  let retry;

  function row(cells, { level, numbers = false } = {}) {
    const tr = document.createElement("tr");
    tr.setAttribute("role", "row");
    if (level !== undefined) tr.className = level;
    cells.forEach((text, n) => {
      const cell = document.createElement("td");
      cell.setAttribute("role", "cell");
      if (numbers && n >= cells.length - 2) cell.className = "n";
      cell.textContent = n === 0 && level !== undefined ? `${MARKS[level]} ${text}` : text;
      tr.append(cell);
    });
    return tr;
  }

  function close() {
    clearTimeout(retry);
    stream?.close();
    stream = undefined;
    state.textContent = "";
    state.classList.remove("connected");
  }

  // Follows what the form selects. Without a reader the proxy observes nothing.
  function follow() {
    close();
    if (panel.hidden || document.hidden) return;
    const query = new URLSearchParams({ watch: "yes" });
    for (const [name, value] of new FormData(form)) {
      if (value.trim()) query.set(name, value.trim());
    }
    const own = (stream = new EventSource(`api/v1/connections?${query}`));
    own.onmessage = ({ data }) => {
      const { rows, edges: busiest } = JSON.parse(data);
      state.textContent = "live";
      state.classList.add("connected");
      list.prepend(...rows.reverse().map(({ level, cells }) => row(cells, { level })));
      while (list.rows.length > ROWS) list.deleteRow(-1);
      edges.replaceChildren(...busiest.map((cells) => row(cells, { numbers: true })));
    };
    own.onerror = async () => {
      state.classList.remove("connected");
      state.textContent = "reconnecting";
      if (own.readyState !== EventSource.CLOSED) return;
      const why = await refusal(own.url);
      if (own !== stream) return;
      if (why) state.textContent = why;
      retry = setTimeout(follow, RETRY_MS);
    };
  }

  // Returns why the server refuses a stream, which an EventSource doesn't report.
  async function refusal(url) {
    const abort = new AbortController();
    try {
      const answer = await fetch(url, { signal: abort.signal });
      return answer.ok ? "" : (await answer.text()).trim();
    } catch {
      return "";
    } finally {
      abort.abort();
    }
  }

  toggle.addEventListener("click", () => {
    panel.hidden = !panel.hidden;
    toggle.setAttribute("aria-expanded", String(!panel.hidden));
    follow();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    list.replaceChildren();
    follow();
  });
  document.addEventListener("visibilitychange", follow);
  part.hidden = false;
}
