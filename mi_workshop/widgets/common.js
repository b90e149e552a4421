// What the smaller views share. Python writes this text in place of their import line (view.py), so that each is one module.

/** Text fit for one line of a label: no control characters, none that turn the direction of writing, at most `length` long. */
export function clean(text, length = 120) {
  const line = String(text).slice(0, 2 * length + 50).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g, " ");
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
}

export const percent = (x) => `${x < 0 ? "−" : ""}${Math.abs(x) < 0.0995 && x !== 0 ? Math.abs(100 * x).toFixed(1) : Math.round(Math.abs(100 * x))} %`;

/** Rows of the answer bars: the likeliest before and after, the expected one, and of the others the likeliest, five in all; once
 *  something was changed, others must reach 1 % on one side. */
export function rows({ before = [], after = [], expected = null }) {
  const [old, now] = [before, after].map((side) => new Map([...side].reverse().map((a) => [a.token, a.prob]))); // of two with the same spelling, the likelier
  const most = (token) => Math.max(old.get(token) ?? 0, now.get(token) ?? 0), acted = after.length > 0;
  const others = [...old.keys(), ...now.keys()].filter((token) => !acted || most(token) >= 0.01).sort((a, b) => most(b) - most(a));
  const words = [...new Set([before[0]?.token, after[0]?.token, expected, ...others])].filter((token) => token !== undefined && token !== null);
  return words.slice(0, 5).map((token) => ({ token, before: old.get(token) ?? (acted && before.length ? 0 : null), after: acted ? now.get(token) ?? 0 : null, expected: token === expected }))
    .sort((a, b) => (b.after ?? b.before) - (a.after ?? a.before));
}

/** A DOM node ("svg:line": of a drawing); every text is set as text, so nothing in it can become markup. What takes the focus keeps its keys from a notebook's
 *  shortcuts: JupyterLab looks at the focused element first, and at those around it too late. */
export function h(tag, props = {}, ...kids) {
  const node = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  if ("tabindex" in props || ["button", "select", "input"].includes(tag)) node.dataset.lmSuppressShortcuts = "true";
  for (const [key, value] of Object.entries(props)) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...kids);
  return node;
}

/** A bar of a probability: `kind` is "before" (hatched) or "after" (filled), `wide` the per cent of the room that 1 takes. */
export function bar(kind, prob, name, text = percent(prob), wide = 62) {
  const node = h("div", { class: `mi-bar-${kind}`, title: `${name} ${percent(prob)}` }, h("i"), h("span", { text }));
  node.firstChild.style.width = `${Math.max(0.4, wide * Math.min(1, prob))}%`;
  return node;
}

/** What was answered, {text, before, after, controls, error}, as nodes: paragraphs, answers before and now, controls. */
export function answered({ text = "", before = [], after = [], controls = [], error = "" }) {
  const out = String(text).split(/\n+/).filter((line) => line.trim()).map((line) => h("p", { class: "mi-text", text: clean(line, 2000) }));
  const one = (label, ...bars) => h("div", { class: "mi-answer-row" }, h("b", {}, h("bdi", { text: clean(label, 40).trim() || "␣" })), h("div", {}, ...bars));
  if (before.length || after.length) out.push(h("h3", { text: before.length && after.length ? "Answers before (hatched) and now" : "Answers" }));
  for (const row of rows({ before, after })) {
    out.push(one(row.token, ...["before", "after"].filter((kind) => row[kind] !== null).map((kind) => bar(kind, row[kind], kind === "before" ? "before" : "now"))));
  }
  if (controls.length) out.push(h("h3", { text: "Controls" }));
  for (const c of controls) {
    out.push(one(c.name, bar("before", c.prob, c.name, `${clean(c.token, 24)} ${percent(c.prob)}`)));
    if (c.note) out.push(h("p", { class: "mi-quiet", text: clean(c.note, 300) }));
  }
  if (error) out.push(h("p", { class: "mi-error", role: "alert", text: clean(error, 400) }));
  return out;
}

/** What every view does with the traits of its `model`; `cleanup` are the functions that end it. */
export class Shared {
  constructor(model) { Object.assign(this, { model, cleanup: [] }); }
  get(key) { return this.model.get(key); }
  set(values) { for (const [key, value] of Object.entries(values)) this.model.set(key, value); this.model.save_changes(); }
  resize() { this.root.classList.toggle("mi-big", this.get("size") === "stage"); }
}

/** What anywidget calls to draw a view of the class. */
export const renders = (View) => ({ model, el }) => { const view = new View(model, el); return () => view.cleanup.forEach((f) => f()); };

/** Nobody else is to act on this key. */
export const stop = (e) => { e.preventDefault(); e.stopPropagation(); };

/** An arrow key among `nodes`, of which one is in the tab order, moves the focus from number `at` to the neighbour; whether it did. */
export function rove(e, nodes, at, back, forth) {
  const next = nodes[{ [back]: at - 1, [forth]: at + 1 }[e.key]];
  if (!next || e.altKey || e.ctrlKey || e.metaKey) return false;
  stop(e);
  for (const node of nodes) node.tabIndex = node === next ? 0 : -1;
  next.focus();
  return true;
}

/** Call each function in `heard` (by trait names) when one of its traits changes; returns what undoes it. */
export function listen(model, heard) {
  const pairs = Object.entries(heard).flatMap(([names, f]) => names.split(" ").map((name) => [`change:${name}`, f]));
  pairs.forEach(([name, f]) => model.on(name, f));
  return () => pairs.forEach(([name, f]) => model.off(name, f));
}

/** A model of traits without a kernel, for a saved page and for tests; bytes arrive as {base64}. */
export function standIn(state) {
  const heard = {};
  for (const [key, value] of Object.entries(state)) if (typeof value?.base64 === "string") state[key] = new DataView(Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0)).buffer);
  return {
    get: (key) => state[key],
    set(key, value) { state[key] = value; for (const f of [...(heard[`change:${key}`] || [])]) f(); },
    save_changes() {},
    on(name, f) { (heard[name] ??= []).push(f); },
    off(name, f) { heard[name] = (heard[name] || []).filter((other) => other !== f); },
  };
}
