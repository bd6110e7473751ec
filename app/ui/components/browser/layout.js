// Where each node of the fleet lies: blocks hold racks, racks hold nodes. Pure geometry, in CSS pixels.

// A topology is {version, slots, blocks: [{name, racks: [{name, first, count}]}], names: [...]}; nodes are numbered in its order.
function layOut(topology, { width, height, byGpu }) {
  const racks = topology.blocks.reduce((most, block) => Math.max(most, block.racks.length), 1);
  const candidates = new Set();
  for (let across = 1; across <= Math.min(racks, 64); across++) candidates.add(across);
  candidates.add(racks);
  let best = null;
  for (const across of candidates) {
    let low = LEAST_UNIT, high = 30;
    let fit = null;
    for (let step = 0; step < 12; step++) {
      const unit = (low + high) / 2;
      const plan = place(topology, { width, unit, across, byGpu, sizeOnly: true });
      if (plan.height <= height && plan.width <= width) (fit = plan), (low = unit);
      else high = unit;
    }
    if (fit && (!best || fit.unit > best.unit * 1.02)) best = fit;
  }
  // No room for that: the map then grows downwards, and the page scrolls.
  if (!best) return place(topology, { width, unit: LEAST_UNIT, across: lowest(topology, { width, byGpu }), byGpu });
  const snapped = best.unit >= 2 ? Math.floor(best.unit * 2) / 2 : best.unit;
  return place(topology, { width, unit: snapped, across: best.across, byGpu });
}

// A node's cell in pixels: at this a rack of 32 is 7 wide, the least that one sees and hits.
const LEAST_UNIT = 1;

// Racks side by side in a block so that the whole comes out lowest.
function lowest(topology, { width, byGpu }) {
  const racks = topology.blocks.reduce((most, block) => Math.max(most, block.racks.length), 1);
  let best = 1, least = Infinity;
  for (let across = 1; across <= Math.min(racks, 64); across++) {
    const plan = place(topology, { width, unit: LEAST_UNIT, across, byGpu, sizeOnly: true });
    if (plan.width <= width && plan.height < least) (least = plan.height), (best = across);
  }
  return best;
}

const BLOCK_TITLE = 20, RACK_TITLE = 15, BLOCK_GAP = 18;

// With sizeOnly the nodes' own places are left out: the search above asks hundreds of times.
function place(topology, { width, unit, across, byGpu, sizeOnly = false }) {
  const slots = topology.slots;
  const cell = { width: unit, height: byGpu ? Math.max(unit * 1.15, unit) : unit };
  const label = byGpu && cell.height >= 10 ? 20 : 0; // the node's own number, left of its GPUs
  const gap = unit >= 6 ? 3 : unit >= 3 ? 1 : unit * 0.2;
  const node = { width: (byGpu ? slots * unit : unit) + label, height: cell.height };
  const rackGap = Math.max(gap * 2, unit >= 6 ? 14 : unit >= 3 ? 6 : 2);
  const boxes = [], nodes = sizeOnly ? 0 : topology.names.length, xs = new Float32Array(nodes), ys = new Float32Array(nodes);
  let x = 0, y = 0, shelf = 0, right = 0;
  for (const block of topology.blocks) {
    const most = block.most;
    const columns = byGpu ? Math.ceil(most / 16) : Math.max(1, Math.ceil(Math.sqrt(most)));
    const rows = Math.ceil(most / columns);
    const rackWidth = columns * node.width + (columns - 1) * gap * (byGpu ? 3 : 1);
    const rackTitle = rackWidth >= 30 ? RACK_TITLE : 0;
    const rackHeight = rows * node.height + (rows - 1) * gap + rackTitle;
    const inRow = Math.min(across, block.racks.length);
    const blockWidth = inRow * rackWidth + (inRow - 1) * rackGap;
    const blockTitle = blockWidth >= 26 ? BLOCK_TITLE : 4;
    const lines = Math.ceil(block.racks.length / inRow);
    const blockHeight = blockTitle + lines * rackHeight + (lines - 1) * rackGap;
    if (x > 0 && x + blockWidth > width) (x = 0), (y += shelf + BLOCK_GAP), (shelf = 0);
    right = Math.max(right, x + blockWidth);
    shelf = Math.max(shelf, blockHeight);
    if (sizeOnly) {
      x += blockWidth + BLOCK_GAP;
      continue;
    }
    const box = { name: block.name, x, y, width: blockWidth, height: blockHeight, title: blockTitle, racks: [] };
    block.racks.forEach((rack, at) => {
      const left = x + (at % inRow) * (rackWidth + rackGap);
      const top = y + blockTitle + Math.floor(at / inRow) * (rackHeight + rackGap);
      box.racks.push({ name: rack.name, x: left, y: top, width: rackWidth, height: rackHeight, title: rackTitle, first: rack.first, count: rack.count });
      for (let index = 0; index < rack.count; index++) {
        const column = byGpu ? Math.floor(index / rows) : index % columns;
        const row = byGpu ? index % rows : Math.floor(index / columns);
        xs[rack.first + index] = left + label + column * (node.width + gap * (byGpu ? 3 : 1));
        ys[rack.first + index] = top + rackTitle + row * (node.height + gap);
      }
    });
    boxes.push(box);
    x += blockWidth + BLOCK_GAP;
  }
  return { unit, across, byGpu, rackGap, most: topology.blocks.reduce((high, block) => Math.max(high, block.most), 1), label, gap, boxes, xs, ys, nodeWidth: node.width - label, nodeHeight: node.height, width: right, height: y + shelf };
}
