// What the person made of the map is in the address, so that it can be shared: colours, filter, zoom, selection. Nothing is
// sent to the server for it. A place is told by the node in its middle, a selection by the topology it was made on.
const ADDRESS = ["by", "only", "zoom", "near", "select"];
const SELECT_LENGTH = 1500;

function readAddress(kept) {
  const told = new URLSearchParams(location.search);
  if (!ADDRESS.some((name) => told.has(name))) return;
  const by = told.get("by"), zoom = Number(told.get("zoom"));
  kept.by = COLOUR_BY.some(([one]) => one === by) ? by : "health";
  kept.only = told.get("only");
  kept.zoom = zoom > 1 && zoom < 1000 ? zoom : 1;
  kept.near = told.get("near");
  kept.select = told.get("select");
}

// Once the names are there. A selection of another topology is not taken: its numbers mean other nodes now.
function takeShared(map) {
  const { kept, topology } = map;
  if (kept.select) {
    const [version, runs = ""] = kept.select.split(".");
    if (version !== topology.version.slice(0, 8)) kept.word = "The selection in this address was made before nodes came or went: it is not shown.";
    else for (const run of runs.split("_")) {
      const [first, last = first] = run.split("-").map(Number);
      if (!(first >= 0 && last >= first && last < topology.names.length)) continue;
      for (let index = first; index <= last; index++) kept.selected.add(topology.names[index]);
    }
    kept.select = null;
  }
  chooseByName(map);
}

// Selected are names: with another topology they are found anew, and those that are gone are told.
function chooseByName(map) {
  const { kept, topology } = map, gone = [...kept.selected].filter((name) => !topology.index.has(name));
  for (const name of gone) kept.selected.delete(name);
  if (gone.length) kept.word = gone.length === 1 ? `${gone[0]} is gone and no longer selected.` : `${gone.length} of the selected nodes are gone and no longer selected.`;
  map.chosen = new Set([...kept.selected].map((name) => topology.index.get(name)).sort((one, other) => one - other));
}

function writeAddress(map) {
  clearTimeout(map.writing);
  map.writing = setTimeout(() => {
    if (!map.stage.isConnected || !map.topology) return;
    const told = new URLSearchParams(location.search), { kept } = map;
    for (const name of ADDRESS) told.delete(name);
    if (kept.by !== "health") told.set("by", kept.by);
    if (kept.only !== null) told.set("only", kept.only);
    if (kept.zoom > 1) told.set("zoom", kept.zoom.toFixed(2)), told.set("near", map.topology.names[middleNode(map)]);
    const runs = spansOf(map.chosen).map(([first, count]) => (count > 1 ? `${first}-${first + count - 1}` : first)).join("_");
    if (runs && runs.length < SELECT_LENGTH) told.set("select", `${map.topology.version.slice(0, 8)}.${runs}`);
    const search = String(told), address = location.pathname + (search ? `?${search}` : "");
    if (address !== location.pathname + location.search) history.replaceState(history.state, "", address);
  }, 250);
}
