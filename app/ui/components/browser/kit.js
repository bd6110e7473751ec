// What every component of the page stands on: elements made from data (never from HTML), a patch that keeps
// focus, hover and scroll, ages that tick by themselves, and the page's own pulse.
const pitwall = (globalThis.pitwall ??= { kinds: {}, views: {}, topologies: new Map(), heard: performance.now(), offset: 0 });

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "rect", "circle", "line", "g"]);

function h(tag, attributes, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

// Makes `old` look like `next`, touching only what differs. Children with data-key are matched by it.
function morph(old, next) {
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) return old.replaceWith(next);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    const readers = name.startsWith("data-own") || (name === "open" && old.nodeName === "DETAILS");
    if (!next.hasAttribute(name) && !readers) old.removeAttribute(name);
  }
  for (const { name, value } of [...next.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, [...next.childNodes]);
}

function morphChildren(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let cursor = parent.firstChild;
  for (const next of wanted) {
    const key = next.dataset?.key;
    const match = key ? keyed.get(key) : cursor && !cursor.dataset?.key ? cursor : null;
    if (match && match.nodeName === next.nodeName) {
      if (match === cursor) cursor = cursor.nextSibling;
      else parent.insertBefore(match, cursor);
      morph(match, next);
    } else parent.insertBefore(next, cursor);
  }
  while (cursor) {
    const gone = cursor;
    cursor = cursor.nextSibling;
    gone.remove();
  }
}

// The container of a component's mount, the same one at each run so that state and handlers stay.
function rootOf(component) {
  const host = component.parentElement;
  let root = host.querySelector(":scope .pw");
  if (!root) host.append((root = h("div", { class: "pw" })));
  return root;
}

function show(root, ...children) {
  morphChildren(root, children.flat(Infinity).filter((child) => child instanceof Node));
}

const serverNow = () => Date.now() + pitwall.offset;

function spell(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const minutes = Math.floor(seconds / 60), hours = Math.floor(seconds / 3600), days = Math.floor(seconds / 86400);
  if (seconds < 60) return `${seconds} s`;
  if (!hours) return `${minutes} min`;
  if (!days) return hours >= 10 || !(minutes % 60) ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  return days >= 10 || !(hours % 24) ? `${days} d` : `${days} d ${hours % 24} h`;
}

const pad = (number) => String(number).padStart(2, "0");

function clock(at) {
  const time = new Date(at);
  const utc = time.toISOString().slice(0, 19).replace("T", " ");
  return `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())} ${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())} here, ${utc} UTC`;
}

// How long ago `at` (Unix milliseconds) was; ticks. `until` counts down instead.
function age(at, { prefix = "", suffix = "", until = false } = {}) {
  if (at === null || at === undefined) return h("span", { class: "pw-soft" }, "unknown");
  const text = prefix + spell(until ? at - serverNow() : serverNow() - at) + suffix;
  return h("time", { datetime: new Date(at).toISOString(), title: clock(at), "data-at": at, "data-prefix": prefix, "data-suffix": suffix, "data-until": until }, text);
}

function tick() {
  const now = serverNow();
  for (const element of document.querySelectorAll(".pw time[data-at]")) {
    const { at, prefix, suffix, until } = element.dataset;
    const text = (prefix ?? "") + spell(until !== undefined ? at - now : now - at) + (suffix ?? "");
    if (element.firstChild?.data !== text) element.textContent = text;
  }
  const silence = (performance.now() - pitwall.heard) / 1000;
  document.documentElement.toggleAttribute("data-pw-paused", silence > 8);
  for (const element of document.querySelectorAll(".pw-paused-age")) element.textContent = spell(silence * 1000);
}

// Each tone has a shape of its own, so that nothing is told by colour alone.
const GLYPHS = {
  calm: () => [h("circle", { cx: 6, cy: 6, r: 3.2, fill: "currentColor" })],
  quiet: () => [h("circle", { cx: 6, cy: 6, r: 3.4, fill: "none", stroke: "currentColor", "stroke-width": 1.4 })],
  watch: () => [h("path", { d: "M6 1.4 11 10.6H1Z", fill: "currentColor" })],
  act: () => [h("rect", { x: 0.8, y: 0.8, width: 10.4, height: 10.4, rx: 1.6, fill: "currentColor" }), h("path", { d: "M3.6 3.6l4.8 4.8M8.4 3.6l-4.8 4.8", stroke: "var(--st-background-color)", "stroke-width": 1.7 })],
  busy: () => [h("circle", { cx: 6, cy: 6, r: 4.4, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }), h("path", { d: "M6 1.6A4.4 4.4 0 0 1 6 10.4Z", fill: "currentColor" })],
  blank: () => [h("rect", { x: 1, y: 1, width: 10, height: 10, rx: 1.4, fill: "none", stroke: "currentColor", "stroke-width": 1.2 }), h("path", { d: "M1.5 6.5l5-5M1.5 10.5l9-9M5.5 10.5l5-5", stroke: "currentColor", "stroke-width": 1.1 })],
  cordoned: () => [h("rect", { x: 1, y: 1.5, width: 10, height: 9, rx: 1, fill: "none", stroke: "currentColor", "stroke-width": 1.3, "stroke-dasharray": "1.6 1.4" })],
  drained: () => [h("rect", { x: 1, y: 1.5, width: 10, height: 9, rx: 1, fill: "none", stroke: "currentColor", "stroke-width": 1.2 }), h("path", { d: "M1.5 10L10.5 2", stroke: "currentColor", "stroke-width": 1.2 })],
  draining: () => [h("rect", { x: 1, y: 1.5, width: 10, height: 9, rx: 1, fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-dasharray": "3 1.6" })],
  probation: () => [h("rect", { x: 1, y: 1.5, width: 10, height: 9, rx: 1, fill: "none", stroke: "currentColor", "stroke-width": 1.2 }), h("path", { d: "M3 8.2h6", stroke: "currentColor", "stroke-width": 1.4 })],
  used: () => [h("rect", { x: 1, y: 1.5, width: 10, height: 9, rx: 1, fill: "var(--st-green-color)" })],
  free: () => [h("rect", { x: 1, y: 1.5, width: 10, height: 9, rx: 1, fill: "var(--st-green-background-color)" })],
  done: () => [h("path", { d: "M1.8 6.4l2.9 2.9L10.2 3.2", fill: "none", stroke: "currentColor", "stroke-width": 1.8 })],
};

function glyph(tone) {
  return h("svg", { viewBox: "0 0 12 12", class: `pw-glyph pw-${tone}`, "aria-hidden": "true" }, (GLYPHS[tone] ?? GLYPHS.quiet)());
}

function state(word, tone, { strong = false } = {}) {
  return h("span", { class: `pw-state pw-${tone}${strong ? " pw-strong" : ""}` }, glyph(tone), h("span", {}, word));
}

// The first view has no path of its own: Streamlit knows it as the root alone.
const addressOf = (target) => {
  const query = String(new URLSearchParams(target.query ?? {}));
  return `${target.page === "overview" ? "./" : target.page}${query ? `?${query}` : ""}`;
};

// A link inside the page: a real address to open in a tab or to share, a soft switch when clicked.
function link(target, ...children) {
  return h("a", { href: addressOf(target), class: "pw-link", "data-open": JSON.stringify(target) }, children);
}

// One handler a root, set again at each run: an `open` trigger for links and rows.
function listen(root, component) {
  root.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    const element = event.target.closest("[data-open]");
    if (!element || !root.contains(element)) return;
    if (!event.target.closest("a") && String(getSelection())) return; // a text was being selected
    event.preventDefault();
    component.setTriggerValue("open", JSON.parse(element.dataset.open));
  };
}

pitwall.render = (kind, component) => {
  pitwall.heard = performance.now();
  const { data } = component;
  if (data?.now) pitwall.offset = data.now - Date.now();
  try {
    return pitwall.kinds[kind](rootOf(component), data, component);
  } catch (error) {
    console.error(`pitwall: ${kind}`, error);
    show(rootOf(component), h("p", { class: "pw-empty" }, `This part could not be drawn (${error.message}). Reload the page.`));
  }
};

function start(style) {
  let element = document.getElementById("pitwall-style");
  if (!element) document.head.append((element = h("style", { id: "pitwall-style" })));
  if (element.textContent !== style) element.textContent = style;
  clearInterval(pitwall.ticking);
  pitwall.ticking = setInterval(tick, 1000);
  const waiting = globalThis.pitwallWaiting ?? [];
  globalThis.pitwallWaiting = [];
  for (const [kind, component] of waiting) pitwall.render(kind, component);
}
