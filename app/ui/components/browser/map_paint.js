// Drawing: titles, then racks, nodes or GPUs, then what must be seen whatever the size. Colours are Streamlit's variables.

function readColors(map) {
  const style = getComputedStyle(map.root), of = (name) => style.getPropertyValue(`--st-${name}`).trim();
  const listed = (name) => of(name).split(/,(?![^(]*\))/).map((one) => one.trim()).filter(Boolean);
  const said = {
    ground: of("background-color"), line: of("border-color"), ink: of("text-color"), calm: of("green-color"), free: of("green-background-color"),
    watch: of("orange-color"), act: of("red-color"), busy: of("blue-color"), blank: of("gray-color"), blankTint: of("gray-background-color"),
    blankInk: of("gray-text-color"), accent: of("primary-color"), kinds: listed("chart-categorical-colors"), scale: listed("chart-sequential-colors"), font: style.fontFamily,
  };
  const key = JSON.stringify([said, map.ratio]);
  if (map.colorsKey === key) return;
  map.colorsKey = key;
  map.colors = said;
  map.hatch = hatching(map);
}

function hatching({ context, ratio, colors }) {
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
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / ratio));
  return pattern;
}

function paintOf(map, name) {
  if (name === "hatch") return map.hatch;
  const [list, at] = name.split(":");
  if (list === "kind") return map.colors.kinds[at % map.colors.kinds.length] ?? map.colors.blank;
  if (list === "scale") return map.colors.scale[at] ?? map.colors.blank;
  return map.colors[name];
}

function draw(map) {
  if (!map.plan || !map.width) return;
  const { context, canvas } = map;
  context.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
  context.clearRect(0, 0, map.width, map.height);
  const visible = visibleNodes(map);
  map.level = levelOf(map, visible);
  map.fills = map.look.classes.map((one) => paintOf(map, one.paint));
  drawTitles(map);
  if (map.level === "rack") drawRacks(map);
  else if (map.level === "node") drawNodes(map, visible);
  else for (const index of visible) drawNodeByGpu(map, index);
  drawBlockTitles(map);
  drawMarks(map, visible);
  Object.assign(canvas.dataset, { ownPainted: map.nodes.length, ownLevel: map.level, ownBy: map.look.by }); // tests wait for it
  askForGpus(map, visible);
}

const isDim = (map, at) => map.kept.only !== null && map.look.classes[at].key !== map.kept.only;
const DIM = 0.16;

// A block's title stays at the edge while its racks are in sight, so that one knows where one has zoomed to.
function drawTitles(map) {
  const { context, kept, colors, plan } = map;
  context.textBaseline = "alphabetic";
  for (const box of plan.boxes) {
    const x = box.x * kept.zoom + kept.x, y = box.y * kept.zoom + kept.y, wide = box.width * kept.zoom, tall = box.height * kept.zoom;
    if (x > map.width || x + wide < 0 || y > map.height || y + tall < 0) continue;
    for (const rack of box.racks) {
      const room = rack.title * kept.zoom || plan.rackGap * kept.zoom;
      if (room < 12 || rack.width * kept.zoom < 28) continue;
      context.font = `11px ${colors.font}`;
      context.fillStyle = colors.blankInk;
      context.fillText(clip(context, shorten(rack.name, box.name), rack.width * kept.zoom), rack.x * kept.zoom + kept.x, (rack.y + rack.title) * kept.zoom + kept.y - 4);
    }
  }
}

function drawBlockTitles(map) {
  const { context, kept, colors, plan } = map;
  context.font = `600 12px ${colors.font}`;
  context.textBaseline = "alphabetic";
  for (const box of plan.boxes) {
    const x = box.x * kept.zoom + kept.x, y = box.y * kept.zoom + kept.y, wide = box.width * kept.zoom, tall = box.height * kept.zoom;
    if (x > map.width || x + wide < 26 || y > map.height || y + tall < 24 || wide < 26) continue;
    const left = Math.max(0, x), name = clip(context, box.name, x + wide - left), line = Math.max(y + Math.min(13, box.title * kept.zoom), 13);
    if (line > y + 13 || left > x) {
      context.globalAlpha = 0.85;
      context.fillStyle = colors.ground;
      context.fillRect(left, line - 13, context.measureText(name).width + 8, 18);
      context.globalAlpha = 1;
    }
    context.fillStyle = colors.ink;
    context.fillText(name, left, line);
  }
}

function clip(context, text, wide) {
  if (context.measureText(text).width <= wide) return text;
  let end = text.length;
  while (end > 1 && context.measureText(text.slice(0, end) + "…").width > wide) end--;
  return end > 1 ? text.slice(0, end) + "…" : "";
}

// A rack is one cell: calm with its troubles as dots, striped by who holds it, or in its nodes' mean colour.
function drawRacks(map) {
  const { context, look, kept } = map, calm = look.classes.findIndex((one) => one.calm);
  for (const [, rack] of eachRack(map)) {
    const [x, y, w, t] = rackRectangle(map, rack);
    if (x > map.width || y > map.height || x + w < 0 || y + t < 0) continue;
    for (const [at, from, share] of stripesOf(map, rack, calm)) {
      context.globalAlpha = isDim(map, at) ? DIM : 1;
      context.fillStyle = map.fills[at];
      context.fillRect(x, y + from * t, w, share * t);
    }
  }
  context.globalAlpha = 1;
  const dots = kept.only === null ? look.dots : look.dots.filter((index) => look.classes[look.nodes[index]].key === kept.only);
  drawNodes(map, dots, true);
}

// [class, from, share] of a rack, shares of its height that sum to 1.
function stripesOf(map, rack, calm) {
  const { look } = map;
  if (calm >= 0) return [[calm, 0, 1]];
  const counts = new Array(look.classes.length).fill(0);
  for (let index = rack.first; index < rack.first + rack.count; index++) counts[look.nodes[index]]++;
  if (!look.striped) {
    const unknown = counts.length - 1, known = rack.count - counts[unknown];
    if (known < rack.count / 2) return [[unknown, 0, 1]];
    const sum = counts.reduce((total, count, at) => total + (at === unknown ? 0 : count * at), 0);
    return [[Math.round(sum / known), 0, 1]];
  }
  const stripes = [];
  let from = 0;
  counts.forEach((count, at) => count && (stripes.push([at, from, count / rack.count]), (from += count / rack.count)));
  return stripes;
}

function drawNodes(map, indexes, asDots = false) {
  const { context, look } = map, [w, t] = sizeOf(map);
  const groups = look.classes.map(() => []);
  for (const index of indexes) groups[look.nodes[index]].push(index);
  groups.forEach((group, at) => {
    if (!group.length) return;
    const one = look.classes[at];
    context.globalAlpha = isDim(map, at) ? DIM : 1;
    context.fillStyle = map.fills[at];
    context.beginPath();
    // A cell of two pixels would be lost among thousands: what is not well is drawn larger than it is.
    const grown = asDots || (look.dots.length && !one.calm) ? Math.max(0, (DOT - w) / 2) : 0;
    for (const index of group) {
      const [x, y] = screenOf(map, index);
      context.rect(x - grown, y - grown, w + 2 * grown, t + 2 * grown);
    }
    context.fill();
    if (w >= 6 && (one.mark === "edge" || one.mark === "slash")) strokeNodes(map, group, one.mark === "slash");
    if (w >= 7 && (one.mark === "cross" || one.mark === "corner")) for (const index of group) drawSign(map, one.mark, ...screenOf(map, index), w, t);
  });
  context.globalAlpha = 1;
}

function strokeNodes(map, group, slashed) {
  const { context, colors } = map, [w, t] = sizeOf(map);
  context.strokeStyle = colors.blank;
  context.lineWidth = 1;
  context.beginPath();
  for (const index of group) {
    const [x, y] = screenOf(map, index);
    context.rect(x + 0.5, y + 0.5, w - 1, t - 1);
    if (slashed) context.moveTo(x, y + t), context.lineTo(x + w, y);
  }
  context.stroke();
}

// ✕ on what fails, a corner on what is degraded: told without colour.
function drawSign({ context, colors }, mark, x, y, w, t) {
  const size = Math.min(w, t), cx = x + w / 2, cy = y + t / 2, arm = size * 0.22;
  context.beginPath();
  if (mark === "cross") {
    context.strokeStyle = colors.ground;
    context.lineWidth = Math.max(1.2, size / 8);
    context.moveTo(cx - arm, cy - arm), context.lineTo(cx + arm, cy + arm);
    context.moveTo(cx + arm, cy - arm), context.lineTo(cx - arm, cy + arm);
    context.stroke();
  } else {
    context.fillStyle = colors.ground;
    context.moveTo(cx, cy - arm), context.lineTo(cx + arm * 1.1, cy + arm), context.lineTo(cx - arm * 1.1, cy + arm);
    context.fill();
  }
}

function drawNodeByGpu(map, index) {
  if (map.gpuBase[index] < 0) return drawNodes(map, [index]); // its GPUs are on their way
  const { context, look } = map, [x, y] = screenOf(map, index), [w, t] = sizeOf(map), { slots } = map.topology;
  context.globalAlpha = isDim(map, look.nodes[index]) ? DIM : 1;
  for (let slot = 0; slot < slots; slot++) drawGpu(map, index, slot);
  if (look.by === "health" || look.by === "service") drawFrame(map, index);
  else if (map.looks[index] === FAILING) drawFrame(map, index);
  drawNodeName(map, index, x, y, w, t);
  context.globalAlpha = 1;
}

function drawGpu(map, index, slot) {
  const { context, colors, look } = map, code = map.frames.gpu_state[map.gpuBase[index] + slot];
  const [left, top, step, tall] = gpuRectangle(map, index, slot), narrow = Math.min(step, tall);
  const inset = narrow >= 5 ? 1 : narrow >= 3 ? 0.5 : 0, down = map.plan.byGpu ? 0 : inset;
  if (code === ABSENT) {
    context.strokeStyle = colors.line;
    context.lineWidth = 1;
    if (narrow >= 4) context.strokeRect(left + inset + 0.5, top + 0.5, step - 2 * inset - 1, tall - 1 - down);
    return;
  }
  const box = [left + inset / 2, top, step - inset, tall - down];
  if (look.by !== "health") {
    context.fillStyle = map.fills[look.gpu(index, slot)];
    return context.fillRect(...box);
  }
  const node = map.looks[index], health = code & 3, used = (code >> 2) & 1, parked = node === 2;
  // Red is for what needs a person: on a node that is drained or being drained a failing GPU is an outline.
  const handled = health === 2 && (parked || node === 4);
  context.fillStyle = parked ? colors.blankTint : handled ? (used ? colors.calm : colors.free) : node === 6 || health === 3 ? map.hatch : health === 2 ? colors.act : health === 1 ? colors.watch : used ? colors.calm : colors.free;
  context.fillRect(...box);
  if (handled && narrow >= 4) {
    context.strokeStyle = colors.act;
    context.lineWidth = 1.2;
    context.strokeRect(box[0] + 0.6, top + 0.6, box[2] - 1.2, box[3] - 1.2);
  } else if (!parked && !handled && (health === 2 || health === 1) && narrow >= 6 && node !== 6) drawSign(map, health === 2 ? "cross" : "corner", left, top, step, tall);
}

function drawFrame(map, index) {
  const { context, colors } = map, node = map.looks[index], [x, y] = screenOf(map, index), [w, t] = sizeOf(map), step = map.plan.byGpu ? w / map.topology.slots : w / 4;
  if (node === 3) {
    context.fillStyle = colors.blankInk;
    context.fillRect(x, y + t - 2, w - 1, 1.5);
  }
  const frame = { 1: colors.blank, 2: colors.blank, 3: colors.blank, 4: colors.busy, 5: map.look.by === "health" && colors.watch, 7: colors.act }[node];
  if (!frame) return;
  const halo = node === FAILING && map.look.by !== "health" ? 3 : 0; // red is lost beside some colours
  context.strokeStyle = frame;
  context.lineWidth = node === FAILING ? 2 : 1.4;
  context.setLineDash(node === 4 ? [4, 3] : node === 1 ? [2, 2] : []);
  const out = step >= 4 ? 1.5 : 0.5;
  if (halo) haloed(map, () => context.strokeRect(x - out, y - out, w + 2 * out - 0.5, t + 2 * out), halo);
  context.strokeRect(x - out, y - out, w + 2 * out - 0.5, t + 2 * out);
  context.setLineDash([]);
  if (node === 2 && t >= 5) {
    context.beginPath();
    context.moveTo(x, y + t), context.lineTo(x + w, y);
    context.stroke();
  }
}

function drawNodeName(map, index, x, y, w, t) {
  const { context, colors } = map, failing = map.looks[index] === FAILING, inside = !map.plan.byGpu;
  if (inside ? t < 44 : !map.plan.label || t < 9) return;
  context.font = `${failing ? "600 " : ""}${inside ? 10 : Math.min(11, t)}px ${colors.font}`;
  context.fillStyle = failing ? colors.act : colors.blankInk;
  if (inside) {
    context.textBaseline = "alphabetic";
    return context.fillText(clip(context, shortName(map, index), w), x, y + 9);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillText(shortName(map, index), x - 6, y + t / 2 + 0.5);
  context.textAlign = "left";
}

function shortName(map, index) {
  const name = map.topology.names[index];
  return name.slice(Math.max(name.lastIndexOf("-"), name.lastIndexOf(".")) + 1).slice(-3);
}

// What fails stays visible whatever its size and the colours; then what is selected, and what the pointer, keys or list are on.
function drawMarks(map, visible) {
  const { context, colors } = map, [w, t] = sizeOf(map);
  if (map.level !== "gpu" && w < 14) {
    context.strokeStyle = colors.act;
    context.lineWidth = 1.6;
    for (const index of map.failing) {
      if (isDim(map, map.look.nodes[index])) continue;
      const [x, y] = screenOf(map, index);
      context.beginPath();
      context.arc(x + w / 2, y + t / 2, Math.max(6, w), 0, 7);
      if (map.look.by !== "health") haloed(map, () => context.stroke(), 2.5);
      context.stroke();
    }
  }
  if (map.chosen.size) {
    context.strokeStyle = colors.accent;
    context.lineWidth = w < 6 ? 1.4 : 2.2;
    context.beginPath();
    const out = w < 6 ? 1.5 : 2.5;
    for (const index of visible) {
      if (!map.chosen.has(index)) continue;
      const [x, y] = screenOf(map, index);
      context.rect(x - out, y - out, w + 2 * out, t + 2 * out);
    }
    context.stroke();
  }
  for (const index of new Set([map.hover, map.pointed, map.focused() ? map.focus : -1])) if (index >= 0) ring(map, ...screenOf(map, index), w, t, index === map.pointed);
  if (map.hoverRack) ring(map, ...rackRectangle(map, map.hoverRack), false);
  if (map.focused() && map.level === "rack" && map.focus >= 0) ring(map, ...rackRectangle(map, rackOf(map, map.focus)[1]), true);
  if (map.band) {
    const [x0, y0, x1, y1] = map.band;
    context.strokeStyle = colors.accent;
    context.lineWidth = 1.2;
    context.setLineDash([4, 3]);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    context.setLineDash([]);
  }
}

// A line in the ground's colour under the one that is drawn next.
function haloed({ context, colors }, stroke, more) {
  const { lineWidth, strokeStyle } = context;
  Object.assign(context, { lineWidth: lineWidth + 2 * more, strokeStyle: colors.ground });
  stroke();
  Object.assign(context, { lineWidth, strokeStyle });
}

function ring({ context, colors }, x, y, w, t, double) {
  const out = 3.5;
  context.strokeStyle = colors.ink;
  context.lineWidth = 1.8;
  context.strokeRect(x - out, y - out, w + 2 * out, t + 2 * out);
  if (!double) return;
  context.strokeStyle = colors.ground;
  context.lineWidth = 1.2;
  context.strokeRect(x - out - 1.5, y - out - 1.5, w + 2 * out + 3, t + 2 * out + 3);
}
