// The fleet by topology on one canvas. `names` is sent once; `map` brings a byte a node (and a byte a GPU) at each change.

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const parsed = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

// A message: length of the header (4 bytes), the header as JSON with the parts' names and lengths, the parts, each zlib.
function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true), header = parsed(bytes.subarray(4, 4 + length)), parts = {};
  let at = 4 + length;
  for (const [name, size] of header.parts) (parts[name] = bytes.subarray(at, at + size)), (at += size);
  return { header, parts };
}

pitwall.kinds.names = async (root, data) => {
  const { header, parts } = unpack(data);
  if (pitwall.topologies.has(header.version)) return pitwall.redraw?.();
  const packed = parsed(await inflate(parts.topology));
  const topology = { version: header.version, slots: packed.slots, names: [], blocks: [] };
  for (const [name, racks] of packed.blocks) {
    topology.blocks.push({ name, racks: racks.map(([rack, prefix, ends]) => {
      const first = topology.names.length;
      for (const end of ends) topology.names.push(prefix + end);
      return { name: rack, first, count: ends.length, prefix };
    }) });
  }
  for (const block of topology.blocks) block.most = block.racks.reduce((high, rack) => Math.max(high, rack.count), 1);
  topology.index = new Map(topology.names.map((name, index) => [name, index]));
  pitwall.topologies.clear();
  pitwall.topologies.set(header.version, topology);
  pitwall.redraw?.();
};

pitwall.kinds.map = async (root, data, component) => {
  const { header, parts } = unpack(data);
  const arrival = (root.pwArrival = (root.pwArrival ?? 0) + 1);
  const names = Object.keys(parts), bytes = await Promise.all(names.map((name) => inflate(parts[name])));
  if (arrival !== root.pwArrival) return; // a newer one has come meanwhile
  const map = (root.pwMap ??= makeMap(root));
  map.component = component;
  update(map, header, Object.fromEntries(names.map((name, at) => [name, bytes[at]])));
};

function makeMap(root) {
  const kept = (pitwall.views.map ??= { zoom: 1, x: 0, y: 0, only: null, by: "health", near: null, select: null, selected: new Set(), word: "", wordSeen: 0, table: false });
  readAddress(kept);
  const map = { root, kept, header: null, nodes: null, topology: null, plan: null, level: "node", hover: -1, hoverSlot: -1, hoverRack: null, pointed: -1, focus: -1, band: null, chosen: new Set(), ratio: 1, width: 0, height: 0, sent: null };
  map.canvas = h("canvas", { class: "pw-canvas", tabindex: 0, role: "application", "aria-roledescription": "fleet map", "aria-describedby": "pw-map-keys" });
  map.tip = h("div", { class: "pw-tip", hidden: true, "aria-hidden": "true" });
  map.said = h("div", { class: "pw-unseen", role: "status", "aria-live": "polite" });
  map.legend = h("div", { class: "pw-legend", role: "group", "aria-label": "Legend: show only" });
  map.picker = h("select", { class: "pw-picker", "aria-label": "Colour by" }, COLOUR_BY.map(([by, label]) => h("option", { value: by }, label)));
  map.tools = h("div", { class: "pw-tools" },
    h("button", { type: "button", "data-table": true, "aria-pressed": "false", title: "The nodes that stand out, as a table" }, "Table"),
    h("button", { type: "button", "data-zoom": "1.5", title: "Zoom in (+)", "aria-label": "Zoom in" }, "+"),
    h("button", { type: "button", "data-zoom": "0.667", title: "Zoom out (−)", "aria-label": "Zoom out" }, "−"),
    h("button", { type: "button", "data-zoom": "0", title: "Whole fleet (0)", "aria-label": "Fit the whole fleet" }, "Fit"));
  map.bar = h("div", { class: "pw-map-bar", role: "toolbar", "aria-label": "Selected nodes", hidden: true });
  map.table = h("div", { class: "pw-map-table", hidden: true });
  map.stage = h("div", { class: "pw-stage" }, map.canvas, map.tip);
  const keys = h("p", { id: "pw-map-keys", class: "pw-unseen" }, "Arrow keys move from cell to cell, Enter opens, Space selects, Shift with arrows selects on, plus and minus zoom, 0 shows the whole fleet, Escape clears the selection. The button Table tells the same in words.");
  root.append(h("section", { class: "pw-panel pw-map", "aria-label": "Fleet map" }, h("div", { class: "pw-map-head" }, h("h2", {}, "Fleet"), map.picker, map.legend, map.tools), map.bar, map.stage, map.table, map.said, keys));
  map.context = map.canvas.getContext("2d");
  map.focused = () => (map.root.getRootNode().activeElement ?? document.activeElement) === map.canvas;
  let scheduled = false;
  map.ask = () => {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => ((scheduled = false), draw(map)));
  };
  handle(map);
  handleButtons(map);
  listenTable(map);
  pitwall.redraw = () => map.header && update(map, map.header, map.frames);
  pitwall.point = (name) => {
    const at = name === null ? -1 : (map.topology?.index.get(name) ?? -1);
    if (at !== map.pointed) (map.pointed = at), map.ask();
  };
  new ResizeObserver(() => {
    if (!map.stage.isConnected || !map.plan || Math.floor(map.stage.clientWidth) === map.width) return;
    measure(map);
    map.ask();
  }).observe(map.stage);
  return map;
}

function listenTable(map) {
  map.table.onclick = (event) => {
    const element = event.target.closest("[data-open]");
    if (!element || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    map.component.setTriggerValue("open", JSON.parse(element.dataset.open));
  };
}

function update(map, header, frames) {
  const relaid = !map.header || map.header.version !== header.version || map.header.by_gpu !== header.by_gpu || map.header.height !== header.height;
  Object.assign(map, { header, frames, nodes: frames.node_state, told: frames.told === map.frames?.told ? map.told : parsed(frames.told) });
  const topology = pitwall.topologies.get(header.version);
  if (!topology || map.nodes.length !== topology.names.length) return; // the names are on their way and draw it
  const renamed = map.topology !== topology;
  if (relaid || renamed) {
    map.topology = topology;
    if (renamed) Object.assign(map, { hover: -1, hoverRack: null, pointed: -1, focus: -1 });
    map.looks = map.look = null;
  }
  map.sent ??= JSON.stringify({ by: header.by });
  map.looks = map.nodes.map(lookOf);
  map.failing = [];
  map.looks.forEach((one, index) => one === FAILING && map.failing.push(index));
  map.gpuBase = new Int32Array(map.nodes.length).fill(-1);
  let at = 0;
  for (const [first, count] of header.spans) for (let index = first; index < first + count; index++, at += topology.slots) map.gpuBase[index] = at;
  map.look = classify(map);
  if (renamed) takeShared(map);
  if (relaid || renamed) measure(map);
  else readColors(map);
  if (header.word && header.word.number !== map.kept.wordSeen) Object.assign(map.kept, { word: header.word.text, wordSeen: header.word.number });
  if (map.picker !== document.activeElement) map.picker.value = map.kept.by;
  map.canvas.setAttribute("aria-label", `${header.summary} ${map.failing.length} failing.`);
  drawLegend(map);
  drawBar(map);
  drawTable(map);
  draw(map);
  if (renamed) writeAddress(map); // back from another view, whose address was its own
  if (map.hover >= 0 || map.hoverRack) showTip(map, map.hover, map.hoverSlot);
}

// How far the page is scrolled: a map laid out while scrolled must not come out taller.
const scrolled = (map) => map.stage.closest('[data-testid="stMain"]')?.scrollTop ?? scrollY;

function measure(map) {
  const { kept, stage, canvas } = map, near = kept.near ?? (map.plan && map.width && kept.zoom > 1 ? map.topology.names[Math.min(middleNode(map), map.topology.names.length - 1)] : null);
  map.ratio = globalThis.devicePixelRatio || 1;
  map.width = Math.floor(stage.clientWidth);
  if (!map.width || !map.topology) return;
  // As much of the window as is left below the map's head, but never less than the page asks for.
  const room = Math.min(1800, Math.max(map.header.height, innerHeight - stage.getBoundingClientRect().top - scrolled(map) - 44));
  map.plan = layOut(map.topology, { width: map.width - 2, height: room, byGpu: map.header.by_gpu });
  map.height = Math.ceil(map.plan.height + 2);
  canvas.width = map.width * map.ratio;
  canvas.height = map.height * map.ratio;
  canvas.style.height = `${map.height}px`;
  canvas.style.touchAction = kept.zoom > 1 ? "none" : "pan-y";
  kept.zoom = Math.min(kept.zoom, mostZoom(map));
  if (kept.zoom > 1 && near && map.topology.index.has(near)) centreOn(map, map.topology.index.get(near));
  else panTo(map, kept.x, kept.y);
  readColors(map);
}
