// Where things are on the screen, how much of them is worth drawing, and what lies under a point.
const RACK_BELOW = 2.4; // a node's cell narrower than this can't be read: racks instead
const GPU_STEP = 2.5; // as much for a GPU's
const GPU_FROM = 20; // and a square node's cell must be so wide to hold its GPUs
const DOT = 4; // what is not well is never drawn smaller
const GPU_NODES = 1000; // as app.ui.live.GPU_CELLS_UP_TO_NODES: more than that is not sent by GPU

const screenOf = (map, index) => [map.plan.xs[index] * map.kept.zoom + map.kept.x, map.plan.ys[index] * map.kept.zoom + map.kept.y];
const sizeOf = (map) => [map.plan.nodeWidth * map.kept.zoom, map.plan.nodeHeight * map.kept.zoom];
const mostZoom = (map) => Math.max(6, 110 / map.plan.nodeHeight);

function rackRectangle(map, rack) {
  const { zoom, x, y } = map.kept, most = map.plan.most;
  const tall = (rack.height - rack.title) * Math.min(1, rack.count / most);
  return [rack.x * zoom + x, (rack.y + rack.title) * zoom + y, rack.width * zoom, Math.max(2, tall * zoom)];
}

const eachRack = function* (map) {
  for (const box of map.plan.boxes) for (const rack of box.racks) yield [box, rack];
};

function visibleNodes(map) {
  const found = [], [w, t] = sizeOf(map);
  for (const [, rack] of eachRack(map)) {
    const x = rack.x * map.kept.zoom + map.kept.x, y = rack.y * map.kept.zoom + map.kept.y;
    if (x > map.width || y > map.height || x + rack.width * map.kept.zoom < 0 || y + rack.height * map.kept.zoom < 0) continue;
    for (let index = rack.first; index < rack.first + rack.count; index++) {
      const [nx, ny] = screenOf(map, index);
      if (nx + w >= 0 && ny + t >= 0 && nx <= map.width && ny <= map.height) found.push(index);
    }
  }
  return found;
}

function levelOf(map, visible) {
  const [w] = sizeOf(map);
  if (map.plan.byGpu) return w / map.topology.slots >= GPU_STEP ? "gpu" : "node";
  if (w < RACK_BELOW) return "rack";
  return w >= GPU_FROM && visible.length <= GPU_NODES ? "gpu" : "node";
}

// Runs of neighbours, [first, count] each: what is asked of the server.
function spansOf(indexes) {
  const spans = [];
  for (const index of [...indexes].sort((one, other) => one - other)) {
    const last = spans[spans.length - 1];
    if (last && index === last[0] + last[1]) last[1]++;
    else spans.push([index, 1]);
  }
  return spans;
}

// Where GPU `slot` is drawn: in a row in small fleets, four by two in a square cell.
function gpuRectangle(map, index, slot) {
  const [x, y] = screenOf(map, index), [w, t] = sizeOf(map), { slots } = map.topology;
  if (map.plan.byGpu) return [x + (slot * w) / slots, y, w / slots, t];
  const across = Math.ceil(slots / 2), head = t >= 44 ? 13 : 0;
  return [x + ((slot % across) * w) / across, y + head + (Math.floor(slot / across) * (t - head)) / 2, w / across, (t - head) / 2];
}

function rackOf(map, index) {
  for (const [box, rack] of eachRack(map)) if (index >= rack.first && index < rack.first + rack.count) return [box, rack];
  return [null, null];
}

// A rack's or node's name without what the title above it says already.
const shorten = (name, above) => (name.startsWith(above) && name.length > above.length ? name.slice(above.length).replace(/^[-_./]+/, "") : name);

// {index, slot, rack}: the node (-1 for none), its GPU where GPUs are drawn, the rack where only racks are.
function find(map, x, y) {
  const nothing = { index: -1, slot: -1, rack: null };
  if (!map.plan) return nothing;
  const { plan, kept, level } = map, px = (x - kept.x) / kept.zoom, py = (y - kept.y) / kept.zoom;
  if (level === "rack") {
    const near = nearestDot(map, x, y);
    if (near >= 0) return { ...nothing, index: near };
  }
  const slack = plan.gap / 2 + 0.5;
  for (const box of plan.boxes) {
    if (px < box.x - 2 || px > box.x + box.width + 2 || py < box.y || py > box.y + box.height + 2) continue;
    for (const rack of box.racks) {
      if (px < rack.x - 2 || px > rack.x + rack.width + 2 || py < rack.y || py > rack.y + rack.height + 2) continue;
      if (level === "rack") return { ...nothing, rack };
      for (let index = rack.first; index < rack.first + rack.count; index++) {
        const nx = plan.xs[index], ny = plan.ys[index];
        if (px >= nx - slack - plan.label && px <= nx + plan.nodeWidth + slack && py >= ny - slack && py <= ny + plan.nodeHeight + slack) return { index, slot: slotAt(map, index, x, y), rack: null };
      }
    }
  }
  return nothing;
}

function slotAt(map, index, x, y) {
  if (map.level !== "gpu" || map.gpuBase[index] < 0) return -1;
  for (let slot = 0; slot < map.topology.slots; slot++) {
    const [left, top, w, t] = gpuRectangle(map, index, slot);
    if (x >= left && x < left + w && y >= top && y < top + t) return slot;
  }
  return -1;
}

function nearestDot(map, x, y) {
  let best = -1, least = 6;
  for (const index of marked(map)) {
    const [nx, ny] = screenOf(map, index), far = Math.hypot(nx - x, ny - y);
    if (far < least) (least = far), (best = index);
  }
  return best;
}

// The nodes that are drawn by themselves even among racks.
const marked = (map) => (map.look.dots.length ? map.look.dots : map.failing);

function nearestNode(map, from, [dx, dy]) {
  const { xs, ys } = map.plan;
  let best = from, least = Infinity;
  for (let index = 0; index < map.nodes.length; index++) {
    const x = xs[index] - xs[from], y = ys[index] - ys[from];
    const along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along <= 0.01) continue;
    const cost = along + aside * 4;
    if (cost < least) (least = cost), (best = index);
  }
  return best;
}

function nearestRack(map, from, [dx, dy]) {
  const [, here] = rackOf(map, from);
  let best = here, least = Infinity;
  for (const [, rack] of eachRack(map)) {
    const x = rack.x - here.x, y = rack.y - here.y, along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along <= 0.01) continue;
    const cost = along + aside * 4;
    if (cost < least) (least = cost), (best = rack);
  }
  return best.first;
}

// Nodes whose cells touch the rectangle.
function nodesWithin(map, [x0, y0, x1, y1]) {
  const [w, t] = sizeOf(map), found = [];
  for (const index of visibleNodes(map)) {
    const [x, y] = screenOf(map, index);
    if (x + w >= x0 && x <= x1 && y + t >= y0 && y <= y1) found.push(index);
  }
  return found;
}

const within = (shift, size, zoom) => Math.min(0, Math.max(size - size * zoom, shift));

function panTo(map, x, y) {
  map.kept.x = within(x, map.width, map.kept.zoom);
  map.kept.y = within(y, map.height, map.kept.zoom);
}

function zoomBy(map, factor, cx = map.width / 2, cy = map.height / 2) {
  const { kept } = map, zoom = factor === 0 ? 1 : Math.max(1, Math.min(mostZoom(map), kept.zoom * factor)), scale = zoom / kept.zoom;
  const x = cx - (cx - kept.x) * scale, y = cy - (cy - kept.y) * scale;
  kept.zoom = zoom;
  panTo(map, x, y);
}

// The node in the middle of what is seen; with it a view survives another window, and is told in an address.
function middleNode(map) {
  let best = 0, least = Infinity;
  for (let index = 0; index < map.nodes.length; index++) {
    const [x, y] = screenOf(map, index), far = Math.hypot(x - map.width / 2, y - map.height / 2);
    if (far < least) (least = far), (best = index);
  }
  return best;
}

function centreOn(map, index) {
  const { zoom } = map.kept, { xs, ys, nodeWidth, nodeHeight } = map.plan;
  panTo(map, map.width / 2 - (xs[index] + nodeWidth / 2) * zoom, map.height / 2 - (ys[index] + nodeHeight / 2) * zoom);
}

function zoomToRack(map, rack) {
  const zoom = Math.min((map.width * 0.7) / rack.width, (map.height * 0.7) / rack.height, mostZoom(map));
  map.kept.zoom = Math.max(1, zoom);
  panTo(map, map.width / 2 - (rack.x + rack.width / 2) * map.kept.zoom, map.height / 2 - (rack.y + rack.height / 2) * map.kept.zoom);
}

// Keeps the cursor in sight while it walks.
function bringIntoSight(map, index) {
  const [x, y] = screenOf(map, index), [w, t] = sizeOf(map);
  if (x < 0 || y < 0 || x + w > map.width || y + t > map.height) centreOn(map, index);
}
