// The fleet by topology on one canvas. `names` is sent once; `map` brings a byte a node (and a byte a GPU) at each change.
const HEALTH = ["Healthy", "Degraded", "Failing", "Unknown"];
const SERVICE = ["In service", "Cordoned", "Draining", "Drained", "Under repair", "Probation"];
const OUT = new Set([3, 4]); // Drained, Under repair

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A message: length of the header (4 bytes), the header as JSON with the parts' names and lengths, the parts, each zlib.
function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const parts = {};
  let at = 4 + length;
  for (const [name, size] of header.parts) (parts[name] = bytes.subarray(at, at + size)), (at += size);
  return { header, parts };
}

pitwall.kinds.names = async (root, data) => {
  const { header, parts } = unpack(data);
  if (pitwall.topologies.has(header.version)) return pitwall.redraw?.();
  const packed = JSON.parse(new TextDecoder().decode(await inflate(parts.topology)));
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
  const [nodes, gpus] = await Promise.all([inflate(parts.node_state), parts.gpu_state ? inflate(parts.gpu_state) : null]);
  if (arrival !== root.pwArrival) return; // a newer one has come meanwhile
  pitwall.offset = header.now - Date.now();
  const map = (root.pwMap ??= makeMap(root));
  map.open = (target) => component.setTriggerValue("open", target);
  map.update(header, nodes, gpus);
};

// What a node is to the eye. Order matters: later ones are drawn over earlier ones and come later in the legend.
const LOOKS = [
  { name: "healthy", label: "Healthy", tone: "calm", sign: "used" },
  { name: "cordoned", label: "Cordoned", tone: "quiet", sign: "cordoned" },
  { name: "drained", label: "Drained", tone: "quiet", sign: "drained", help: "Drained or under repair" },
  { name: "probation", label: "Probation", tone: "quiet", sign: "probation" },
  { name: "draining", label: "Draining", tone: "busy", sign: "draining" },
  { name: "degraded", label: "Degraded", tone: "watch" },
  { name: "unknown", label: "Unknown", tone: "blank" },
  { name: "failing", label: "Failing", tone: "act" },
];

function lookOf(code) {
  const health = code & 3, service = code >> 2;
  if (OUT.has(service)) return 2;
  if (service === 2) return 4;
  if (health === 2) return 7;
  if (health === 3) return 6;
  if (health === 1) return 5;
  return service === 1 ? 1 : service === 5 ? 3 : 0;
}

function makeMap(root) {
  const canvas = h("canvas", { class: "pw-canvas", tabindex: 0, role: "application", "aria-roledescription": "fleet map" });
  const tip = h("div", { class: "pw-tip", hidden: true, role: "status" });
  const legend = h("div", { class: "pw-legend", role: "group", "aria-label": "Legend: show only" });
  const tools = h("div", { class: "pw-tools" },
    h("button", { type: "button", "data-zoom": "1.5", title: "Zoom in (+)", "aria-label": "Zoom in" }, "+"),
    h("button", { type: "button", "data-zoom": "0.667", title: "Zoom out (−)", "aria-label": "Zoom out" }, "−"),
    h("button", { type: "button", "data-zoom": "0", title: "Whole fleet (0)", "aria-label": "Whole fleet" }, "Fit"));
  const title = h("div", { class: "pw-map-head" }, h("h2", {}, "Fleet"), legend, tools);
  const stage = h("div", { class: "pw-stage" }, canvas, tip);
  root.append(h("section", { class: "pw-panel pw-map" }, title, stage));
  const context = canvas.getContext("2d");
  const kept = (pitwall.views.map ??= { zoom: 1, x: 0, y: 0, only: null });
  const map = { header: null, nodes: null, gpus: null, topology: null, plan: null, hover: -1, pointed: -1, focus: -1 };
  let colors = {}, hatch = null, ratio = 1, width = 0, height = 0, scheduled = false;

  function readColors() {
    const style = getComputedStyle(root);
    const of = (name) => style.getPropertyValue(`--st-${name}`).trim() || "#888";
    colors = {
      ground: of("background-color"), panel: of("secondary-background-color"), line: of("border-color"), ink: of("text-color"),
      calm: of("green-color"), free: of("green-background-color"), calmInk: of("green-text-color"),
      watch: of("orange-color"), watchTint: of("orange-background-color"),
      act: of("red-color"), actTint: of("red-background-color"), busy: of("blue-color"), busyTint: of("blue-background-color"),
      blank: of("gray-color"), blankTint: of("gray-background-color"), blankInk: of("gray-text-color"),
      font: style.fontFamily,
    };
    const tile = document.createElement("canvas");
    tile.width = tile.height = 5 * ratio;
    const pen = tile.getContext("2d");
    pen.scale(ratio, ratio);
    pen.fillStyle = colors.blankTint;
    pen.fillRect(0, 0, 5, 5);
    pen.strokeStyle = colors.blankInk;
    pen.lineWidth = 1.1;
    pen.beginPath();
    for (const shift of [-5, 0, 5]) pen.moveTo(shift - 1, 6), pen.lineTo(shift + 6, -1);
    pen.stroke();
    hatch = context.createPattern(tile, "repeat");
    hatch.setTransform(new DOMMatrix().scale(1 / ratio));
  }

  function measure() {
    ratio = globalThis.devicePixelRatio || 1;
    width = Math.floor(stage.clientWidth);
    if (!width || !map.topology) return;
    // As much of the window as is left below the map's head, but never less than the page asks for.
    const room = Math.min(1800, Math.max(map.header.height, innerHeight - stage.getBoundingClientRect().top - scrolled() - 44));
    map.byGpu = map.gpus !== null;
    map.plan = layOut(map.topology, { width: width - 2, height: room, byGpu: map.byGpu });
    height = Math.ceil(Math.min(room, map.plan.height) + 2);
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    readColors();
  }

  // How far the page is scrolled: a map laid out while scrolled must not come out taller.
  const scrolled = () => stage.closest('[data-testid="stMain"]')?.scrollTop ?? scrollY;

  map.update = (header, nodes, gpus) => {
    const relaid = !map.header || map.header.version !== header.version || (map.gpus === null) !== (gpus === null) || map.header.height !== header.height;
    Object.assign(map, { header, nodes, gpus });
    const topology = pitwall.topologies.get(header.version);
    if (!topology) return; // the names are on their way and draw it
    if (relaid || map.topology !== topology) {
      map.topology = topology;
      measure();
    } else readColors();
    map.looks = Uint8Array.from(nodes, lookOf);
    drawLegend();
    canvas.setAttribute("aria-label", header.summary + " Arrow keys move from node to node, Enter opens one.");
    draw();
    if (map.hover >= 0) showTip(map.hover);
  };
  pitwall.redraw = () => map.header && map.update(map.header, map.nodes, map.gpus);
  pitwall.point = (name) => {
    const at = name === null ? -1 : (map.topology?.index.get(name) ?? -1);
    if (at !== map.pointed) (map.pointed = at), ask();
  };

  function ask() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => ((scheduled = false), draw()));
  }

  function drawLegend() {
    const counts = new Array(LOOKS.length).fill(0);
    for (const look of map.looks) counts[look]++;
    const buttons = LOOKS.map((look, at) => ({ look, at, count: counts[at] })).filter(({ count, at }) => count || at === 0).reverse()
      .map(({ look, at, count }) => h("button", { type: "button", class: `pw-key pw-${look.tone}`, "data-look": at, "data-key": look.name, "aria-pressed": kept.only === at ? "true" : "false", title: kept.only === at ? "Show all again" : `Show only: ${look.help ?? look.label}` },
        glyph(look.sign ?? look.tone), h("span", {}, look.label), h("b", {}, count.toLocaleString("en-US"))));
    if (kept.only !== null && !counts[kept.only]) kept.only = null;
    if (map.gpus) buttons.push(h("span", { class: "pw-key pw-calm", "data-key": "free", title: "A GPU that no pod holds is light" }, glyph("free"), h("span", { class: "pw-soft" }, "free GPU")));
    show(legend, ...buttons);
  }

  // Screen position of node `index`.
  const at = (index) => [map.plan.xs[index] * kept.zoom + kept.x, map.plan.ys[index] * kept.zoom + kept.y];

  function draw() {
    if (!map.plan || !width) return;
    const { plan, looks } = map;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    drawTitles();
    const w = plan.nodeWidth * kept.zoom, t = plan.nodeHeight * kept.zoom;
    const visible = [];
    for (let index = 0; index < looks.length; index++) {
      const [x, y] = at(index);
      if (x + w >= 0 && y + t >= 0 && x <= width && y <= height) visible.push(index);
    }
    const dimmed = (index) => kept.only !== null && looks[index] !== kept.only;
    if (map.gpus) for (const index of visible) drawNodeByGpu(index, w, t, dimmed(index));
    else drawNodes(visible, w, t, dimmed);
    drawMarks(w, t);
    canvas.dataset.ownPainted = looks.length; // tests wait for it
  }

  function drawTitles() {
    context.textBaseline = "alphabetic";
    for (const box of map.plan.boxes) {
      const x = box.x * kept.zoom + kept.x, y = box.y * kept.zoom + kept.y;
      const wide = box.width * kept.zoom;
      if (x > width || x + wide < 0) continue;
      if (wide >= 26) {
        context.font = `600 12px ${colors.font}`;
        context.fillStyle = colors.ink;
        context.fillText(clip(box.name, wide), x, y + Math.min(13, box.title * kept.zoom));
      }
      for (const rack of box.racks) {
        if (!rack.title || rack.width * kept.zoom < 28) continue;
        context.font = `11px ${colors.font}`;
        context.fillStyle = colors.blankInk;
        context.fillText(clip(shorten(rack.name, box.name), rack.width * kept.zoom), (rack.x + map.plan.label * 0) * kept.zoom + kept.x, rack.y * kept.zoom + kept.y + 10 * Math.min(kept.zoom, 1.2));
      }
    }
  }

  // A rack's or node's name without what the title above it says already.
  function shorten(name, above) {
    return name.startsWith(above) && name.length > above.length ? name.slice(above.length).replace(/^[-_./]+/, "") : name;
  }

  function clip(text, wide) {
    if (context.measureText(text).width <= wide) return text;
    let end = text.length;
    while (end > 1 && context.measureText(text.slice(0, end) + "…").width > wide) end--;
    return end > 1 ? text.slice(0, end) + "…" : "";
  }

  const FILLS = () => [colors.calm, colors.free, colors.blankTint, colors.free, colors.busy, colors.watch, hatch, colors.act];

  function drawNodes(visible, w, t, dimmed) {
    const fills = FILLS();
    const groups = LOOKS.map(() => [[], []]);
    for (const index of visible) groups[map.looks[index]][dimmed(index) ? 1 : 0].push(index);
    groups.forEach((pair, look) => pair.forEach((group, dim) => {
      if (!group.length) return;
      context.globalAlpha = dim ? 0.18 : 1;
      context.fillStyle = fills[look];
      context.beginPath();
      // A cell of two pixels would be lost among thousands: what is not well is drawn larger than it is.
      const grown = look >= 4 ? Math.max(0, (4 - w) / 2) : 0;
      for (const index of group) {
        const [x, y] = at(index);
        context.rect(x - grown, y - grown, w + 2 * grown, t + 2 * grown);
      }
      context.fill();
      if (w >= 6 && (look === 1 || look === 2 || look === 3)) {
        context.strokeStyle = colors.blank;
        context.lineWidth = 1;
        context.beginPath();
        for (const index of group) {
          const [x, y] = at(index);
          context.rect(x + 0.5, y + 0.5, w - 1, t - 1);
          if (look === 2) context.moveTo(x, y + t), context.lineTo(x + w, y);
        }
        context.stroke();
      }
      if (w >= 7 && (look === 7 || look === 5)) for (const index of group) drawSign(look, ...at(index), w, t);
    }));
    context.globalAlpha = 1;
  }

  // ✕ on what fails, a corner on what is degraded: told without colour.
  function drawSign(look, x, y, w, t) {
    const size = Math.min(w, t), cx = x + w / 2, cy = y + t / 2, arm = size * 0.22;
    if (look === 7) {
      context.strokeStyle = colors.ground;
      context.lineWidth = Math.max(1.2, size / 8);
      context.beginPath();
      context.moveTo(cx - arm, cy - arm), context.lineTo(cx + arm, cy + arm);
      context.moveTo(cx + arm, cy - arm), context.lineTo(cx - arm, cy + arm);
      context.stroke();
    } else {
      context.fillStyle = colors.ground;
      context.beginPath();
      context.moveTo(cx, cy - arm), context.lineTo(cx + arm * 1.1, cy + arm), context.lineTo(cx - arm * 1.1, cy + arm);
      context.fill();
    }
  }

  function drawNodeByGpu(index, w, t, dim) {
    const [x, y] = at(index), look = map.looks[index], slots = map.topology.slots, step = w / slots;
    const inset = step >= 5 ? 1 : step >= 3 ? 0.5 : 0;
    const parked = look === 2;
    context.globalAlpha = dim ? 0.18 : 1;
    for (let slot = 0; slot < slots; slot++) {
      const code = map.gpus[index * slots + slot], left = x + slot * step;
      if (code === 255) {
        context.strokeStyle = colors.line;
        context.lineWidth = 1;
        if (step >= 4) context.strokeRect(left + inset + 0.5, y + 0.5, step - 2 * inset - 1, t - 1);
        continue;
      }
      const health = code & 3, used = (code >> 2) & 1;
      // Red is for what needs a person: on a node that is drained or being drained a failing GPU is an outline.
      const handled = health === 2 && (parked || look === 4);
      context.fillStyle = parked ? colors.blankTint : handled ? (used ? colors.calm : colors.free) : look === 6 || health === 3 ? hatch : health === 2 ? colors.act : health === 1 ? colors.watch : used ? colors.calm : colors.free;
      context.fillRect(left + inset / 2, y, step - inset, t);
      if (handled && step >= 4) {
        context.strokeStyle = colors.act;
        context.lineWidth = 1.2;
        context.strokeRect(left + inset / 2 + 0.6, y + 0.6, step - inset - 1.2, t - 1.2);
      } else if (!parked && !handled && (health === 2 || health === 1) && step >= 6 && look !== 6) drawSign(health === 2 ? 7 : 5, left, y, step, t);
    }
    const frame = { 1: colors.blank, 2: colors.blank, 3: colors.blank, 4: colors.busy, 5: colors.watch, 7: colors.act }[look];
    if (look === 3) {
      context.fillStyle = colors.blankInk;
      context.fillRect(x, y + t - 2, w - inset, 1.5);
    }
    if (frame) {
      context.strokeStyle = frame;
      context.lineWidth = look === 7 ? 2 : 1.4;
      context.setLineDash(look === 4 ? [4, 3] : look === 1 ? [2, 2] : []);
      const out = step >= 4 ? 1.5 : 0.5;
      context.strokeRect(x - out, y - out, w + 2 * out - inset / 2, t + 2 * out);
      context.setLineDash([]);
      if (look === 2 && t >= 5) {
        context.beginPath();
        context.moveTo(x, y + t), context.lineTo(x + w, y);
        context.stroke();
      }
    }
    if (map.plan.label && t >= 9) {
      context.font = `${look === 7 ? "600 " : ""}${Math.min(11, t)}px ${colors.font}`;
      context.fillStyle = look === 7 ? colors.act : colors.blankInk;
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.fillText(shortName(index), x - 6, y + t / 2 + 0.5);
      context.textAlign = "left";
    }
    context.globalAlpha = 1;
  }

  function shortName(index) {
    const name = map.topology.names[index];
    return name.slice(Math.max(name.lastIndexOf("-"), name.lastIndexOf(".")) + 1).slice(-3);
  }

  function rackOf(index) {
    for (const box of map.plan.boxes) for (const rack of box.racks) if (index >= rack.first && index < rack.first + rack.count) return [box, rack];
    return [null, null];
  }

  // Rings: what fails stays visible however small its cell; what the pointer, the keys or the list are on.
  function drawMarks(w, t) {
    if (w < 14 && !map.gpus) {
      context.strokeStyle = colors.act;
      context.lineWidth = 1.6;
      for (let index = 0; index < map.looks.length; index++) {
        if (map.looks[index] !== 7 || (kept.only !== null && kept.only !== 7)) continue;
        const [x, y] = at(index);
        context.beginPath();
        context.arc(x + w / 2, y + t / 2, Math.max(6, w), 0, 7);
        context.stroke();
      }
    }
    for (const index of new Set([map.hover, map.pointed, document.activeElement === canvas || root.getRootNode().activeElement === canvas ? map.focus : -1])) {
      if (index < 0) continue;
      const [x, y] = at(index);
      context.strokeStyle = colors.ink;
      context.lineWidth = 1.8;
      const out = 3.5;
      context.strokeRect(x - out, y - out, w + 2 * out, t + 2 * out);
      if (index === map.pointed) {
        context.strokeStyle = colors.ground;
        context.lineWidth = 1.2;
        context.strokeRect(x - out - 1.5, y - out - 1.5, w + 2 * out + 3, t + 2 * out + 3);
      }
    }
  }

  function find(x, y) {
    if (!map.plan) return -1;
    const px = (x - kept.x) / kept.zoom, py = (y - kept.y) / kept.zoom, slack = map.plan.gap / 2 + 0.5;
    for (const box of map.plan.boxes) {
      if (px < box.x - 2 || px > box.x + box.width + 2 || py < box.y || py > box.y + box.height + 2) continue;
      for (const rack of box.racks) {
        if (px < rack.x - 2 || px > rack.x + rack.width + 2 || py < rack.y || py > rack.y + rack.height + 2) continue;
        for (let index = rack.first; index < rack.first + rack.count; index++) {
          const nx = map.plan.xs[index], ny = map.plan.ys[index];
          if (px >= nx - slack - map.plan.label && px <= nx + map.plan.nodeWidth + slack && py >= ny - slack && py <= ny + map.plan.nodeHeight + slack) return index;
        }
      }
    }
    return -1;
  }

  function showTip(index) {
    if (index < 0) return void (tip.hidden = true);
    const code = map.nodes[index], [box, rack] = rackOf(index), note = map.header.notes[index];
    const tone = LOOKS[map.looks[index]].tone;
    let gpus = null;
    if (map.gpus) {
      const slots = map.topology.slots, codes = [...map.gpus.subarray(index * slots, (index + 1) * slots)].filter((value) => value !== 255);
      const bad = codes.filter((value) => (value & 3) === 2).length;
      gpus = `${codes.filter((value) => (value >> 2) & 1).length} of ${codes.length} GPUs in use${bad ? `, ${bad} failing` : ""}`;
    }
    show(tip, h("div", { class: "pw-mono pw-strong" }, map.topology.names[index]),
      h("div", {}, state(HEALTH[code & 3], tone), code >> 2 ? h("span", { class: "pw-soft" }, " · ", SERVICE[code >> 2]) : null, note ? [h("span", { class: "pw-soft" }, " for "), age(note[1])] : null),
      note ? h("div", { class: "pw-tip-why" }, note[0]) : h("span"),
      h("div", { class: "pw-soft" }, [gpus, box?.name, rack && shorten(rack.name, box.name)].filter(Boolean).join(" · ")));
    tip.hidden = false;
    const [x, y] = at(index), w = map.plan.nodeWidth * kept.zoom, t = map.plan.nodeHeight * kept.zoom;
    const left = Math.max(4, Math.min(x, width - tip.offsetWidth - 4));
    const below = y + t + 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${below + tip.offsetHeight < height ? below : Math.max(4, y - tip.offsetHeight - 8)}px`;
  }

  function hover(index) {
    if (index === map.hover) return;
    map.hover = index;
    canvas.style.cursor = index >= 0 ? "pointer" : kept.zoom > 1 ? "grab" : "default";
    showTip(index);
    ask();
  }

  function zoomBy(factor, cx = width / 2, cy = height / 2) {
    const zoom = factor === 0 ? 1 : Math.max(1, Math.min(40, kept.zoom * factor));
    const scale = zoom / kept.zoom;
    kept.x = zoom === 1 ? 0 : keep(cx - (cx - kept.x) * scale, width, zoom);
    kept.y = zoom === 1 ? 0 : keep(cy - (cy - kept.y) * scale, height, zoom);
    kept.zoom = zoom;
    hover(-1);
    ask();
  }

  const keep = (shift, size, zoom) => Math.min(0, Math.max(size - size * zoom, shift));
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const openNode = (index) => index >= 0 && map.open({ page: "nodes", query: { name: map.topology.names[index] }, version: map.topology.version, index });

  let drag = null;
  canvas.onpointerdown = (event) => {
    if (event.button) return;
    const [x, y] = place(event);
    drag = { x, y, left: kept.x, top: kept.y, moved: false };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    const [x, y] = place(event);
    if (drag && Math.hypot(x - drag.x, y - drag.y) > 4) drag.moved = true;
    if (drag?.moved && kept.zoom > 1) {
      kept.x = keep(drag.left + x - drag.x, width, kept.zoom);
      kept.y = keep(drag.top + y - drag.y, height, kept.zoom);
      hover(-1);
      canvas.style.cursor = "grabbing";
      return ask();
    }
    hover(find(x, y));
  };
  canvas.onpointerup = (event) => {
    const clicked = drag && !drag.moved;
    drag = null;
    if (clicked) openNode(find(...place(event)));
  };
  canvas.onpointerleave = () => !drag && hover(-1);
  canvas.ondblclick = (event) => find(...place(event)) < 0 && zoomBy(2, ...place(event));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), ...place(event));
  }, { passive: false });
  canvas.onkeydown = (event) => {
    if (event.key === "+" || event.key === "=") return zoomBy(1.5);
    if (event.key === "-") return zoomBy(1 / 1.5);
    if (event.key === "0") return zoomBy(0);
    if (event.key === "Enter") return openNode(map.focus);
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way || !map.plan) return;
    event.preventDefault();
    map.focus = map.focus < 0 ? 0 : nearest(map.focus, way);
    showTip(map.focus);
    ask();
  };
  canvas.onblur = () => (showTip(-1), ask());

  function nearest(from, [dx, dy]) {
    let best = from, least = Infinity;
    for (let index = 0; index < map.looks.length; index++) {
      const x = map.plan.xs[index] - map.plan.xs[from], y = map.plan.ys[index] - map.plan.ys[from];
      const along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (along <= 0.01) continue;
      const cost = along + aside * 4;
      if (cost < least) (least = cost), (best = index);
    }
    return best;
  }

  tools.onclick = (event) => event.target.dataset.zoom !== undefined && zoomBy(Number(event.target.dataset.zoom));
  legend.onclick = (event) => {
    const button = event.target.closest("[data-look]");
    if (!button) return;
    const look = Number(button.dataset.look);
    kept.only = kept.only === look ? null : look;
    drawLegend();
    ask();
  };
  new ResizeObserver(() => {
    if (!stage.isConnected || Math.floor(stage.clientWidth) === width) return;
    measure();
    ask();
  }).observe(stage);
  return map;
}
