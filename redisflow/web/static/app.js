// Live parts, the tail of a run, and small comforts. Pages work without it; nothing that comes from a run is ever read as HTML here
// but the parts, which the server has rendered and escaped.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const MOST_LINES = 2000;

function localTimes(root) {
  const today = new Date().toDateString();
  for (const element of all("time[datetime]:not([data-done])", root)) {
    const at = new Date(element.dateTime);
    if (isNaN(at)) continue;
    element.title = element.textContent;
    const clock = at.toLocaleTimeString([], { hour12: false }) + "." + String(at.getMilliseconds()).padStart(3, "0");
    element.textContent = at.toDateString() === today ? clock : at.toLocaleDateString() + " " + clock;
    element.dataset.done = "1";
  }
}

function replacePart(target, html) {
  const open = new Map(all("details[id]", target).map((one) => [one.id, one.open]));
  const ticked = new Set(all("input[name=run]:checked", target).map((one) => one.value));
  const scrolled = all(".scroll", target).map((one) => [one.scrollLeft, one.scrollTop]);
  const active = target.contains(document.activeElement) ? document.activeElement : null;
  const place = active && { id: active.closest("[id]")?.id, href: active.getAttribute("href"), value: active.value, tag: active.tagName };
  target.innerHTML = html;
  for (const one of all("details[id]", target)) if (open.has(one.id)) one.open = open.get(one.id);
  for (const one of all("input[name=run]", target)) one.checked = ticked.has(one.value);
  all(".scroll", target).forEach((one, index) => { if (scrolled[index]) [one.scrollLeft, one.scrollTop] = scrolled[index]; });
  if (place) {
    const same = (one) => one.getAttribute("href") === place.href && one.value === place.value;
    const candidates = all(place.tag.toLowerCase(), target).filter(same);
    (candidates.find((one) => one.closest("[id]")?.id === place.id) || candidates[0])?.focus({ preventScroll: true });
  }
  localTimes(target);
  showForms();
  countPicked();
}

function showForms() {
  const status = $("#state")?.dataset.status;
  if (!status) return;
  const live = status === "pending" || status === "running";
  const fits = { live, ended: !live, failed: status === "failed" };
  for (const one of all("[data-when]")) one.hidden = !fits[one.dataset.when];
}

function cell(text, name) {
  const made = document.createElement("td");
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function timeOf(line) {
  const made = document.createElement("time");
  made.dateTime = line.iso;
  made.textContent = line.time;
  return made;
}

function addEvent(line) {
  const table = $("#events");
  if (!table) return;
  const row = document.createElement("tr"), first = cell("", "nowrap"), link = document.createElement("a");
  link.href = table.dataset.base + "?at=" + line.id;
  link.append(timeOf(line));
  first.append(link);
  row.append(first, cell(line.type), cell(line.step), cell(line.text, "wide"));
  table.append(row);
  localTimes(row);
}

function addLog(line) {
  const log = $("#log");
  if (!log) return;
  const row = document.createElement("div");
  row.className = "line " + (line.stream === "stderr" ? "stderr" : "stdout");
  row.dataset.step = line.step;
  const who = document.createElement("span"), text = document.createElement("span");
  who.className = "who"; who.textContent = line.step;
  text.className = "text"; text.textContent = line.text;
  row.append(timeOf(line), who, text);
  log.append(row);
  while (log.children.length > MOST_LINES) log.firstChild.remove();
  $("#no-log").hidden = true;
  filterLog(row);
  localTimes(row);
  if ($("#log-follow").checked) log.scrollTop = log.scrollHeight;
}

function filterLog(row) {
  const wanted = $("#log-step")?.value;
  row.hidden = Boolean(wanted) && row.dataset.step !== wanted;
}

// A stream goes on where it stopped: the browser sends the last id itself when it reconnects, and we do when a hidden tab comes back.
function follow(target) {
  let source = null, last = null, failures = 0;
  const state = $(".live-state");
  const say = (text, on) => { if (state) { state.textContent = text; state.classList.toggle("on", on); } };
  const open = () => {
    const url = new URL(target.dataset.live, location.href);
    if (last) url.searchParams.set("after", last);
    source = new EventSource(url);
    source.onopen = () => { failures = 0; say("live", true); };
    source.onerror = () => {
      say("reconnecting", false);
      if (source?.readyState !== EventSource.CLOSED) return;
      source = null; // the browser has given up, which a proxy without its server makes it do
      setTimeout(() => { if (!source && !document.hidden) open(); }, 1000 * Math.min(30, 2 ** failures++));
    };
    source.addEventListener("part", (event) => replacePart(target, event.data));
    source.addEventListener("event", (event) => { last = event.lastEventId; addEvent(JSON.parse(event.data)); });
    source.addEventListener("log", (event) => { last = event.lastEventId; addLog(JSON.parse(event.data)); });
  };
  const close = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else if (!source) open(); });
  addEventListener("pagehide", close);
  open();
}

function countPicked() {
  const told = $("#picked");
  if (!told) return;
  const boxes = all("input[name=run]"), count = boxes.filter((one) => one.checked).length;
  told.textContent = count ? count + " selected" : "";
  $("#pick-all").checked = count > 0 && count === boxes.length;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "pick-all") for (const one of all("input[name=run]")) one.checked = event.target.checked;
  if (event.target.id === "log-step") all("#log .line").forEach(filterLog);
  countPicked();
});
document.addEventListener("submit", (event) => {
  const text = event.submitter?.dataset.confirm;
  if (text && !confirm(text)) event.preventDefault();
});
function openTarget() {
  const step = location.hash.startsWith("#step-") && $(location.hash);
  if (step instanceof HTMLDetailsElement) step.open = true;
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-rerun]"), select = $("#rerun select");
  if (!link || !select) return;
  event.preventDefault();
  select.value = link.dataset.rerun;
  $("#rerun").scrollIntoView({ block: "center" });
  select.focus();
});
addEventListener("hashchange", openTarget);
openTarget();
localTimes(document);
countPicked();
{ const log = $("#log"); if (log) log.scrollTop = log.scrollHeight; }
for (const target of all("[data-live]")) follow(target);
