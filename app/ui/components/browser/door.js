// The door: the name over the way in, and the address that was asked for, kept over the way to the provider.
const BACK = "pitwall-back";

pitwall.kinds.door = (root, data) => {
  if (data.back) {
    const to = sessionStorage.getItem(BACK);
    sessionStorage.removeItem(BACK);
    // One's own address alone: two slashes would be another host.
    if (to && /^\/(?![/\\])/.test(to) && to !== location.pathname + location.search) location.replace(to);
    return;
  }
  sessionStorage.setItem(BACK, location.pathname + location.search);
  show(root, h("div", { class: "pw-door" }, h("h1", {}, "Pitwall"), h("p", { class: "pw-soft" }, data.cluster)));
};
