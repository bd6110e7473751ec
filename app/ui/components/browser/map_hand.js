// Pointer, wheel, touch and keys; selecting; and what is asked of the server for it.

function openNode(map, index) {
  if (index >= 0) map.component.setTriggerValue("open", { page: "nodes", query: { name: map.topology.names[index] }, version: map.topology.version, index });
}

function choose(map, indexes, on = true) {
  for (const index of indexes) {
    const name = map.topology.names[index], want = on === "toggle" ? !map.kept.selected.has(name) : on;
    if (want) map.kept.selected.add(name);
    else map.kept.selected.delete(name);
  }
  map.kept.word = "";
  chooseByName(map);
  drawBar(map);
  writeAddress(map);
  map.ask();
}

function clearChosen(map) {
  map.kept.selected.clear();
  choose(map, []);
  say(map, "Nothing is selected.");
}

// Which GPUs are drawn, and by what: the server sends these alone. Once a change, after it has settled.
function askForGpus(map, visible) {
  const large = !map.header.by_gpu, spans = large && map.level === "gpu" ? spansOf(visible) : [];
  const wanted = { by: map.kept.by, ...(spans.length ? { version: map.topology.version, spans } : {}) }, key = JSON.stringify(wanted);
  if (key === map.sent) return;
  clearTimeout(map.asking);
  map.asking = setTimeout(() => ((map.sent = key), map.stage.isConnected && map.component.setStateValue("asked", wanted)), 120);
}

function hover(map, { index, slot, rack }) {
  if (index === map.hover && slot === map.hoverSlot && rack === map.hoverRack) return;
  Object.assign(map, { hover: index, hoverSlot: slot, hoverRack: rack });
  map.canvas.style.cursor = index >= 0 ? "pointer" : rack ? "zoom-in" : map.kept.zoom > 1 ? "grab" : "default";
  showTip(map, index, slot);
  pointRow(index < 0 ? null : map.topology.names[index]);
  map.ask();
}

// The lists beside the map show which row is the node under the pointer.
function pointRow(name) {
  for (const row of document.querySelectorAll("tr[data-own-pointed]")) delete row.dataset.ownPointed;
  if (name !== null) for (const row of document.querySelectorAll(`tr[data-node="${CSS.escape(name)}"]`)) row.dataset.ownPointed = "";
}

const NOTHING = { index: -1, slot: -1, rack: null };

function moved(map) {
  map.kept.near = null; // the address' own place holds until the person goes elsewhere
  hover(map, NOTHING);
  map.canvas.style.touchAction = map.kept.zoom > 1 ? "none" : "pan-y";
  writeAddress(map);
  map.ask();
}

function handle(map) {
  const { canvas, kept } = map;
  const touches = new Map();
  let drag = null, pinch = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.onpointerdown = (event) => {
    if (event.button) return;
    const [x, y] = place(event);
    touches.set(event.pointerId, [x, y]);
    canvas.setPointerCapture(event.pointerId);
    if (touches.size === 2) return void ((pinch = spread(touches)), (drag = null));
    drag = { x, y, left: kept.x, top: kept.y, moved: false, selecting: event.shiftKey };
  };
  canvas.onpointermove = (event) => {
    const [x, y] = place(event);
    if (touches.has(event.pointerId)) touches.set(event.pointerId, [x, y]);
    if (pinch && touches.size === 2) {
      const now = spread(touches);
      zoomBy(map, now.far / pinch.far, now.x, now.y);
      panTo(map, kept.x + now.x - pinch.x, kept.y + now.y - pinch.y);
      pinch = now;
      return moved(map);
    }
    if (drag && Math.hypot(x - drag.x, y - drag.y) > 4) drag.moved = true;
    if (drag?.moved && drag.selecting) {
      map.band = [Math.min(x, drag.x), Math.min(y, drag.y), Math.max(x, drag.x), Math.max(y, drag.y)];
      return map.ask();
    }
    if (drag?.moved && kept.zoom > 1) {
      panTo(map, drag.left + x - drag.x, drag.top + y - drag.y);
      moved(map);
      canvas.style.cursor = "grabbing";
      return;
    }
    hover(map, find(map, x, y));
  };
  canvas.onpointerup = (event) => {
    touches.delete(event.pointerId);
    if (pinch) return void (touches.size || (pinch = null));
    const done = drag, band = map.band;
    drag = map.band = null;
    if (!done) return;
    if (band) return choose(map, nodesWithin(map, band));
    if (done.moved) return;
    const found = find(map, ...place(event));
    if (event.shiftKey || event.ctrlKey || event.metaKey) return found.index >= 0 && choose(map, [found.index], "toggle");
    if (found.rack) return zoomToRack(map, found.rack), moved(map);
    openNode(map, found.index);
  };
  canvas.onpointercancel = (event) => (touches.delete(event.pointerId), (drag = pinch = map.band = null));
  canvas.onpointerleave = () => !drag && hover(map, NOTHING);
  canvas.ondblclick = (event) => {
    const found = find(map, ...place(event));
    if (found.index < 0 && !found.rack) zoomBy(map, 2, ...place(event)), moved(map);
  };
  // A plain wheel scrolls the page until the map has been clicked or tabbed into; a pinch is a wheel with Ctrl.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !map.focused()) return;
    event.preventDefault();
    zoomBy(map, Math.exp(-event.deltaY / 300), ...place(event));
    moved(map);
  }, { passive: false });
  canvas.onkeydown = (event) => press(map, event);
  canvas.onfocus = () => map.ask();
  canvas.onblur = () => (showTip(map, -1), map.ask());
}

function spread(touches) {
  const [[ax, ay], [bx, by]] = [...touches.values()];
  return { far: Math.max(1, Math.hypot(ax - bx, ay - by)), x: (ax + bx) / 2, y: (ay + by) / 2 };
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function press(map, event) {
  if (!map.plan || event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event, way = WAYS[key];
  const zooms = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 0 };
  if (key in zooms) zoomBy(map, zooms[key], ...middle(map)), moved(map), followFocus(map);
  else if (way) walk(map, way, event.shiftKey);
  else if (key === "Enter" && map.focus >= 0) enter(map);
  else if (key === " " && map.focus >= 0) choose(map, [map.focus], "toggle"), announce(map, map.focus);
  else if (key === "Escape") map.chosen.size ? clearChosen(map) : showTip(map, -1);
  else return;
  event.preventDefault();
}

const middle = (map) => (map.focus >= 0 ? screenOf(map, map.focus) : [map.width / 2, map.height / 2]);

function followFocus(map) {
  if (map.focus >= 0) bringIntoSight(map, map.focus), map.ask();
}

function walk(map, way, selecting) {
  const from = map.focus;
  map.focus = from < 0 ? 0 : map.level === "rack" ? nearestRack(map, from, way) : nearestNode(map, from, way);
  bringIntoSight(map, map.focus);
  if (selecting && map.level !== "rack") choose(map, [from < 0 ? map.focus : from, map.focus]);
  map.hoverRack = null;
  if (map.level === "rack") showRackTip(map, rackOf(map, map.focus)[1]);
  else showTip(map, map.focus);
  announce(map, map.focus);
  map.ask();
}

// Opens the node under the cursor; among racks goes into the rack first, to the worst of it.
function enter(map) {
  if (map.level !== "rack") return openNode(map, map.focus);
  const [, rack] = rackOf(map, map.focus);
  zoomToRack(map, rack);
  for (let index = rack.first; index < rack.first + rack.count; index++) if (map.looks[index] > map.looks[map.focus]) map.focus = index;
  moved(map);
}

// Buttons of the head and the bar.
function handleButtons(map) {
  map.tools.onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.zoom !== undefined) return zoomBy(map, Number(button.dataset.zoom)), moved(map);
    map.kept.table = !map.kept.table;
    drawTable(map);
  };
  map.picker.onchange = () => {
    Object.assign(map.kept, { by: map.picker.value, only: null });
    writeAddress(map);
    map.ask();
  };
  map.legend.onclick = (event) => {
    const button = event.target.closest("[data-look]");
    if (!button) return;
    map.kept.only = map.kept.only === button.dataset.look ? null : button.dataset.look;
    drawLegend(map);
    writeAddress(map);
    map.ask();
  };
  map.bar.onclick = (event) => {
    const wish = event.target.closest("[data-do]")?.dataset.do;
    if (wish === "clear") clearChosen(map);
    else if (wish === "copy") copyNames(map);
    else if (wish) map.component.setTriggerValue("open", { ask: wish, version: map.topology.version, spans: spansOf(map.chosen) });
  };
}

// The clipboard is only there on https and loopback; a plain http page copies as pages always have.
async function copyNames(map) {
  const names = [...map.chosen].map((index) => map.topology.names[index]).join("\n");
  let done = true;
  try {
    await navigator.clipboard.writeText(names);
  } catch {
    const area = h("textarea", { "aria-hidden": "true", class: "pw-unseen" });
    area.value = names;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  say(map, done ? `${map.chosen.size} names copied.` : "The browser does not let the page copy.");
  const button = map.bar.querySelector('[data-do="copy"]');
  if (button && done) (button.textContent = "Copied"), setTimeout(() => drawBar(map), 1500);
}
