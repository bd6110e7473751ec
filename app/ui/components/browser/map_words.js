// What the map says: the legend that counts and filters, the card on hover, the bar of a selection, the table.

function drawLegend(map) {
  const { look, kept, colors } = map;
  if (kept.only !== null && !look.classes.some((one, at) => one.key === kept.only && look.counts[at])) kept.only = null;
  const shown = look.legend.filter((at) => look.counts[at] || look.classes[at].calm);
  const buttons = shown.map((at) => {
    const one = look.classes[at], pressed = kept.only === one.key;
    return h("button", { type: "button", class: `pw-key pw-${one.tone}`, "data-look": one.key, "data-key": one.key, "aria-pressed": String(pressed), title: pressed ? "Show all again" : `Show only: ${one.help ?? one.label}` },
      one.paint.includes(":") || (one.tone === "kind" && one.paint !== "hatch") ? swatch(paintOf(map, one.paint)) : glyph(one.sign ?? one.tone), h("span", { class: "pw-key-label" }, one.label), h("b", {}, look.counts[at].toLocaleString("en-US")));
  });
  if (look.unit) buttons.unshift(h("span", { class: "pw-key pw-key-unit", "data-key": "unit", title: `A node has the colour of ${look.of}; counts are of nodes` }, look.unit));
  if (look.by === "health" && map.frames.gpu_state) buttons.push(h("span", { class: "pw-key pw-calm", "data-key": "free", title: "A GPU that no pod holds is light" }, glyph("free"), h("span", { class: "pw-soft" }, "free GPU")));
  if (!["health", "service"].includes(look.by) && map.failing.length) buttons.push(h("span", { class: "pw-key pw-act", "data-key": "ring", title: "Framed or ringed in red, whatever the colours" }, ringed(colors), h("span", {}, "Failing"), h("b", {}, map.failing.length.toLocaleString("en-US"))));
  map.legend.classList.toggle("pw-legend-scale", Boolean(look.unit));
  show(map.legend, ...buttons);
}

const swatch = (fill) => h("svg", { viewBox: "0 0 12 12", class: "pw-glyph", "aria-hidden": "true" }, h("rect", { x: 0.6, y: 1.1, width: 10.8, height: 9.8, rx: 1, fill, stroke: "var(--st-gray-color)", "stroke-width": 0.6 }));
const ringed = () => h("svg", { viewBox: "0 0 12 12", class: "pw-glyph", "aria-hidden": "true" }, h("circle", { cx: 6, cy: 6, r: 4.4, fill: "none", stroke: "var(--st-red-color)", "stroke-width": 1.8 }));

// The words of a node, for the card and for who listens.
function wordsOf(map, index) {
  const code = map.nodes[index], [box, rack] = rackOf(map, index), note = map.told.notes?.[index];
  return {
    name: map.topology.names[index], health: HEALTH[code & 3], service: code >> 2 ? SERVICE[code >> 2] : "", tone: LOOKS[map.looks[index]].tone,
    why: note?.[0] ?? "", since: note?.[1] ?? null, job: jobOf(map, index), value: map.look.value(index), place: [box?.name, rack && shorten(rack.name, box.name)].filter(Boolean).join(" · "),
  };
}

function gpusOf(map, index) {
  if (map.gpuBase[index] < 0) return null;
  const from = map.gpuBase[index], codes = [...map.frames.gpu_state.subarray(from, from + map.topology.slots)].filter((code) => code !== ABSENT);
  const bad = codes.filter((code) => (code & 3) === 2).length;
  return `${codes.filter((code) => (code >> 2) & 1).length} of ${codes.length} GPUs in use${bad ? `, ${bad} failing` : ""}`;
}

function gpuLine(map, index, slot) {
  const code = map.frames.gpu_state?.[map.gpuBase[index] + slot];
  if (slot < 0 || code === undefined) return null;
  if (code === ABSENT) return `GPU ${slot}: none there`;
  return [`GPU ${slot}: ${HEALTH[code & 3]}`, (code >> 2) & 1 ? "in use" : "free", map.look.gpuValue(index, slot)].filter(Boolean).join(", ");
}

function showTip(map, index, slot = -1) {
  const { tip } = map;
  if (index < 0) return map.hoverRack ? showRackTip(map, map.hoverRack) : void (tip.hidden = true);
  const said = wordsOf(map, index), gpu = gpuLine(map, index, slot);
  const measured = map.look.unit || map.look.by === "xid" ? `${COLOUR_BY.find(([by]) => by === map.look.by)[1]}: ${said.value}` : null;
  show(tip, h("div", { class: "pw-mono pw-strong" }, said.name),
    h("div", {}, state(said.health, said.tone), said.service ? h("span", { class: "pw-soft" }, " · ", said.service) : null, said.since !== null ? [h("span", { class: "pw-soft" }, " for "), age(said.since)] : null),
    h("div", { class: "pw-tip-why" }, said.why),
    measured ? h("div", {}, measured) : h("span"),
    gpu ? h("div", {}, gpu) : h("span"),
    said.job ? h("div", {}, said.job.label, said.job.team ? h("span", { class: "pw-soft" }, ` · ${said.job.team}`) : null) : h("span"),
    h("div", { class: "pw-soft" }, [gpusOf(map, index), said.place].filter(Boolean).join(" · ")));
  placeTip(map, ...screenOf(map, index), sizeOf(map)[1]);
}

function showRackTip(map, rack) {
  const [box] = rackOf(map, rack.first), counts = new Map();
  for (let index = rack.first; index < rack.first + rack.count; index++) counts.set(map.look.nodes[index], (counts.get(map.look.nodes[index]) ?? 0) + 1);
  const lines = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 5);
  show(map.tip, h("div", { class: "pw-mono pw-strong" }, rack.name),
    h("div", {}, lines.map(([at, count]) => h("div", {}, `${count} ${map.look.classes[at].label}${map.look.unit && map.look.classes[at].tone === "scale" ? ` ${map.look.unit}` : ""}`))),
    h("div", { class: "pw-soft" }, `${rack.count} nodes · ${box?.name ?? ""} · click to zoom in`));
  const [x, y, , t] = rackRectangle(map, rack);
  placeTip(map, x, y, t);
}

function placeTip({ tip, width, height }, x, y, t) {
  tip.hidden = false;
  const left = Math.max(4, Math.min(x, width - tip.offsetWidth - 4)), below = y + t + 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${below + tip.offsetHeight < height ? below : Math.max(4, y - tip.offsetHeight - 8)}px`;
}

// For who does not see the card: said on each move of the keys.
function announce(map, index) {
  if (map.level === "rack") {
    const [box, rack] = rackOf(map, index);
    return say(map, `Rack ${shorten(rack.name, box.name)} of ${box.name}, ${rack.count} nodes, ${map.failing.filter((at) => at >= rack.first && at < rack.first + rack.count).length} failing. Enter zooms in.`);
  }
  const said = wordsOf(map, index);
  say(map, [said.name, said.health, said.service, said.why, said.job?.label, map.look.unit ? said.value : "", said.place, map.chosen.has(index) ? "selected" : ""].filter(Boolean).join(", "));
}

function say(map, words) {
  map.said.textContent = words;
}

function drawBar(map) {
  const count = map.chosen.size, { most } = map.header, word = map.kept.word;
  map.bar.hidden = !count && !word;
  const names = [...map.chosen].slice(0, 3).map((index) => map.topology.names[index]);
  show(map.bar, ...(count ? [
    h("b", { "data-key": "count" }, `${count.toLocaleString("en-US")} ${count === 1 ? "node" : "nodes"} selected`),
    h("span", { class: "pw-soft pw-bar-names", "data-key": "names" }, names.join(", "), count > 3 ? ` and ${(count - 3).toLocaleString("en-US")} more` : ""),
    h("button", { type: "button", "data-do": "drain", "data-key": "drain", disabled: count > most, title: count > most ? `At most ${most} at once` : "Shows what would happen first" }, "Drain…"),
    h("button", { type: "button", "data-do": "copy", "data-key": "copy" }, "Copy names"),
    h("button", { type: "button", "data-do": "clear", "data-key": "clear", title: "Escape" }, "Clear"),
    count > most ? h("span", { class: "pw-soft", "data-key": "most" }, `At most ${most} can be drained at once.`) : null,
  ].filter(Boolean) : []), word ? h("span", { class: "pw-state pw-watch", "data-key": "word" }, glyph("watch"), h("span", {}, word)) : null);
}

const TABLE_ROWS = 20;

// The same in words: the nodes that stand out by what the map is coloured by; of jobs and teams how much each holds.
function drawTable(map) {
  const { look, kept } = map;
  map.table.hidden = !kept.table;
  map.tools.querySelector("[data-table]").setAttribute("aria-pressed", String(Boolean(kept.table)));
  if (!kept.table) return;
  const title = COLOUR_BY.find(([by]) => by === look.by)[1];
  if (look.striped) {
    const rows = look.classes.map((one, at) => [one.label, look.counts[at]]).filter(([, count]) => count).sort((one, other) => other[1] - one[1]);
    return show(map.table, sheetOf(`Nodes by ${title.toLowerCase()}`, [title, "Nodes"], rows.map((row) => [row[0], row[1].toLocaleString("en-US")])));
  }
  const rank = look.rank ?? ((index) => (map.looks[index] === 0 ? -1 : map.looks[index]));
  const worst = [];
  for (let index = 0; index < map.nodes.length; index++) if (rank(index) >= 0) worst.push(index);
  worst.sort((one, other) => rank(other) - rank(one) || one - other);
  const rows = worst.slice(0, TABLE_ROWS).map((index) => {
    const said = wordsOf(map, index), target = { page: "nodes", query: { name: said.name } };
    return [link(target, said.name), said.service && map.looks[index] < FAILING ? `${said.health}, ${said.service.toLowerCase()}` : said.health, look.unit || look.by === "xid" ? said.value : said.why, said.job?.label ?? "–"];
  });
  show(map.table, sheetOf(`${title}: ${rows.length} of ${map.nodes.length.toLocaleString("en-US")} nodes`, ["Node", "State", look.unit || look.by === "xid" ? title : "Cause", "Job"], rows));
}

const sheetOf = (caption, heads, rows) => h("table", { class: "pw-sheet pw-dense", "aria-label": caption },
  h("caption", {}, caption), h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
  h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))));
