// Search in the header: "/" or Ctrl+K from anywhere, arrows and Enter, Escape leaves.
const LETTERS_PAUSE = 180;

pitwall.kinds.search = (root, data, component) => {
  const box = () => root.querySelector("input");
  const hits = () => [...root.querySelectorAll("[role=option]")];
  const mark = (at) => {
    const all = hits();
    all.forEach((hit, index) => hit.setAttribute("aria-selected", index === at ? "true" : "false"));
    if (all[at]) { box().setAttribute("aria-activedescendant", all[at].id); all[at].scrollIntoView({ block: "nearest" }); }
    else box().removeAttribute("aria-activedescendant");
  };
  const leave = () => {
    box().value = "";
    box().blur();
    component.setStateValue("query", "");
  };
  const go = (hit) => {
    const target = JSON.parse(hit.dataset.open);
    leave();
    component.setTriggerValue("open", target);
  };

  const current = box()?.value.trim() === data.query;
  const list = data.query.length < 2 ? null
    : data.trouble ? h("li", { class: "pw-search-none" }, data.trouble)
    : data.hits.length ? data.hits.map((hit, index) => h("li", { role: "option", id: `pw-hit-${index}`, "data-key": `${hit.kind}-${hit.label}-${index}`, "data-open": JSON.stringify(hit.open), "aria-selected": index === 0 ? "true" : "false" },
      h("span", { class: "pw-search-kind" }, hit.kind), h("span", { class: "pw-first" }, hit.label), h("span", { class: "pw-second" }, hit.second)))
    : h("li", { class: "pw-search-none", role: "status" }, `Nothing is named like ${data.query}.`);
  show(root, h("div", { class: "pw-search", role: "search" },
    h("input", { type: "text", role: "combobox", "aria-label": "Search nodes, GPUs, jobs, pods, incidents and operations", "aria-expanded": list ? "true" : "false", "aria-controls": "pw-hits", "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false", placeholder: "Search", title: "Press / or Ctrl+K from anywhere" }),
    h("kbd", { "aria-hidden": "true" }, "/"),
    list ? h("ul", { id: "pw-hits", role: data.hits.length ? "listbox" : null, "aria-label": "Found" }, list) : null));
  if (current) mark(data.hits.length ? 0 : -1);

  root.oninput = () => {
    clearTimeout(pitwall.searching);
    pitwall.searching = setTimeout(() => component.setStateValue("query", box().value.trim()), LETTERS_PAUSE);
  };
  root.onmousedown = (event) => { if (event.target.closest("[role=option]")) event.preventDefault(); };
  root.onclick = (event) => { const hit = event.target.closest("[role=option]"); if (hit) go(hit); };
  root.onkeydown = (event) => {
    const all = hits(), at = all.findIndex((hit) => hit.getAttribute("aria-selected") === "true");
    if (event.key === "ArrowDown") mark(Math.min(all.length - 1, at + 1));
    else if (event.key === "ArrowUp") mark(Math.max(0, at - 1));
    else if (event.key === "Escape") leave();
    // What stands in the field and is not answered yet is not what the marked hit is for.
    else if (event.key === "Enter") { if (all[at] && box().value.trim() === data.query) go(all[at]); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  document.removeEventListener("keydown", pitwall.toSearch);
  pitwall.toSearch = (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable=true], [role=dialog]");
    const asked = (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing) || (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey));
    if (!asked || !root.isConnected) return;
    event.preventDefault();
    box().focus();
    box().select();
  };
  document.addEventListener("keydown", pitwall.toSearch);
};
