// What a cell is to the eye: one class a node and a GPU, by what the map is coloured by. Each class has a key, a word,
// a paint (a name the palette knows) and, where it is not well, a shape of its own.
const HEALTH = ["Healthy", "Degraded", "Failing", "Unknown"];
const SERVICE = ["In service", "Cordoned", "Draining", "Drained", "Under repair", "Probation"];
const OUT = new Set([3, 4]); // Drained, Under repair
const ABSENT = 255, OTHER = 254;

const COLOUR_BY = [
  ["health", "Health"], ["service", "Service"], ["job", "Job"], ["team", "Team"], ["utilisation", "Utilisation"],
  ["temperature", "Temperature"], ["power", "Power"], ["xid", "Last XID"],
];

// Order matters: later ones are drawn over earlier ones and come first in the legend.
const LOOKS = [
  { key: "healthy", label: "Healthy", tone: "calm", sign: "used", paint: "calm", calm: true },
  { key: "cordoned", label: "Cordoned", tone: "quiet", sign: "cordoned", paint: "free", mark: "edge" },
  { key: "drained", label: "Drained", tone: "quiet", sign: "drained", help: "Drained or under repair", paint: "blankTint", mark: "slash" },
  { key: "probation", label: "Probation", tone: "quiet", sign: "probation", paint: "free", mark: "edge" },
  { key: "draining", label: "Draining", tone: "busy", sign: "draining", paint: "busy" },
  { key: "degraded", label: "Degraded", tone: "watch", paint: "watch", mark: "corner" },
  { key: "unknown", label: "Unknown", tone: "blank", paint: "hatch" },
  { key: "failing", label: "Failing", tone: "act", paint: "act", mark: "cross" },
];
const FAILING = 7;

const SERVICES = [
  { key: "in-service", label: "In service", tone: "calm", sign: "used", paint: "calm", calm: true },
  { key: "cordoned", label: "Cordoned", tone: "quiet", sign: "cordoned", paint: "free", mark: "edge" },
  { key: "draining", label: "Draining", tone: "busy", sign: "draining", paint: "busy" },
  { key: "drained", label: "Drained", tone: "quiet", sign: "drained", paint: "blankTint", mark: "slash" },
  { key: "under-repair", label: "Under repair", tone: "quiet", paint: "blank", mark: "slash" },
  { key: "probation", label: "Probation", tone: "quiet", sign: "probation", paint: "free", mark: "edge" },
];

// Edges are fixed, so that a colour means the same each day. An H100 SXM is limited to 700 W, and slows itself from about
// 87 C on (nvidia-smi -q: Slowdown Temp). A node is coloured by `of`.
const SCALES = {
  temperature: { unit: "°C", edges: [35, 45, 55, 65, 75, 85], of: "the hottest GPU of a node", digits: 0 },
  power: { unit: "W", edges: [100, 200, 300, 400, 500, 600, 700], of: "the mean of a node's GPUs", digits: 0 },
  utilisation: { unit: "%", edges: [5, 20, 40, 60, 80, 95], of: "the mean of a node's GPUs", digits: 0 },
};
const SCALE_STEPS = 10;

function lookOf(code) {
  const health = code & 3, service = code >> 2;
  if (OUT.has(service)) return 2;
  if (service === 2) return 4;
  if (health === 2) return FAILING;
  if (health === 3) return 6;
  if (health === 1) return 5;
  return service === 1 ? 1 : service === 5 ? 3 : 0;
}

// {classes, nodes: class a node, gpu(index, slot): class or -1, value(index), gpuValue(index, slot), legend, soft}
function classify(map) {
  const { by } = map.header;
  const made = by in SCALES ? scaleClasses(map, by) : by === "job" || by === "team" ? placedClasses(map, by) : by === "xid" ? xidClasses(map) : stateClasses(map, by);
  made.counts = new Array(made.classes.length).fill(0);
  for (const one of made.nodes) made.counts[one]++;
  made.dots = [];
  if (made.classes.some((one) => one.calm)) made.nodes.forEach((one, index) => made.classes[one].calm || made.dots.push(index));
  return { by, value: () => "", gpuValue: () => "", ...made };
}

function stateClasses(map, by) {
  const classes = by === "service" ? SERVICES : LOOKS;
  const nodes = by === "service" ? Uint8Array.from(map.nodes, (code) => Math.min(code >> 2, SERVICES.length - 1)) : map.looks;
  return { classes, nodes, gpu: (index) => nodes[index], legend: classes.map((_, at) => at).reverse() };
}

function scaleClasses(map, by) {
  const { edges, unit } = SCALES[by], { step, gpu_step: fine } = map.header, last = edges.length;
  const classes = [...edges, null].map((edge, at) => ({
    key: `${by}-${at}`, tone: "scale", paint: `scale:${Math.round((at * (SCALE_STEPS - 1)) / last)}`,
    label: at === 0 ? `< ${edges[0]}` : at === last ? `≥ ${edges[last - 1]}` : `${edges[at - 1]}–${edge}`,
  }));
  classes.push({ key: "unknown", label: "Unknown", tone: "blank", paint: "hatch" });
  const classOf = (value) => {
    let at = 0;
    while (at < last && value >= edges[at]) at++;
    return at;
  };
  const table = (by_step) => Uint8Array.from({ length: 256 }, (_, code) => (code === ABSENT ? last + 1 : classOf(Math.round(code * by_step * 100) / 100)));
  const ofNode = table(step), ofGpu = table(fine);
  const bytes = map.frames.node, gpus = map.frames.gpu;
  const nodes = bytes ? bytes.map((code) => ofNode[code]) : new Uint8Array(map.nodes.length).fill(last + 1);
  const said = (value) => `${Math.round(value)} ${unit}`;
  return {
    classes, nodes, unit, of: SCALES[by].of, legend: classes.map((_, at) => at),
    rank: (index) => (bytes && bytes[index] !== ABSENT ? bytes[index] : -1),
    gpu: (index, slot) => (gpus ? ofGpu[gpus[map.gpuBase[index] + slot]] : nodes[index]),
    value: (index) => (bytes && bytes[index] !== ABSENT ? said(bytes[index] * step) : "unknown"),
    gpuValue: (index, slot) => {
      const code = gpus?.[map.gpuBase[index] + slot];
      return code === undefined || code === ABSENT ? "unknown" : said(code * fine);
    },
  };
}

// Kinds with a colour of their own, then the others together, then none.
function kindClasses(kinds, others, none) {
  const classes = kinds.map(({ key, label, colour }) => ({ key, label, tone: "kind", paint: `kind:${colour}` }));
  classes.push({ key: "other", label: others, tone: "kind", paint: "blank" }, { key: "none", label: none.label, tone: "kind", paint: none.paint, calm: none.calm });
  return classes;
}

function placedClasses(map, by) {
  const jobs = map.told.jobs ?? [], teams = map.told.teams ?? {}, codes = map.frames.job;
  const kinds = by === "job"
    ? jobs.filter((job) => job[3] !== null).map((job) => ({ key: job[0], label: job[1], colour: job[3] }))
    : Object.entries(teams).map(([team, colour]) => ({ key: team, label: team, colour }));
  const classes = kindClasses(kinds, by === "job" ? "Other jobs" : "Other teams", { label: "No job", paint: "free" });
  const placeOf = new Map(classes.map((one, at) => [one.key, at]));
  const other = classes.length - 2, none = classes.length - 1;
  const table = Uint8Array.from({ length: 256 }, (_, code) => (code === ABSENT ? none : code >= jobs.length ? other : placeOf.get(by === "job" ? jobs[code][0] : jobs[code][2]) ?? other));
  const nodes = codes ? codes.map((code) => table[code]) : new Uint8Array(map.nodes.length).fill(none);
  const gpu = (index, slot) => {
    const code = map.frames.gpu_state?.[map.gpuBase[index] + slot];
    return code === undefined || (code >> 2) & 1 ? nodes[index] : none;
  };
  return { classes, nodes, gpu, legend: classes.map((_, at) => at), striped: true };
}

function xidClasses(map) {
  const xids = map.told.xids ?? [], colours = map.told.xid_colours ?? [];
  const kinds = xids.map((xid, at) => ({ key: `xid-${xid}`, label: `XID ${xid}`, colour: colours[at] })).filter(({ colour }) => colour !== null);
  const classes = kindClasses(kinds, "Other XIDs", { label: "None seen", paint: "calm", calm: true });
  const placeOf = new Map(classes.map((one, at) => [one.key, at]));
  const other = classes.length - 2, none = classes.length - 1;
  const table = Uint8Array.from({ length: 256 }, (_, code) => (code === ABSENT ? none : placeOf.get(`xid-${xids[code]}`) ?? other));
  const nodes = map.frames.node ? map.frames.node.map((code) => table[code]) : new Uint8Array(map.nodes.length).fill(none);
  const gpus = map.frames.gpu;
  return { classes, nodes, legend: classes.map((_, at) => at), gpu: (index, slot) => (gpus ? table[gpus[map.gpuBase[index] + slot]] : nodes[index]),
    value: (index) => (nodes[index] === none ? "no XID seen" : classes[nodes[index]].label), rank: (index) => (nodes[index] === none ? -1 : 1) };
}

function jobOf(map, index) {
  const code = map.frames.job?.[index];
  if (code === undefined || code === ABSENT) return null;
  const job = map.told.jobs?.[code];
  return job ? { label: job[1], team: job[2] } : { label: "another job", team: "" };
}
