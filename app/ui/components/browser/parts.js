// Pulse, figures, headline, notes, sheet, GPU cards: small parts made of data.

pitwall.kinds.pulse = (root, data, component) => {
  listen(root, component);
  const well = data.sources.filter((source) => source.state === "ok"), amiss = data.sources.filter((source) => source.state !== "ok");
  const heard = well.map((source) => source.name).join(", ");
  show(root, h("div", { class: "pw-pulse", role: "status" },
    h("span", { class: "pw-cluster", title: "Cluster" }, data.cluster),
    data.held ? h("a", { class: "pw-source pw-watch", href: "operations", "data-open": JSON.stringify({ page: "operations" }), title: data.held }, glyph("watch"), h("b", {}, "Paused")) : null,
    well.length ? h("a", { class: "pw-source pw-calm", href: "sources", "data-open": JSON.stringify({ page: "sources" }), title: `Heard: ${heard}` }, glyph("calm"), h("span", {}, amiss.length ? `${well.length} of ${data.sources.length} sources` : "All sources")) : null,
    amiss.map((source) =>
      h("span", { class: `pw-source pw-${source.tone}`, title: source.help, "data-key": source.name }, glyph(source.tone), h("span", {}, source.name),
        h("b", {}, source.state, " ", age(source.at)))),
    h("span", { class: `pw-fresh pw-${data.tone}`, title: data.help }, data.label, data.at ? age(data.at) : null, data.at ? " old" : null),
    h("span", { class: "pw-paused pw-act" }, glyph("act"), "Page paused ", h("span", { class: "pw-paused-age" }))));
};

pitwall.kinds.figures = (root, data, component) => {
  listen(root, component);
  show(root, h("div", { class: "pw-figures" }, data.figures.map((figure) => {
    const body = [
      h("span", { class: "pw-figure-label" }, figure.label),
      h("span", { class: "pw-figure-value" }, figure.tone && figure.tone !== "calm" ? glyph(figure.tone) : null, figure.value,
        figure.of ? h("span", { class: "pw-figure-of" }, " ", figure.of) : null),
      h("span", { class: "pw-figure-note" }, figure.note ?? ""),
    ];
    const attributes = { class: `pw-figure pw-${figure.tone ?? "calm"}`, title: figure.help, "data-key": figure.label };
    return figure.open
      ? h("a", { ...attributes, href: addressOf(figure.open), "data-open": JSON.stringify(figure.open) }, body)
      : h("div", attributes, body);
  })));
};

// Labels with their values, side by side.
const factsOf = (facts) => h("dl", { class: "pw-facts" }, facts.map((fact) =>
  h("div", { title: fact.help, "data-key": fact.label }, h("dt", {}, fact.label), h("dd", { class: [fact.tone ? `pw-${fact.tone}` : "", fact.mono ? "pw-mono" : ""].join(" ").trim() || null },
    fact.tone ? glyph(fact.tone) : null, fact.links ? fact.links.map((one, at) => [at ? h("span", { class: "pw-soft" }, "·") : null, link(one.open, one.text)]) : null,
    fact.open ? link(fact.open, fact.value) : fact.value ?? null,
    fact.at ? age(fact.at, { prefix: fact.value ? " · " : "", suffix: fact.until ? "" : " ago", until: !!fact.until }) : null))));

// A title with its states, its cause, and what to do.
pitwall.kinds.headline = (root, data, component) => {
  listen(root, component);
  show(root, h("header", { class: "pw-headline" },
    data.trail ? h("nav", { class: "pw-trail", "aria-label": "Where this is" }, data.trail.map((step, at) =>
      [at ? h("span", { class: "pw-soft" }, "/") : null, step.open ? link(step.open, step.text) : h("span", {}, step.text)])) : null,
    h("div", { class: "pw-title" }, h("h1", { class: data.mono ? "pw-mono" : null }, data.title),
      (data.states ?? []).map((item) => h("span", { class: "pw-title-state" }, state(item.word, item.tone, { strong: true }),
        item.at ? h("span", { class: "pw-soft" }, age(item.at, { prefix: "for " })) : null))),
    data.cause ? h("p", { class: `pw-cause pw-${data.cause.tone}` }, data.cause.text) : null,
    data.action ? h("p", { class: "pw-action" }, data.action) : null,
    data.facts ? factsOf(data.facts) : null,
    data.progress ? h("div", { class: "pw-progress" },
      h("div", { class: "pw-bar", role: "progressbar", "aria-label": data.progress.label, "aria-valuemin": 0, "aria-valuemax": data.progress.total, "aria-valuenow": data.progress.done },
        h("i", { class: `pw-${data.progress.tone}`, style: `width:${data.progress.total ? (100 * data.progress.done) / data.progress.total : 0}%` })),
      h("span", {}, data.progress.label)) : null));
};

// A titled panel of one subject: a sentence and its facts.
pitwall.kinds.card = (root, data, component) => {
  listen(root, component);
  show(root, h("section", { class: `pw-panel pw-card${data.tone ? ` pw-${data.tone}` : ""}`, "aria-label": data.title },
    h("h2", {}, data.title, data.at ? h("span", { class: "pw-count" }, age(data.at, { suffix: " ago" })) : null),
    data.lead ? h("p", { class: "pw-lead" }, data.lead) : null,
    data.facts?.length ? factsOf(data.facts) : null));
};

// Sentences with a tone: what stands in the way, what to know.
pitwall.kinds.notes = (root, data, component) => {
  listen(root, component);
  show(root, h("ul", { class: "pw-notes" }, data.notes.map((note) =>
    h("li", { class: `pw-note pw-${note.tone}` }, glyph(note.tone), h("span", {}, note.text, note.at ? [" ", age(note.at, { prefix: "Last heard ", suffix: " ago." })] : null,
      note.open ? [" ", link(note.open, note.link)] : null)))));
};

// Quiet words beside a name: what is special about it.
const tags = (words) => (words ?? []).map((word) => [" ", h("span", { class: "pw-tag", title: word.help }, word.text)]);

// What one reads when one asks why: closed until then, and as the reader left it over refreshes.
const more = (said) => (said ? h("details", { class: "pw-more-said" }, h("summary", {}, said.label), said.lines.map((line) => h("p", {}, line.label ? h("span", { class: "pw-soft" }, line.label, " ") : null, line.text))) : null);

const CELLS = {
  text: (value) => value,
  soft: (value) => h("span", { class: "pw-soft" }, value),
  mono: (value) => h("span", { class: "pw-mono" }, value),
  number: (value) => (typeof value === "number" ? value.toLocaleString("en-US") : value),
  age: (value) => age(value),
  state: (value) => state(value.word, value.tone),
  link: (value) => link(value.open, value.text),
  two: (value) => [h("div", { class: "pw-first" }, value.open ? link(value.open, value.text) : value.text, tags(value.tags)), h("div", { class: "pw-second" }, value.second), more(value.more)],
  bar: (value) => h("span", { class: "pw-mini", title: `${value.done} of ${value.total}` }, h("span", { class: "pw-bar" },
    h("i", { class: `pw-${value.tone}`, style: `width:${value.total ? (100 * value.done) / value.total : 0}%` })), h("span", {}, `${value.done} of ${value.total}`)),
};

function cell(column, value) {
  if (value === null || value === undefined || value === "") return h("span", { class: "pw-soft", title: column.missing ?? "not known" }, "–");
  return (CELLS[column.kind] ?? CELLS.text)(value);
}

pitwall.kinds.sheet = (root, data, component) => {
  listen(root, component);
  root.onmouseover = (event) => pitwall.point?.(event.target.closest("[data-node]")?.dataset.node ?? null);
  root.onmouseleave = () => pitwall.point?.(null);
  const columns = data.columns;
  const table = h("table", { class: `pw-sheet${data.dense ? " pw-dense" : ""}`, "aria-label": data.label },
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { class: `pw-c-${column.kind}${column.right ? " pw-right" : ""}`, scope: "col", style: column.width ? `width:${column.width}` : null, title: column.help }, column.label)))),
    h("tbody", {}, data.rows.map((row) =>
      h("tr", { "data-key": row.id, class: row.tone ? `pw-row-${row.tone}` : null, "data-open": row.open ? JSON.stringify(row.open) : null, "data-node": row.node },
        columns.map((column) => h("td", { class: `pw-c-${column.kind}${column.right ? " pw-right" : ""}${column.wrap ? " pw-wrap" : ""}`, title: column.kind === "text" || column.kind === "mono" ? row.cells[column.key] : null }, cell(column, row.cells[column.key])))))));
  show(root, h("section", { class: "pw-panel" },
    data.title ? h("h2", {}, data.title, data.count ? h("span", { class: "pw-count" }, data.count) : null) : null,
    data.rows.length ? h("div", { class: "pw-scroll", style: data.height ? `max-height:${data.height}` : null, tabindex: data.height ? 0 : null, role: data.height ? "region" : null, "aria-label": data.height ? data.label : null }, table) : h("p", { class: "pw-empty" }, data.empty),
    data.more ? h("p", { class: "pw-more" }, data.more) : null));
};

const READINGS = [
  ["temperature", "Temperature"], ["power", "Power"], ["utilization", "Utilisation"], ["memory", "Memory"],
  ["clock", "SM clock"], ["ecc", "ECC errors"], ["remap", "Row remap"], ["links", "NVLink"], ["pcie", "PCIe"], ["xid", "Last XID"],
];

const podOf = ({ pod }) => (!pod ? null : pod.open ? link(pod.open, pod.text) : h("span", { class: "pw-soft", title: pod.help }, pod.text));

pitwall.kinds.gpus = (root, data, component) => {
  listen(root, component);
  show(root, data.gpus.length ? h("div", { class: "pw-gpus" }, data.gpus.map((gpu) =>
    h("article", { class: `pw-gpu pw-gpu-${gpu.tone}`, "data-key": gpu.uuid, "aria-label": `GPU ${gpu.index}: ${gpu.health}` },
      h("header", {}, h("h3", {}, `GPU ${gpu.index}`), state(gpu.health, gpu.tone)),
      gpu.reason ? h("p", { class: "pw-gpu-reason" }, gpu.reason, gpu.since ? [" · ", age(gpu.since)] : null) : h("p", { class: "pw-gpu-pod" }, podOf(gpu) ?? h("span", { class: "pw-soft" }, "free")),
      gpu.reason && gpu.pod ? h("p", { class: "pw-gpu-pod" }, podOf(gpu)) : null,
      h("dl", {}, READINGS.map(([name, label]) => {
        const reading = gpu.readings[name];
        return h("div", { "data-key": name, title: reading.help ?? null, class: reading.tone ? `pw-${reading.tone}` : null }, h("dt", {}, label),
          h("dd", { class: reading.value === null ? "pw-soft" : null }, reading.value ?? "–", reading.at ? [" · ", age(reading.at)] : null),
          "ratio" in reading ? h("span", { class: "pw-bar" }, h("i", { class: `pw-${reading.tone ?? "calm"}`, style: `width:${Math.round(100 * Math.min(1, reading.ratio ?? 0))}%` })) : null);
      })),
      h("footer", { class: "pw-mono", title: `${gpu.uuid}, PCI ${gpu.pci}, serial ${gpu.serial}` }, gpu.uuid)))) : h("p", { class: "pw-empty" }, data.empty));
};
