// The attribution graph of a prompt, in a notebook cell or a saved page: tokens across, layers up, answers on top.
// First the logic, as exported functions without a browser (tests/js); then the view. All state lives in the model's traits.
import { bar, clean, h, listen, percent, renders, rows, Shared, stop } from "./common.js";

export const FEATURE = 0, ERROR = 1, TOKEN = 2, ANSWER = 3, OTHER = 4;
const KINDS = { "cross layer transcoder": FEATURE, "mlp reconstruction error": ERROR, embedding: TOKEN, logit: ANSWER };
const NAMES = ["feature", "reconstruction error", "token", "answer", "node of an unknown type"];
export const MAX_LINKS = 3000; // more than these cannot be told apart, and slow the picture down

// ---------------------------------------------------------------- the graph
/** Nodes (columns) and links (int32 sources, int32 targets, float32 weights) as typed arrays, with both directions indexed. */
export function buildGraph(nodes, bytes) {
  const view = bytes instanceof ArrayBuffer ? new Uint8Array(bytes) : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const buffer = view.slice().buffer; // a copy: the bytes may lie at an offset that no typed array accepts
  const m = Math.floor(buffer.byteLength / 12), n = (nodes.id || []).length;
  const source = new Int32Array(buffer, 0, m), target = new Int32Array(buffer, 4 * m, m), weight = new Float32Array(buffer, 8 * m, m);
  const kind = Uint8Array.from(nodes.type || [], (t) => KINDS[t] ?? (t.includes("error") ? ERROR : OTHER));
  const index = new Map((nodes.id || []).map((id, i) => [id, i]));
  const input = new Float64Array(n);
  for (let e = 0; e < m; e++) input[target[e]] += Math.abs(weight[e]);
  return { ...nodes, n, m, kind, index, source, target, weight, input, into: indexed(target, n), outOf: indexed(source, n) };
}

function indexed(ends, n) {
  const start = new Int32Array(n + 1), list = new Int32Array(ends.length);
  for (const i of ends) start[i + 1]++;
  for (let i = 0; i < n; i++) start[i + 1] += start[i];
  const next = start.slice();
  ends.forEach((i, e) => { list[next[i]++] = e; });
  return (i) => list.subarray(start[i], start[i + 1]);
}

/** Which nodes the threshold leaves: tokens, answers, nodes without influence, and those with influence <= threshold. */
export function visible(g, threshold) {
  return Uint8Array.from({ length: g.n }, (_, i) =>
    g.kind[i] === TOKEN || g.kind[i] === ANSWER || g.influence[i] === null || g.influence[i] <= threshold + 1e-6 ? 1 : 0);
}

/** Replacement and completeness of what is shown: a hidden node's inputs are cut and it counts as an error. null if cyclic. */
export function scores(g, shown) {
  const { n, source, target, weight } = g;
  const left = new Int32Array(n), total = new Float64Array(n), order = [];
  for (let e = 0; e < g.m; e++) if (shown[target[e]]) left[source[e]]++;
  for (let i = 0; i < n; i++) if (!left[i]) order.push(i);
  const own = (i) => (g.kind[i] === ANSWER ? g.prob[i] : 0), bad = (i) => g.kind[i] === ERROR || !shown[i];
  let tokens = 0, errors = 0, explained = 0, all = 0;
  for (let k = 0; k < order.length; k++) {
    const i = order[k], output = total[i] + own(i), sum = Math.max(g.input[i], 1e-10);
    let lost = 0;
    if (shown[i]) for (const e of g.into(i)) {
      const s = source[e], share = Math.abs(weight[e]) / sum;
      total[s] += share * output;
      if (bad(s)) lost += share;
      if (!--left[s]) order.push(s);
    }
    if (g.kind[i] === TOKEN) tokens += total[i]; else if (bad(i)) errors += total[i];
    explained += (1 - lost) * output;
    all += output;
  }
  if (order.length < n) return null;
  return { replacement: tokens + errors ? tokens / (tokens + errors) : 0, completeness: all ? explained / all : 0 };
}

/** Links with both ends shown, the strongest `max` of them: {list, possible}. */
export function drawnLinks(g, shown, max = MAX_LINKS) {
  const all = new Int32Array(g.m), size = new Float32Array(g.m);
  let possible = 0;
  for (let e = 0; e < g.m; e++) if (shown[g.source[e]] && shown[g.target[e]]) { size[possible] = Math.abs(g.weight[e]); all[possible++] = e; }
  if (possible <= max) return { list: all.slice(0, possible), possible };
  const least = size.slice(0, possible).sort()[possible - max];
  return { list: all.slice(0, possible).filter((_, k) => size[k] >= least).slice(0, max), possible };
}

/** The strongest inputs or outputs of a node: {node, weight, share}; share is of all absolute input of the receiving node. */
export function strongest(g, i, direction, count, shown) {
  const ends = direction === "in" ? g.source : g.target;
  return [...(direction === "in" ? g.into(i) : g.outOf(i))]
    .filter((e) => !shown || shown[ends[e]])
    .sort((a, b) => Math.abs(g.weight[b]) - Math.abs(g.weight[a])).slice(0, count)
    .map((e) => ({ node: ends[e], weight: g.weight[e], share: g.weight[e] / (g.input[g.target[e]] || 1) }));
}

/** The nearest shown node within `radius` screen pixels of (px, py), or -1; `at` gives a node's place on the screen. */
export function hit(g, shown, at, px, py, radius) {
  let found = -1, least = radius * radius;
  for (let i = 0; i < g.n; i++) if (shown[i]) {
    const [x, y] = at(i), d = (x - px) ** 2 + (y - py) ** 2;
    if (d <= least) { least = d; found = i; }
  }
  return found;
}

/** Nodes whose label, token or id holds the query; an exact id alone wins. Tokens and answers first, then by influence. */
export function search(g, tokens, query) {
  const q = query.trim().toLowerCase();
  if (!q) return [];
  if (g.index.has(query.trim())) return [g.index.get(query.trim())];
  const rank = (i) => (g.kind[i] === ANSWER ? -2 : g.kind[i] === TOKEN ? -1 : g.influence[i] ?? 1);
  return Array.from({ length: g.n }, (_, i) => i)
    .filter((i) => [g.label[i], g.id[i], tokens[g.ctx[i]] ?? ""].some((s) => String(s).toLowerCase().includes(q)))
    .sort((a, b) => rank(a) - rank(b));
}

/** Where an arrow key leads: left and right along the layer, up and down along the strongest link out and in. */
export function walk(g, shown, from, direction) {
  if (from < 0) return Array.from({ length: g.n }, (_, i) => i).filter((i) => shown[i]).sort((a, b) => g.prob[b] - g.prob[a])[0] ?? -1;
  if (direction === "up" || direction === "down") return strongest(g, from, direction === "up" ? "out" : "in", 1, shown)[0]?.node ?? from;
  const sign = direction === "left" ? -1 : 1;
  let best = from, least = Infinity;
  for (let i = 0; i < g.n; i++) {
    const way = sign * (g.x[i] - g.x[from]) + 0.01 * (g.y[i] - g.y[from]);
    if (shown[i] && i !== from && g.layer[i] === g.layer[from] && way > 0 && way < least) { least = way; best = i; }
  }
  return best;
}

// --------------------------------------------------------------- supernodes
/** Summed links between supernodes, tokens and answers, as AttributionGraph.flow: share is of all absolute input of the target. */
export function flow(g, supernodes) {
  const name = new Array(g.n).fill(""), total = new Map(), sums = new Map();
  for (let i = 0; i < g.n; i++) name[i] = g.end[i];
  for (const [label, ids] of Object.entries(supernodes)) for (const id of ids) if (g.index.has(id)) name[g.index.get(id)] = label;
  for (let e = 0; e < g.m; e++) {
    const t = name[g.target[e]], s = name[g.source[e]];
    if (!t) continue;
    total.set(t, (total.get(t) || 0) + Math.abs(g.weight[e]));
    if (!s || s === t) continue;
    if (!sums.has(t)) sums.set(t, new Map());
    sums.get(t).set(s, (sums.get(t).get(s) || 0) + g.weight[e]);
  }
  const rows = [];
  for (const [target, from] of sums) for (const [source, weight] of from) { rows.push({ source, target, weight, share: weight / total.get(target) }); }
  return rows.sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
}

/** The strongest chain that ends in `answer`, from the back: each step takes the strongest positive input. */
export function path(rows, answer, isToken) {
  const steps = [], seen = new Set([answer]);
  for (let here = answer; !isToken(here);) {
    const best = rows.find((r) => r.target === here && r.share > 0 && !seen.has(r.source));
    if (!best) break;
    steps.unshift(best);
    here = best.source;
    seen.add(here);
  }
  return steps;
}

/** What the circuit panel draws: boxes {name, kind, col, row, chain} and the strongest edges. Boxes that lead to no answer are left
 *  out, unless they are among `made` (by hand); `left` counts the supernodes not drawn. */
export function circuit(g, supernodes, rows, chain, made = [], max = 9) {
  const ends = new Map();
  for (let i = 0; i < g.n; i++) if (g.end[i] && !ends.has(g.end[i])) ends.set(g.end[i], i);
  const main = new Set(chain.flatMap((s) => [s.source, s.target])), pair = new Set(chain.map((s) => `${s.source}\n${s.target}`));
  const members = (label) => supernodes[label].map((id) => g.index.get(id)).filter((i) => i !== undefined);
  const rank = (label) => (main.has(label) || made.includes(label) ? -1 : Math.min(...members(label).map((i) => g.influence[i] ?? 1)));
  const labels = Object.keys(supernodes).filter((label) => members(label).length).sort((a, b) => rank(a) - rank(b));
  const kept = new Set([...labels.slice(0, Math.max(max, labels.filter((l) => rank(l) < 0).length)), ...main]);
  const answer = (s) => ends.has(s) && !(s in supernodes) && g.kind[ends.get(s)] === ANSWER;
  const token = (s) => ends.has(s) && !(s in supernodes) && g.kind[ends.get(s)] === TOKEN;
  const goal = chain.at(-1)?.target, isMain = (r) => pair.has(`${r.source}\n${r.target}`), enough = (r) => Math.abs(r.share) >= (made.includes(r.source) || r.target === goal ? 0.02 : answer(r.target) ? 0.1 : 0.05);
  const edges = rows.filter((r) => isMain(r) || (enough(r) && (kept.has(r.target) || answer(r.target)) && (kept.has(r.source) || (token(r.source) && r.share >= 0.15))));
  const leads = new Set([...made, ...[...ends.keys()].filter(answer)]); // from the answers backwards
  for (let size = -1; size !== leads.size;) { size = leads.size; for (const r of edges) if (leads.has(r.target)) leads.add(r.source); }
  const live = edges.filter((r) => leads.has(r.target)), strong = [...live.filter(isMain), ...live.filter((r) => !isMain(r)).slice(0, 11)];
  const fed = strong.filter((r) => kept.has(r.source) || strong.some((o) => o.target === r.target && kept.has(o.source)) || strong.some((o) => o.source === r.target));
  const drawn = fed.map((r) => ({ ...r, chain: isMain(r) }));
  const used = [...new Set(drawn.flatMap((r) => [r.source, r.target]))];
  const height = (s) => {
    if (s in supernodes) { const m = members(s); return m.reduce((sum, i) => sum + g.layer[i], 0) / m.length; }
    return answer(s) ? Infinity : -1;
  };
  const boxes = new Map();
  for (const name of used.sort((a, b) => height(a) - height(b))) {
    const before = drawn.filter((r) => r.target === name && boxes.has(r.source)).map((r) => boxes.get(r.source).col + 1);
    boxes.set(name, { name, kind: token(name) ? TOKEN : answer(name) ? ANSWER : FEATURE, chain: main.has(name), node: ends.get(name) ?? -1,
      size: name in supernodes ? members(name).length : 1, col: token(name) ? 0 : Math.max(1, ...before) });
  }
  const last = Math.max(1, ...[...boxes.values()].filter((b) => b.kind !== ANSWER).map((b) => b.col + 1));
  const taken = new Map();
  for (const box of [...boxes.values()].sort((a, b) => b.chain - a.chain)) {
    if (box.kind === ANSWER) box.col = last;
    const k = taken.get(box.col) ?? 0, one = box.chain ? 0 : Math.max(k, 1);
    taken.set(box.col, one + 1);
    box.row = one % 2 ? -(one + 1) / 2 : one / 2; // the chain on the middle line, others above and below in turn
  }
  return { boxes: [...boxes.values()], edges: drawn, columns: last + 1, left: labels.filter((l) => !boxes.has(l)).length };
}

/** `ids` as the supernode `label`; a node belongs to one supernode, so it leaves its old one. An empty list dissolves. */
export function group(supernodes, label, ids) {
  const out = {};
  for (const [name, old] of Object.entries(supernodes)) { const rest = name === label ? [] : old.filter((id) => !ids.includes(id)); if (rest.length) out[name] = rest; }
  return ids.length ? { ...out, [label]: [...ids] } : out;
}

export function rename(supernodes, old, label) {
  if (!label || label === old || label in supernodes || !(old in supernodes)) return supernodes;
  return Object.fromEntries(Object.entries(supernodes).map(([name, ids]) => [name === old ? label : name, ids]));
}

/** Features with the same label at the same token, two or more: what "by token and concept" means where nobody suggested better. */
export function byConcept(g, tokens) {
  const found = {};
  for (let i = 0; i < g.n; i++) if (g.kind[i] === FEATURE && g.label[i].trim()) {
    (found[`${clean(g.label[i].trim())} @${clean(tokens[g.ctx[i]] ?? g.ctx[i]).trim()}`] ??= []).push(g.id[i]);
  }
  return Object.fromEntries(Object.entries(found).filter(([, ids]) => ids.length > 1));
}

/** The supernode whose members (those in the graph) are exactly `ids`, or "". */
export function supernodeOf(supernodes, ids) {
  const set = new Set(ids);
  return Object.keys(supernodes).find((s) => supernodes[s].length === set.size && supernodes[s].every((id) => set.has(id))) ?? "";
}

// ------------------------------------------------------------------ helpers
/** Undo and redo over snapshots. Changes of a slider within half a second of each other count as one. */
export class History {
  constructor(now) { Object.assign(this, { now, past: [], future: [], last: ["", 0] }); }
  record(state, key, time) {
    if (JSON.stringify(state) === JSON.stringify(this.now)) return;
    const [lastKey, lastTime] = this.last;
    if (!(key === "threshold" && lastKey === key && time - lastTime < 500)) this.past.push(this.now);
    if (this.past.length > 100) this.past.shift();
    Object.assign(this, { now: state, future: [], last: [key, time] });
  }
  undo() { return this.move(this.past, this.future); }
  redo() { return this.move(this.future, this.past); }
  move(from, to) {
    if (!from.length) return null;
    to.push(this.now);
    return Object.assign(this, { now: from.pop(), last: ["", 0] }).now;
  }
}

/** Greedy places for labels {x, y, w, h}, first come first served: {dx, dy}, or null where there is no room. Inside w × h. */
export function place(labels, width, height, obstacles = []) {
  const taken = [...obstacles];
  return labels.map((a) => {
    const step = a.h + 4, across = a.w / 2 + 8;
    for (const [dx, dy] of [[0, 0], [0, -step], [0, step], [across, 0], [-across, 0], [across, -step], [-across, -step], [0, -2 * step], [0, 2 * step], [across, step], [-across, step]]) {
      const x = Math.min(Math.max(a.x + dx, a.w / 2 + 5), width - a.w / 2 - 5), y = Math.min(Math.max(a.y + dy, a.h / 2 + 2), height - a.h / 2 - 2);
      if (Math.abs(x - a.x) > across + 1 + a.w / 2 || Math.abs(y - a.y) > 3 * step) continue;
      if (taken.some((b) => Math.abs(b.x - x) < (a.w + b.w) / 2 + 3 && Math.abs(b.y - y) < (a.h + b.h) / 2 + 3)) continue;
      taken.push({ x, y, w: a.w, h: a.h });
      return { dx: x - a.x, dy: y - a.y };
    }
    return null;
  });
}

/** A word without the blanks around it, unless one of `others` differs by these alone: then, and where nothing else is left, ␣ stands for a blank. */
export function spelled(word, others = [], length = 24) {
  const text = clean(word, length), bare = text.trim();
  return bare && !others.some((other) => other !== word && clean(other, length).trim() === bare) ? bare : text.replaceAll(" ", "␣") || "␣";
}

const number = (x) => x.toLocaleString("en");
const short = (label) => label.split(" @")[0];

// ------------------------------------------------------------------- the view
const KEYS = [
  ["← →", "to the neighbour in the same layer"], ["↑ ↓", "along the strongest link out, or in"], ["Enter", "select the node, or take it out of the selection"],
  ["Space", "details of the node"], ["Shift + drag", "select what is inside the frame"], ["G   D   R", "group the selection, dissolve, rename"], ["Z", "set the selected features to zero"],
  ["+   −   0", "zoom in, out, fit (also the wheel, once the picture was clicked; or Ctrl + wheel)"], ["/", "search; Enter jumps to the next match"], ["[   ]", "lower, raise the influence threshold"],
  ["Ctrl + Z, Ctrl + Shift + Z", "undo, redo"], ["Esc", "clear search and selection"], ["?", "these keys"],
];
const MARGIN = 0.25; // of the stage, drawn beyond each edge so that dragging uncovers something

class View extends Shared {
  constructor(model, el) {
    super(model);
    Object.assign(this, { focus: -1, hover: -1, matches: [], match: -1, view: { k: 1, x: 0, y: 0 }, drawnView: null, dirty: new Set(), applying: false, pointers: new Map() });
    this.build(el);
    this.history = new History(this.snapshot());
    const heard = { "nodes links meta": ["data"], threshold: ["filter"], supernodes: ["groups"], "selected clicked details swaps can_act": ["top", "panel"], answers: ["answers"], interventions: ["groups", "answers"], size: ["size"] };
    this.cleanup.push(listen(model, Object.fromEntries(Object.entries(heard).map(([names, parts]) => [names, () => { this.remember(names); this.mark(...parts); }]))));
    this.mark("size", "data");
    this.update();
  }

  snapshot() { return Object.fromEntries(["supernodes", "threshold", "interventions"].map((key) => [key, this.model.get(key)])); }
  remember(key) { if (!this.applying) this.history.record(this.snapshot(), key, Date.now()); }
  say(text) { this.live.textContent = text; }

  // ---- building
  build(el) {
    const button = (label, title, click, props = {}) => h("button", { type: "button", text: label, title, onclick: click, ...props });
    this.live = h("div", { class: "mi-live", role: "status", "aria-live": "polite" });
    this.search = h("input", { type: "search", placeholder: "Search  /", "aria-label": "Search label, token or node id", maxlength: 200, oninput: () => this.find(), onkeydown: (e) => { if (e.key === "Enter") this.jump(); } });
    this.found = h("span", { class: "mi-quiet" });
    this.slider = h("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": "Influence threshold", oninput: () => this.set({ threshold: Number(this.slider.value) }) });
    this.level = h("output", { class: "mi-number" });
    this.scores = h("span", { class: "mi-scores", title: "Replacement: share of the influence from tokens to answers that runs through shown features. Completeness: share of the nodes' input explained. Hidden nodes count as unexplained." });
    this.undoButton = button("↶", "Undo (Ctrl+Z)", () => this.restore("undo"), { "aria-label": "Undo" });
    this.redoButton = button("↷", "Redo (Ctrl+Shift+Z)", () => this.restore("redo"), { "aria-label": "Redo" });
    const bar = h("div", { class: "mi-bar" }, this.search, this.found, h("span", { class: "mi-set" }, button("−", "Zoom out (-)", () => this.zoom(1 / 1.4), { "aria-label": "Zoom out" }),
      button("Fit", "Fit (0)", () => this.fit()), button("+", "Zoom in (+)", () => this.zoom(1.4), { "aria-label": "Zoom in" })), h("span", { class: "mi-set" }, this.undoButton, this.redoButton),
      button("Group by token and concept", "Form supernodes from the labels", () => this.concepts()),
      h("label", { class: "mi-slider" }, h("span", { text: "influence ≤" }), this.slider, this.level), this.scores, button("?", "Keys (?)", () => this.help(), { "aria-label": "Keys" }));
    this.status = h("p", { class: "mi-status" });
    this.base = h("canvas", { "aria-hidden": "true" });
    this.top = h("canvas", { "aria-hidden": "true" });
    this.labels = h("div", { class: "mi-labels" });
    this.ring = h("div", { class: "mi-ring", hidden: true });
    this.band = h("div", { class: "mi-band", hidden: true });
    this.tip = h("div", { class: "mi-tip", hidden: true });
    this.stage = h("div", { class: "mi-stage" }, this.base, this.top, this.labels, this.ring, this.band, this.tip);
    this.answersBox = h("section", { class: "mi-answers", "aria-label": "Answers" });
    this.name = h("input", { type: "text", class: "mi-name", "aria-label": "Name of the supernode", maxlength: 120, onkeydown: (e) => { if (e.key === "Enter") { this.renamed(); this.root.focus(); } }, onchange: () => this.renamed() });
    this.who = h("h2");
    this.act = {
      group: button("Group", "Group the selected nodes into a supernode (G)", () => this.makeGroup()), dissolve: button("Dissolve", "Dissolve the supernode (D)", () => this.dissolve()),
      zero: button("Zero", "Set to zero (Z)", () => this.intervene("zero", 0)), half: button("×½", "Halve the activation", () => this.intervene("scale", 0.5)),
      twice: button("×2", "Double the activation", () => this.intervene("scale", 2)), minus: button("×−1", "Turn the sign of the activation", () => this.intervene("scale", -1)),
      swap: button("Swap", "Swap for the chosen place", () => this.intervene("swap", 1, this.places.value)), reset: button("Reset", "Take all interventions off", () => this.set({ interventions: [] })),
    };
    this.places = h("select", { "aria-label": "Swap for" });
    const { group: g, dissolve, zero, half, twice, minus, swap, reset } = this.act;
    this.why = h("p", { class: "mi-quiet" });
    this.actBox = h("section", { class: "mi-act", "aria-label": "Selection" }, this.who, h("div", { class: "mi-row" }, this.name, g, dissolve), h("div", { class: "mi-row" }, zero, half, twice, minus, reset),
      h("div", { class: "mi-row" }, this.places, swap), this.why);
    this.detailBox = h("section", { class: "mi-details", "aria-label": "Details" });
    this.circuitHead = h("p", { class: "mi-quiet" });
    this.svg = h("svg:svg", { role: "img" });
    this.circuitBox = h("section", { class: "mi-circuit", "aria-label": "Circuit of supernodes" }, h("h2", { text: "Circuit" }), this.circuitHead, this.svg);
    this.dialog = h("dialog", { "aria-label": "Keys" }, h("h2", { text: "Keys" }), h("dl", {}, ...KEYS.flatMap(([key, what]) => [h("dt", { text: key }), h("dd", { text: what })])), button("Close", "Esc", () => this.dialog.close()));
    this.root = h("div", { class: "mi-graph", tabindex: 0, role: "application", "data-lm-suppress-shortcuts": "true", onkeydown: (e) => this.key(e) },
      bar, this.status, h("div", { class: "mi-main" }, this.stage, h("div", { class: "mi-side" }, this.actBox, this.answersBox, this.detailBox)), this.circuitBox, this.live, this.dialog);
    el.append(this.root);
    for (const [name, f] of [["pointerdown", "down"], ["pointermove", "move"], ["pointerup", "up"], ["pointercancel", "up"], ["wheel", "wheel"]]) this.stage.addEventListener(name, (e) => this[f](e), { passive: false });
    this.stage.addEventListener("pointerleave", () => this.setHover(-1));
    const size = new ResizeObserver(() => { if (this.stage.clientWidth && (this.stage.clientWidth !== this.w || this.stage.clientHeight !== this.h)) this.mark("resize"); });
    size.observe(this.stage);
    const theme = new MutationObserver(() => this.mark("base"));
    theme.observe(document.body, { attributes: true });
    const dark = matchMedia("(prefers-color-scheme: dark)"), repaint = () => this.mark("base");
    dark.addEventListener("change", repaint);
    this.cleanup.push(() => size.disconnect(), () => theme.disconnect(), () => dark.removeEventListener("change", repaint), () => cancelAnimationFrame(this.frame), () => clearTimeout(this.settle));
  }

  // ---- keeping up with the traits
  mark(...parts) { parts.forEach((p) => this.dirty.add(p)); this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.update(); }); }

  update() {
    const dirty = this.dirty, get = (key) => this.model.get(key), has = (...parts) => parts.some((p) => dirty.has(p)), at = this.root.getRootNode().activeElement;
    this.dirty = new Set();
    if (has("size")) this.root.classList.toggle("mi-big", get("size") === "stage");
    if (has("data")) this.load();
    if (has("data", "size", "resize")) this.measure(has("data"));
    if (has("data", "filter")) this.filter();
    if (has("data", "groups")) this.regroup();
    if (has("data", "filter", "groups")) this.makeLabels();
    if (has("data", "filter", "groups", "size", "resize")) this.drawCircuit();
    if (has("data", "filter", "groups", "size", "resize", "base")) this.draw();
    if (has("data", "filter", "groups", "top")) this.drawTop();
    if (has("data", "groups", "panel", "answers", "filter")) this.panel();
    if (has("data", "answers", "groups")) this.showAnswers();
    this.undoButton.disabled = !this.history.past.length;
    this.redoButton.disabled = !this.history.future.length;
    if (this.root.contains(at) && (at.disabled || at.hidden)) this.root.focus({ preventScroll: true }); // a button that is switched off does not take the focus with it
  }
  load() {
    this.meta = this.model.get("meta");
    this.g = buildGraph(this.model.get("nodes"), this.model.get("links"));
    this.words = this.g.label.filter((_, i) => this.g.kind[i] === ANSWER);
    this.root.setAttribute("aria-label", this.meta.sentence);
    this.focus = this.hover = -1;
    this.W = Math.max(1, ...this.meta.columns.map((c) => c[1]));
    this.H = Math.max(1, ...this.meta.rows.map((r) => r[2]));
  }
  measure(refit) {
    const [w, height] = [this.stage.clientWidth || 700, this.stage.clientHeight || 440], old = this.w;
    this.big = this.model.get("size") === "stage" ? 1.5 : 1;
    this.em = parseFloat(getComputedStyle(this.root).fontSize) || 14;
    Object.assign(this, { w, h: height, left: 4.6 * this.em, ratio: Math.min(window.devicePixelRatio || 1, 2) });
    this.sx = (w - this.left - 8) / this.W;
    this.narrow = (this.sx * this.W) / this.meta.columns.length < 3.4 * this.em; // then words stand in two lines by turns
    this.foot = (this.narrow ? 3.9 : 2.6) * this.em;
    this.sy = (height - this.foot - 8) / this.H;
    if (refit || !old) this.view = { k: 1, x: 0, y: 0 };
    else { this.view.x *= w / old; }
    for (const canvas of [this.base, this.top]) {
      const [mx, my] = [Math.round(w * MARGIN), Math.round(height * MARGIN)];
      canvas.width = (w + 2 * mx) * this.ratio;
      canvas.height = (height + 2 * my) * this.ratio;
      Object.assign(canvas.style, { width: `${w + 2 * mx}px`, height: `${height + 2 * my}px`, left: `${-mx}px`, top: `${-my}px`, transformOrigin: `${mx}px ${my}px` });
    }
  }
  at(x, y, v = this.view) { return [(this.left + x * this.sx) * v.k + v.x, (8 + (this.H - y) * this.sy) * v.k + v.y]; }
  node(i) { return this.at(this.g.x[i], this.g.y[i]); }

  filter() {
    const threshold = this.model.get("threshold"), g = this.g;
    this.shown = visible(g, threshold);
    const drawn = drawnLinks(g, this.shown), s = scores(g, this.shown);
    this.drawn = drawn.list;
    this.slider.value = threshold;
    this.slider.setAttribute("aria-valuetext", threshold.toFixed(2));
    this.level.textContent = threshold.toFixed(2);
    this.scoreValues = s;
    this.scores.textContent = s ? `replacement ${s.replacement.toFixed(2)}  ·  completeness ${s.completeness.toFixed(2)}` : "no scores: the graph has a cycle";
    this.count = this.shown.reduce((a, b) => a + b, 0);
    const hiddenNodes = g.n - this.count, hiddenLinks = g.m - drawn.possible, weak = drawn.possible - drawn.list.length;
    const parts = [hiddenNodes || hiddenLinks ? `${number(hiddenNodes)} of ${number(g.n)} nodes and ${number(hiddenLinks)} of ${number(g.m)} links hidden by the threshold` : `All ${number(g.n)} nodes and ${number(g.m)} links shown`];
    if (weak) parts.push(`the ${number(weak)} weakest of these ${number(drawn.possible)} links not drawn`);
    if (this.meta.hidden?.some(Boolean)) parts.push(`pruning had left out ${number(this.meta.hidden[0])} nodes and ${number(this.meta.hidden[1])} links`);
    this.hiddenText = parts.join("; ") + ".";
    if (this.told !== undefined && this.told !== this.hiddenText) this.say(`${this.hiddenText} ${this.scores.textContent}`);
    this.told = this.hiddenText;
  }
  regroup() {
    const g = this.g, supernodes = this.model.get("supernodes");
    this.member = new Array(g.n).fill("");
    for (const [label, ids] of Object.entries(supernodes)) for (const id of ids) if (g.index.has(id)) this.member[g.index.get(id)] = label;
    this.flow = flow(g, supernodes);
    const answer = Array.from({ length: g.n }, (_, i) => i).filter((i) => g.kind[i] === ANSWER).sort((a, b) => g.prob[b] - g.prob[a])[0];
    const tokens = new Set(g.end.filter((_, i) => g.kind[i] === TOKEN));
    this.chain = answer === undefined ? [] : path(this.flow, g.end[answer], (name) => tokens.has(name) && !(name in supernodes));
    this.main = new Set(this.chain.flatMap((s) => [s.source, s.target]));
    this.changed = new Map(this.model.get("interventions").flatMap((one) => (one.nodes || []).map((id) => [id, verb(one)])));
  }

  // ---- labels over the canvas
  makeLabels() {
    const g = this.g, supernodes = this.model.get("supernodes"), items = [];
    const label = (kind, text, x, y, props = {}) => {
      const node = h("div", { class: `mi-label mi-${kind}`, ...props });
      node.append(h("bdi", { text }));
      items.push({ kind, node, x, y, ...props.item });
      return items.at(-1);
    };
    this.meta.columns.forEach(([a, b], p) => label("token", spelled(this.meta.tokens[p] ?? p), (a + b) / 2, 0, { title: clean(this.meta.tokens[p] ?? "") }).span = b - a);
    const last = this.meta.rows.length - 1;
    this.meta.rows.forEach(([layer, a, b], r) => label("layer", r === last && g.kind.includes(ANSWER) ? "answer" : layer < 0 ? "tokens" : `layer ${layer}`, 0, (a + b) / 2));
    const strength = (ids) => Math.min(...ids.map((i) => g.influence[i] ?? 1));
    const pills = Object.entries(supernodes).map(([name, ids]) => [name, ids.map((id) => g.index.get(id)).filter((i) => i !== undefined && this.shown[i])])
      .filter(([, ids]) => ids.length).sort((a, b) => this.main.has(b[0]) - this.main.has(a[0]) || strength(a[1]) - strength(b[1]));
    for (const [name, ids] of pills) {
      const mean = (key) => ids.reduce((sum, i) => sum + g[key][i], 0) / ids.length, done = supernodes[name].map((id) => this.changed.get(id)).find(Boolean);
      const text = `${clean(short(name), 26)}${supernodes[name].length > 1 ? ` ×${supernodes[name].length}` : ""}${done ? `  ${done}` : ""}`;
      const item = label("pill", text, mean("x"), mean("y"), { "data-super": name, title: clean(name) });
      item.name = name;
      item.node.classList.toggle("mi-say", name.startsWith("say "));
      item.node.classList.toggle("mi-chain", this.main.has(name));
      item.node.classList.toggle("mi-changed", Boolean(done));
      item.minor = !done && !this.main.has(name) && name in this.meta.suggested && supernodes[name].length < 2;
    }
    Array.from({ length: g.n }, (_, i) => i).filter((i) => g.kind[i] === ANSWER).sort((a, b) => g.prob[b] - g.prob[a]).forEach((i, k) => {
      const item = label("answer", `${spelled(g.label[i], this.words, 20)} ${percent(g.prob[i])}`, g.x[i], g.y[i], { "data-node": g.id[i], title: clean(g.label[i]) });
      item.name = g.end[i];
      item.node.classList.toggle("mi-chain", k === 0);
    });
    this.items = items;
    this.labels.replaceChildren(...items.map((i) => i.node));
  }

  /** Labels keep off each other; those without room are left out and counted. */
  arrange() {
    const boxes = this.items.filter((i) => i.kind === "pill" || i.kind === "answer");
    for (const i of boxes) { i.node.hidden = false; [i.w, i.h] = [i.node.offsetWidth, i.node.offsetHeight]; }
    const order = boxes.sort((a, b) => b.node.classList.contains("mi-chain") - a.node.classList.contains("mi-chain") || (a.kind === "answer" ? -1 : 0) - (b.kind === "answer" ? -1 : 0));
    const far = this.view.k < 1.5 && order.filter((i) => i.kind === "pill").length > 8; // weak boxes of one node wait until one looks closer
    for (const i of order) if (far && i.minor) i.node.hidden = true;
    const inside = order.filter((i) => !i.node.hidden).filter((i) => { const [x, y] = this.at(i.x, i.y); return x > 0 && x < this.w && y > 0 && y < this.h; });
    const places = place(inside.map((i) => { const [x, y] = this.at(i.x, i.y); return { x, y, w: i.w, h: i.h }; }), this.w, this.h - this.foot);
    this.crowded = order.filter((i) => i.node.hidden).length;
    for (const i of order) i.dx = i.dy = 0;
    inside.forEach((i, k) => { if (places[k]) [i.dx, i.dy] = [places[k].dx, places[k].dy]; else { i.node.hidden = true; this.crowded++; } });
    const rows = this.items.filter((i) => i.kind === "layer"), gap = Math.ceil((1.3 * this.em) / Math.max(1, (rows.length > 1 ? (this.h / rows.length) * this.view.k : 99)));
    rows.forEach((i, k) => { i.node.hidden = k % gap !== 0 && k !== rows.length - 1 || k === rows.length - 2 && gap > 1; });
    for (const i of this.items.filter((x) => x.kind === "token")) {
      const room = i.span * this.sx * this.view.k;
      i.node.style.maxWidth = `${Math.max((this.narrow ? 1.9 : 1) * room - 2, 14)}px`;
      i.node.classList.toggle("mi-chain", [...this.main].some((name) => name === this.tokenEnd(i)));
    }
    this.status.textContent = this.hiddenText + (this.crowded ? ` ${number(this.crowded)} ${this.crowded === 1 ? "label" : "labels"} left out: zoom in.` : "") + (this.meta.notes?.length ? ` ${this.meta.notes.map((n) => clean(n, 300)).join(" ")}` : "");
  }
  tokenEnd(item) { const p = this.items.indexOf(item), g = this.g; return g.end.find((_, i) => g.kind[i] === TOKEN && g.ctx[i] === p) ?? ""; }

  put() {
    for (const [k, i] of this.items.entries()) {
      const [x, y] = this.at(i.x, i.y);
      if (i.kind === "token") i.node.style.transform = `translate(${x}px, ${this.h - this.foot + 4 + (this.narrow && k % 2 ? 1.35 * this.em : 0)}px) translate(-50%, 0)`;
      else if (i.kind === "layer") i.node.style.transform = `translate(4px, ${y}px) translate(0, -50%)`;
      else i.node.style.transform = `translate(${x + (i.dx || 0)}px, ${y + (i.dy || 0)}px) translate(-50%, -50%)`;
    }
    this.ring.hidden = this.focus < 0;
    if (this.focus >= 0) { const [x, y] = this.node(this.focus); this.ring.style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`; }
  }

  /** While moving, only the finished bitmap and the labels move; it is drawn again when the hand rests. */
  moved() {
    const { view: v, drawnView: d } = this, r = v.k / d.k, dx = v.x - r * d.x, dy = v.y - r * d.y;
    for (const canvas of [this.base, this.top]) canvas.style.transform = `translate(${dx}px, ${dy}px) scale(${r})`;
    this.put();
    clearTimeout(this.settle);
    if (Math.abs(dx) > this.w * MARGIN || Math.abs(dy) > this.h * MARGIN) this.draw();
    else this.settle = setTimeout(() => this.draw(), 150);
  }

  // ---- the canvas
  context(canvas) {
    const c = canvas.getContext("2d");
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    c.setTransform(this.ratio, 0, 0, this.ratio, Math.round(this.w * MARGIN) * this.ratio, Math.round(this.h * MARGIN) * this.ratio);
    return c;
  }

  draw() {
    clearTimeout(this.settle);
    const style = getComputedStyle(this.root), g = this.g, c = this.context(this.base);
    this.colour = Object.fromEntries(["bg", "ink", "soft", "blue", "orange", "green", "grey"].map((n) => [n, style.getPropertyValue(`--mi-${n}`).trim()]));
    const col = this.colour;
    this.drawnView = { ...this.view };
    for (const canvas of [this.base, this.top]) canvas.style.transform = "";
    this.arrange();
    this.put();
    c.fillStyle = col.soft;
    this.meta.columns.forEach(([a, b], p) => { if (p % 2) { const [x0, y0] = this.at(a, this.H), [x1, y1] = this.at(b, 0); c.fillRect(x0, y0, x1 - x0, y1 - y0); } });
    const xs = new Float32Array(g.n), ys = new Float32Array(g.n);
    for (let i = 0; i < g.n; i++) [xs[i], ys[i]] = this.node(i);
    Object.assign(this, { xs, ys });
    this.r = Math.min(Math.max(0.4 * Math.min(this.sx, this.sy) * this.view.k, this.count > 1000 ? 2 : 3 * this.big), 6 * this.big * Math.sqrt(Math.max(1, this.view.k)));
    const most = this.drawn.reduce((a, e) => Math.max(a, Math.abs(g.weight[e])), 1e-30), many = Math.min(1, 900 / Math.max(this.drawn.length, 1));
    const buckets = Array.from({ length: 10 }, () => []);
    for (const e of this.drawn) buckets[Math.min(4, Math.floor(5 * Math.sqrt(Math.abs(g.weight[e]) / most))) + (g.weight[e] < 0 ? 5 : 0)].push(e);
    c.strokeStyle = col.ink;
    buckets.forEach((list, b) => {
      const size = b % 5;
      c.globalAlpha = [0.07, 0.12, 0.2, 0.3, 0.42][size] * ((size < 2 ? 0.4 : 0.6) + (size < 2 ? 0.6 : 0.4) * many);
      c.lineWidth = [0.6, 0.8, 1.2, 1.8, 2.6][size] * this.big;
      c.setLineDash(b > 4 && list.length < 400 ? [2.5 * this.big, 3 * this.big] : []);
      this.lines(c, list);
    });
    c.setLineDash([]);
    c.globalAlpha = 1;
    const named = new Set(this.items.filter((i) => i.kind === "answer" && !i.node.hidden).map((i) => i.name));
    this.shapes(c, (i) => this.shown[i] && !(g.kind[i] === ANSWER && named.has(g.end[i])));
    this.arrows(c);
    this.drawTop();
  }

  lines(c, list) {
    const { source, target } = this.g, { xs, ys } = this;
    for (let k = 0; k < list.length; k += 10) { // long paths with many crossings are slow to draw
      c.beginPath();
      for (const e of list.slice(k, k + 10)) { c.moveTo(xs[source[e]], ys[source[e]]); c.lineTo(xs[target[e]], ys[target[e]]); }
      c.stroke();
    }
  }

  shapes(c, which) {
    const g = this.g, col = this.colour, { xs, ys, r } = this, styles = new Map();
    for (let i = 0; i < g.n; i++) if (which(i)) {
      const grouped = this.member[i], style = g.kind[i] === FEATURE ? (grouped ? (grouped.startsWith("say ") ? "say" : "grouped") : "free") : String(g.kind[i]);
      if (!styles.has(style)) styles.set(style, []);
      styles.get(style).push(i);
    }
    const paint = { say: [col.orange, col.bg], grouped: [col.blue, col.bg], free: [col.bg, col.blue], [ERROR]: [col.bg, col.grey], [TOKEN]: [col.ink, col.bg], [ANSWER]: [col.bg, col.ink], [OTHER]: [col.grey, col.bg] };
    for (const [style, list] of styles) for (let from = 0; from < list.length; from += 100) {
      c.beginPath();
      for (const i of list.slice(from, from + 100)) {
        const [x, y] = [xs[i], ys[i]];
        if (style === String(ERROR)) { const d = 1.25 * r; c.moveTo(x, y - d); c.lineTo(x + d, y); c.lineTo(x, y + d); c.lineTo(x - d, y); c.closePath(); }
        else if (style === String(TOKEN)) c.rect(x - r, y - r, 2 * r, 2 * r);
        else if (style === String(ANSWER)) c.roundRect(x - 1.6 * r, y - r, 3.2 * r, 2 * r, 0.7 * r);
        else { c.moveTo(x + r, y); c.arc(x, y, r, 0, 7); }
      }
      [c.fillStyle, c.strokeStyle] = paint[style];
      c.lineWidth = Math.min(1.4, r / 2.5) * this.big;
      c.fill();
      c.stroke();
    }
  }

  /** The strongest chain, thick, from box to box, with its shares. */
  arrows(c) {
    const g = this.g, col = this.colour, spot = new Map();
    for (const i of this.items) if (i.name && !i.node.hidden) { const [x, y] = this.at(i.x, i.y); spot.set(i.name, { x: x + i.dx, y: y + i.dy, w: i.w, h: i.h }); }
    for (let i = 0; i < g.n; i++) if (g.kind[i] === TOKEN) spot.set(g.end[i], { x: this.xs[i], y: this.ys[i], w: 3 * this.r, h: 3 * this.r });
    for (const step of this.chain) {
      const a = spot.get(step.source), b = spot.get(step.target);
      if (!a || !b) continue;
      const [dx, dy] = [b.x - a.x, b.y - a.y], length = Math.hypot(dx, dy) || 1, edge = (box) => Math.min(box.w / 2 / Math.max(Math.abs(dx), 1e-6), box.h / 2 / Math.max(Math.abs(dy), 1e-6)) * length + 3;
      const [ux, uy] = [dx / length, dy / length], wide = (2 + 6 * step.share ** 0.8) * this.big, head = 2 * wide + 5, start = edge(a), end = length - edge(b);
      if (end - start < 4) continue;
      const [tx, ty] = [a.x + ux * end, a.y + uy * end], neck = Math.max(start, end - head);
      for (const [colour, extra] of [[col.bg, 4], [col.ink, 0]]) {
        c.strokeStyle = c.fillStyle = colour;
        c.lineWidth = wide + extra;
        c.beginPath(); c.moveTo(a.x + ux * start, a.y + uy * start); c.lineTo(a.x + ux * neck, a.y + uy * neck); c.stroke();
        c.beginPath(); c.moveTo(tx, ty); c.lineTo(a.x + ux * neck - uy * head * 0.6, a.y + uy * neck + ux * head * 0.6); c.lineTo(a.x + ux * neck + uy * head * 0.6, a.y + uy * neck - ux * head * 0.6); c.fill();
      }
      const font = 1.15 * this.em, half = 1.6 * font, boxes = [...spot.values()];
      for (const [t, side] of length > 4 * this.em ? [[0.5, 1], [0.5, -1], [0.35, 1], [0.35, -1], [0.65, 1], [0.65, -1], [0.2, 1], [0.2, -1]] : []) {
        const x = a.x + dx * t + side * (wide / 2 + half) * Math.abs(uy), y = a.y + dy * t + side * (wide / 2 + font) * Math.abs(ux);
        if (boxes.some((o) => Math.abs(o.x - x) < o.w / 2 + half && Math.abs(o.y - y) < o.h / 2 + font * 0.7) || x + half > this.w) continue;
        this.halo(c, percent(step.share), x, y, `700 ${font}px system-ui, sans-serif`);
        break;
      }
    }
  }

  halo(c, text, x, y, font) {
    Object.assign(c, { font, textBaseline: "middle", textAlign: "center", lineJoin: "round", strokeStyle: this.colour.bg, lineWidth: 5, fillStyle: this.colour.ink });
    c.strokeText(text, x, y);
    c.fillText(text, x, y);
  }

  drawTop() {
    if (!this.drawnView) return;
    const g = this.g, col = this.colour, c = this.context(this.top), i = this.hover >= 0 ? this.hover : this.focus;
    this.root.classList.toggle("mi-dim", i >= 0);
    if (i >= 0 && this.shown[i]) {
      const near = new Set([i]);
      for (const [list, ends, colour] of [[g.into(i), g.source, col.blue], [g.outOf(i), g.target, col.green]]) {
        const most = list.reduce((a, e) => Math.max(a, Math.abs(g.weight[e])), 1e-30);
        for (const e of list) if (this.shown[ends[e]]) {
          const size = Math.abs(g.weight[e]) / most;
          if (size > 0.02) near.add(ends[e]);
          Object.assign(c, { strokeStyle: colour, globalAlpha: 0.25 + 0.75 * size, lineWidth: (0.6 + 3.4 * size) * this.big });
          c.setLineDash(g.weight[e] < 0 ? [5, 4] : []);
          this.lines(c, [e]);
        }
      }
      c.globalAlpha = 1;
      c.setLineDash([]);
      this.shapes(c, (k) => near.has(k) && this.shown[k]);
    }
    const rings = (list, colour, grow, dash) => {
      Object.assign(c, { strokeStyle: colour, lineWidth: 2.5 * this.big });
      c.setLineDash(dash);
      for (const k of list) if (this.shown[k]) { c.beginPath(); c.arc(this.xs[k], this.ys[k], this.r + grow, 0, 7); c.stroke(); }
    };
    rings(this.matches, col.green, 5, [3, 2]);
    rings(this.model.get("selected").map((id) => g.index.get(id)).filter((k) => k !== undefined), col.orange, 3, []);
    const name = supernodeOf(this.model.get("supernodes"), this.model.get("selected"));
    for (const item of this.items) item.node.classList.toggle("mi-selected", item.kind === "pill" && item.name === name);
  }

  // ---- moving and pointing
  fit() { this.view = { k: 1, x: 0, y: 0 }; this.moved(); this.say("The whole graph is in view."); }
  zoom(factor, px = this.w / 2, py = this.h / 2) {
    const v = this.view, k = Math.min(Math.max(v.k * factor, 0.5), 40), r = k / v.k;
    this.view = { k, x: px - r * (px - v.x), y: py - r * (py - v.y) };
    this.moved();
    this.say(`Zoom ${percent(k)}`);
  }
  wheel(e) {
    if (!(e.ctrlKey || e.metaKey || this.root.contains(document.activeElement))) return; // otherwise the notebook scrolls
    e.preventDefault();
    const [px, py] = this.point(e);
    this.zoom(Math.exp(-e.deltaY * (e.ctrlKey ? 0.01 : 0.0015)), px, py);
  }
  point(e) { const box = this.stage.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; }
  under(e) {
    const label = e.target.closest?.("[data-super], [data-node]"), [x, y] = this.point(e);
    if (label?.dataset.super !== undefined) return { label: label.dataset.super, node: -1 };
    if (label) return { node: this.g.index.get(label.dataset.node) };
    return { node: hit(this.g, this.shown, (i) => this.node(i), x, y, Math.max(this.r + 3, 7)) };
  }

  down(e) {
    if (e.button) return;
    this.root.focus({ preventScroll: true });
    e.preventDefault();
    this.pointers.set(e.pointerId, this.point(e));
    this.stage.setPointerCapture(e.pointerId);
    if (this.pointers.size === 1) this.press = { from: this.point(e), view: { ...this.view }, under: this.under(e), shift: e.shiftKey, moved: false };
    else this.press = { ...this.press, moved: true, pinch: true };
  }

  move(e) {
    const now = this.point(e), press = this.press;
    if (!this.pointers.has(e.pointerId)) { const { node, label } = this.under(e); return this.setHover(node ?? -1, now, label); }
    const other = [...this.pointers].find(([id]) => id !== e.pointerId)?.[1], old = this.pointers.get(e.pointerId);
    this.pointers.set(e.pointerId, now);
    if (other) {
      this.zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(old[0] - other[0], old[1] - other[1])), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      return;
    }
    if (press.pinch) return;
    const [dx, dy] = [now[0] - press.from[0], now[1] - press.from[1]];
    if (!press.moved && Math.hypot(dx, dy) < 4) return;
    press.moved = true;
    this.setHover(-1);
    if (press.shift) {
      this.band.hidden = false;
      Object.assign(this.band.style, { left: `${Math.min(now[0], press.from[0])}px`, top: `${Math.min(now[1], press.from[1])}px`, width: `${Math.abs(dx)}px`, height: `${Math.abs(dy)}px` });
    } else {
      this.view = { k: press.view.k, x: press.view.x + dx, y: press.view.y + dy };
      this.moved();
    }
  }

  up(e) {
    const press = this.press, now = this.point(e);
    this.pointers.delete(e.pointerId);
    if (!press || this.pointers.size) return;
    this.press = null;
    this.band.hidden = true;
    if (e.type === "pointercancel" || press.pinch) return;
    const g = this.g, selected = this.model.get("selected");
    if (press.moved && press.shift) {
      const inside = (i) => { const [x, y] = this.node(i); return x >= Math.min(now[0], press.from[0]) && x <= Math.max(now[0], press.from[0]) && y >= Math.min(now[1], press.from[1]) && y <= Math.max(now[1], press.from[1]); };
      this.select([...new Set([...selected, ...g.id.filter((_, i) => this.shown[i] && g.kind[i] !== ANSWER && inside(i))])]);
    } else if (!press.moved) {
      const { node, label } = press.under;
      const ids = label !== undefined ? this.model.get("supernodes")[label].filter((id) => g.index.has(id)) : node >= 0 ? [g.id[node]] : [];
      this.focus = -1;
      if (press.shift) this.select(ids.every((id) => selected.includes(id)) ? selected.filter((id) => !ids.includes(id)) : [...new Set([...selected, ...ids])]);
      else { this.select(ids); this.set({ clicked: label === undefined && node >= 0 ? g.id[node] : "" }); }
      this.put();
    }
  }

  setHover(i, at, label) {
    const same = i === this.hover && label === this.hoverLabel;
    Object.assign(this, { hover: i, hoverLabel: label });
    this.tip.hidden = i < 0 && label === undefined;
    if (!this.tip.hidden) {
      if (!same) this.tip.replaceChildren(...(label !== undefined ? [h("b", { text: clean(label) }), h("span", { text: this.groupLine(label) })] : this.lineOf(i).map((text, k) => h(k ? "span" : "b", { text }))));
      const [x, y] = at, left = x > this.w / 2, up = y > this.h / 2;
      this.tip.style.transform = `translate(${x + (left ? -14 : 14)}px, ${y + (up ? -10 : 14)}px) translate(${left ? "-100%" : "0"}, ${up ? "-100%" : "0"})`;
    }
    if (!same) this.drawTop();
  }

  groupLine(label) { const ids = this.model.get("supernodes")[label] ?? []; return `supernode of ${ids.length} ${ids.length === 1 ? "node" : "nodes"}`; }
  lineOf(i) {
    const g = this.g, token = clean(this.meta.tokens[g.ctx[i]] ?? "", 40).trim(), f = (x) => (x === null || x === undefined ? "not in the file" : x.toPrecision(3));
    const facts = [`${NAMES[g.kind[i]]}${g.kind[i] === FEATURE || g.kind[i] === ERROR ? ` in layer ${g.layer[i]}` : ""} at token “${token}” [${g.ctx[i]}]`];
    if (g.kind[i] === FEATURE) facts.push(`activation ${f(g.activation[i])}`);
    if (g.kind[i] === ANSWER) facts.push(`probability ${percent(g.prob[i])}`);
    else facts.push(`influence ≤ ${f(g.influence[i])}`);
    facts.push(`${number(g.into(i).length)} links in, ${number(g.outOf(i).length)} out`);
    return [clean(g.label[i] || g.id[i]), ...facts];
  }

  // ---- keyboard
  key(e) {
    if (!(e.ctrlKey || e.metaKey || e.altKey)) e.stopPropagation();
    if (this.dialog.open) { if (e.key === "Escape") { this.dialog.close(); e.preventDefault(); } e.stopPropagation(); return; }
    const writes = e.target.matches("input, select, textarea"), presses = e.target.matches("button, summary, a") && (e.key === "Enter" || e.key === " ");
    if (writes && e.key === "Escape") { if (e.target === this.search) this.clearSearch(); this.root.focus(); return e.stopPropagation(); }
    if (writes || presses) return;
    const control = e.ctrlKey || e.metaKey, arrows = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" }, key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
    const threshold = (d) => this.set({ threshold: Math.round(100 * Math.min(1, Math.max(0, this.model.get("threshold") + d))) / 100 });
    const todo = control ? { z: () => this.restore(e.shiftKey ? "redo" : "undo"), y: () => this.restore("redo") }[key] : arrows[key] ? () => this.walk(arrows[key]) : {
      Enter: () => this.toggle(), " ": () => this.focus >= 0 && this.set({ clicked: this.g.id[this.focus] }), g: () => this.makeGroup(), d: () => this.dissolve(),
      r: () => { this.panel(); if (!this.name.hidden) { this.name.focus(); this.name.select(); } else this.say("Select a supernode to rename it."); },
      z: () => this.intervene("zero", 0), "+": () => this.zoom(1.4), "=": () => this.zoom(1.4), "-": () => this.zoom(1 / 1.4), 0: () => this.fit(), "/": () => this.search.focus(),
      "[": () => threshold(-0.05), "]": () => threshold(0.05), Escape: () => this.clear(), "?": () => this.help(),
    }[key];
    if (!todo || e.altKey) return;
    stop(e);
    todo();
  }

  walk(direction) { this.goTo(walk(this.g, this.shown, this.focus >= 0 && this.shown[this.focus] ? this.focus : -1, direction)); }

  goTo(i) {
    if (i < 0) return;
    this.focus = i;
    const [x, y] = this.node(i);
    if (x < this.left || x > this.w - 10 || y < 10 || y > this.h - this.foot) { this.view = { ...this.view, x: this.view.x + this.w / 2 - x, y: this.view.y + this.h / 2 - y }; this.moved(); }
    this.put();
    this.drawTop();
    this.say(this.lineOf(i).join(", ") + (this.model.get("selected").includes(this.g.id[i]) ? ", selected" : ""));
  }

  toggle() {
    if (this.focus < 0) return;
    const id = this.g.id[this.focus], selected = this.model.get("selected");
    this.select(selected.includes(id) ? selected.filter((other) => other !== id) : [...selected, id]);
  }

  select(ids) { this.set({ selected: ids }); this.say(ids.length ? `${ids.length} ${ids.length === 1 ? "node" : "nodes"} selected` : "Nothing selected"); }

  clear() {
    this.clearSearch();
    Object.assign(this, { focus: -1, hover: -1 });
    this.tip.hidden = true;
    this.put();
    this.set({ clicked: "" });
    this.select([]);
  }

  help() { this.dialog.showModal(); }

  restore(way) {
    const state = this.history[way]();
    if (!state) return this.say(`Nothing to ${way}.`);
    this.applying = true;
    const now = this.snapshot();
    this.set(Object.fromEntries(Object.entries(state).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(now[key]))));
    this.applying = false;
    this.mark("panel");
    this.say(way === "undo" ? "Undone." : "Done again.");
  }

  // ---- search
  find() {
    this.matches = search(this.g, this.meta.tokens, this.search.value);
    this.match = -1;
    const hidden = this.matches.filter((i) => !this.shown[i]).length;
    this.found.textContent = this.search.value.trim() ? `${number(this.matches.length)} found${hidden ? `, ${number(hidden)} hidden` : ""}` : "";
    this.say(this.found.textContent);
    this.drawTop();
  }
  jump() {
    const open = this.matches.filter((i) => this.shown[i]);
    if (!open.length) return this.say("No match is shown.");
    this.match = (this.match + 1) % open.length;
    if (this.view.k < 2) this.zoom(2 / this.view.k, ...this.node(open[this.match]));
    this.goTo(open[this.match]);
  }
  clearSearch() { this.search.value = ""; this.find(); }

  // ---- supernodes and interventions
  makeGroup() {
    const g = this.g, ids = this.model.get("selected").filter((id) => g.index.has(id)), supernodes = this.model.get("supernodes");
    if (!ids.length) return this.say("Select nodes first.");
    let k = 1;
    while (`group ${k}` in supernodes) k++;
    this.set({ supernodes: group(supernodes, `group ${k}`, ids) });
    this.say(`${ids.length} nodes grouped as group ${k}. R renames it.`);
  }
  current() { return supernodeOf(this.model.get("supernodes"), this.model.get("selected")); }
  dissolve() {
    const label = this.current();
    if (!label) return this.say("Select a supernode to dissolve it.");
    this.set({ supernodes: group(this.model.get("supernodes"), label, []) });
    this.say(`${clean(label)} dissolved.`);
  }
  renamed() {
    const old = this.current(), label = this.name.value.trim(), supernodes = this.model.get("supernodes");
    if (!old || !label || label === old) return;
    if (label in supernodes) return this.say(`There is another supernode ${clean(label)}.`);
    this.set({ supernodes: rename(supernodes, old, label) });
    this.say(`Renamed to ${clean(label)}.`);
  }
  concepts() {
    const suggested = this.meta.suggested, found = Object.keys(suggested).length ? suggested : byConcept(this.g, this.meta.tokens);
    this.set({ supernodes: found });
    this.say(`${Object.keys(found).length} supernodes from the labels.`);
  }
  features() { return this.model.get("selected").filter((id) => this.g.kind[this.g.index.get(id)] === FEATURE); }
  intervene(kind, factor, to = "") {
    const nodes = this.features(), label = this.current() || (nodes.length === 1 ? clean(this.g.label[this.g.index.get(nodes[0])]) : `${nodes.length} features`);
    if (!this.model.get("can_act")) return this.say(this.meta.why);
    if (!nodes.length) return this.say("Select features or a supernode: only features can be changed.");
    const others = this.model.get("interventions").filter((one) => !one.nodes.some((id) => nodes.includes(id)));
    this.set({ interventions: [...others, { nodes, label, kind, factor, to }] });
  }

  // ---- the panels
  panel() {
    const get = (key) => this.model.get(key), g = this.g, selected = get("selected").filter((id) => g.index.has(id)), label = this.current(), can = get("can_act") && this.features().length > 0, swaps = get("swaps")[label] ?? [];
    this.who.textContent = label ? `${clean(short(label), 40)}: ${this.groupLine(label)}` : selected.length === 0 ? "Nothing selected" : selected.length === 1 ? clean(g.label[g.index.get(selected[0])] || selected[0], 60) : `${selected.length} nodes selected`;
    this.name.hidden = this.act.dissolve.hidden = !label;
    if (document.activeElement !== this.name || this.named !== label) this.name.value = label;
    this.named = label;
    this.act.group.disabled = !selected.length || Boolean(label);
    for (const name of ["zero", "half", "twice", "minus"]) this.act[name].disabled = !can;
    this.act.swap.hidden = this.places.hidden = !swaps.length;
    if (this.listed !== swaps) { this.places.replaceChildren(...swaps.map((s) => h("option", { value: s, text: `swap for ${clean(s)}` }))); this.listed = swaps; }
    this.act.reset.disabled = !get("interventions").length;
    this.why.textContent = !get("can_act") ? this.meta.why : !selected.length ? "Click a node or a box; Shift adds more." : !can ? "Only features can be changed." : "";
    this.detail(label);
  }

  detail(label) {
    const g = this.g, clicked = this.model.get("clicked"), i = g.index.get(clicked) ?? -1, out = [];
    const list = (title, rows) => { if (rows.length) out.push(h("h3", { text: title }), h("ol", {}, ...rows)); };
    if (i >= 0) {
      const row = ({ node, weight, share }) => h("li", {}, h("button", { type: "button", class: "mi-link", onclick: () => { this.set({ clicked: g.id[node] }); this.select([g.id[node]]); if (this.shown[node]) this.goTo(node); this.root.focus({ preventScroll: true }); } },
        h("bdi", { text: clean(g.label[node] || g.id[node], 48) }), h("span", { class: "mi-quiet", text: this.shown[node] ? "" : " hidden" })), h("span", { class: "mi-number", text: `${percent(share)}`, title: `weight ${weight.toPrecision(3)}` }), h("span", { class: "mi-number mi-quiet", text: weight.toPrecision(2) }));
      const [title, ...facts] = this.lineOf(i);
      out.push(h("h2", {}, h("bdi", { text: title })), h("p", { class: "mi-quiet", text: `${clean(g.id[i], 60)}. ${facts.join("; ")}.` }));
      list("Strongest inputs: share of its input, weight", strongest(g, i, "in", 6).map(row));
      list("Strongest outputs: share of their input, weight", strongest(g, i, "out", 6).map(row));
      const page = h("div", { class: "mi-page-of-node" });
      page.innerHTML = this.model.get("details")[clicked] ?? ""; // made and escaped by the kernel; all else here is text
      out.push(page);
    } else if (label) {
      const row = (name, r) => h("li", {}, h("bdi", { text: clean(name, 48) }), h("span", { class: "mi-number", text: percent(r.share) }));
      list("Its inputs: share of its input", this.flow.filter((r) => r.target === label).slice(0, 6).map((r) => row(r.source, r)));
      list("Its outputs: share of their input", this.flow.filter((r) => r.source === label).slice(0, 6).map((r) => row(r.target, r)));
    }
    this.detailBox.replaceChildren(...out);
  }

  showAnswers() {
    const a = this.model.get("answers"), acting = this.model.get("interventions"), out = [h("h2", {}, acting.length ? "Answers before and now" : "Answers", acting.length ? h("span", { class: "mi-quiet", text: " (from 1 %)" }) : "")];
    for (const one of acting) out.push(h("p", { class: "mi-done", text: `${clean(short(one.label || ""), 40)} ${verb(one)}` }));
    const shown = rows(a);
    for (const row of shown) {
      const line = h("div", { class: "mi-answer-row" }, h("b", {}, h("bdi", { text: spelled(row.token, shown.map((r) => r.token)) }), row.expected ? h("small", { text: "expected" }) : ""), h("div", {}));
      for (const kind of ["before", "after"]) if (row[kind] !== null) line.lastChild.append(bar(kind, row[kind], kind === "before" ? "before" : "now", percent(row[kind]), 68));
      out.push(line);
    }
    if (a.after?.length || a.running) {
      out.push(h("h3", { text: a.running ? "Controls (running …)" : "Controls" }), ...(a.controls || []).map((c) => h("p", { class: "mi-control" }, h("b", { text: `${clean(c.name)}: ${clean(c.token, 24)} ${percent(c.prob)}` }), h("span", { class: "mi-quiet", text: ` ${clean(c.note, 200)}` }))));
    }
    if (a.error) out.push(h("p", { class: "mi-error", role: "alert", text: clean(a.error, 400) }));
    this.answersBox.replaceChildren(...out);
    const after = a.after?.[0], heard = a.error || (after ? `${clean(a.before[0]?.token)} ${percent(a.before[0]?.prob)} before, now ${clean(after.token)} ${percent(after.prob)}.${a.running ? "" : " Controls are done."}` : "");
    if (heard && heard !== this.heard) this.say(heard);
    this.heard = heard;
  }

  drawCircuit() {
    const g = this.g, supernodes = this.model.get("supernodes"), c = circuit(g, supernodes, this.flow, this.chain, Object.keys(supernodes).filter((label) => !(label in this.meta.suggested))), em = this.em, width = this.circuitBox.clientWidth - 8 || 900;
    this.circuitBox.hidden = !c.boxes.length;
    if (!c.boxes.length) return;
    const pen = this.top.getContext("2d"), rows = c.boxes.map((b) => b.row), [low, high] = [Math.min(...rows), Math.max(...rows)], gap = 2.7 * em, above = c.edges.some((e) => c.boxes.find((b) => b.name === e.target).col <= c.boxes.find((b) => b.name === e.source).col) ? 0.5 * gap : 0, height = (high - low + 1) * gap + 0.8 * em + above, at = new Map();
    for (const b of c.boxes) {
      const size = b.chain ? 1.3 * em : em;
      pen.font = `${b.chain ? 700 : 600} ${size}px system-ui, sans-serif`;
      b.text = clean(b.kind === FEATURE ? `${short(b.name)}${b.size > 1 ? ` ×${b.size}` : ""}` : b.kind === ANSWER ? `${spelled(g.label[b.node], this.words)} ${percent(g.prob[b.node])}` : spelled(this.meta.tokens[g.ctx[b.node]] || g.label[b.node]), 22);
      Object.assign(b, { px: size, w: pen.measureText(b.text).width + 1.6 * size, h: b.chain ? 2.2 * em : 1.75 * em });
    }
    const widest = Array.from({ length: c.columns }, (_, k) => Math.max(0, ...c.boxes.filter((b) => b.col === k).map((b) => b.w))), sum = widest.reduce((a, b) => a + b, 0), free = Math.max((width - sum - 8) / Math.max(1, c.columns - 1), 5.5 * em);
    let x = 4;
    const middle = widest.map((w) => { const m = x + w / 2; x += w + free; return m; }), full = Math.max(width, x - free + 4);
    for (const b of c.boxes) at.set(b.name, Object.assign(b, { x: middle[b.col], y: (b.row - low + 0.5) * gap + 0.4 * em + above }));
    const parts = [], texts = [], used = c.boxes.map((b) => ({ x: b.x, y: b.y, w: b.w, h: b.h }));
    for (const e of [...c.edges].sort((p, q) => q.chain - p.chain)) { // the chain takes its places first, and is drawn last
      const a = at.get(e.source), b = at.get(e.target), back = b.col <= a.col, wide = (1 + 8 * Math.abs(e.share) ** 0.8) * (e.chain ? 1 : 0.7), head = e.chain ? 8 + wide : 6 + wide;
      const [x0, x1] = back ? [a.x, b.x] : [a.x + a.w / 2, b.x - b.w / 2 - head], [y0, y1] = back ? [a.y - a.h / 2, b.y - b.h / 2 - head] : [a.y, b.y], bend = Math.max((x1 - x0) * 0.45, 14);
      // over a box that stands between the two, the line bows out of the way
      const through = !back && a.y === b.y && c.boxes.some((o) => o.col > a.col && o.col < b.col && o.y === a.y), lift = through ? (e.chain ? 0 : -gap * 0.9) : 0;
      const d = back ? `M${x0},${y0} C${x0},${y0 - gap} ${x1},${y1 - gap} ${x1},${y1}` : `M${x0},${y0} C${x0 + bend},${y0 + lift} ${x1 - bend},${y1 + lift} ${x1},${y1}`;
      parts.unshift(h("svg:path", { d, class: `mi-edge${e.chain ? " mi-chain" : ""}${e.share < 0 ? " mi-minus" : ""}`, "stroke-width": wide.toFixed(1) }, h("svg:title", { text: `${clean(e.source)} → ${clean(e.target)}: ${percent(e.share)}` })));
      parts.unshift(h("svg:path", { class: `mi-head${e.chain ? " mi-chain" : ""}`, d: back ? `M${x1 - head / 1.6},${y1 - 1} h${head * 1.25} L${x1},${y1 + head} z` : `M${x1 - 1},${y1 - head / 1.6} v${head * 1.25} L${x1 + head},${y1} z` }));
      const text = percent(e.share), size = e.chain ? 1.25 * em : 0.9 * em;
      for (const t of [0.5, 0.35, 0.65, 0.22, 0.78]) {
        const bez = (p0, p1, p2, p3) => (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t * t * p2 + t ** 3 * p3;
        const spot = { x: bez(x0, x0 + bend, x1 - bend, x1), y: bez(y0, y0 + lift, y1 + lift, y1) - (e.chain ? wide / 2 + 0.75 * em : 0), w: 0.62 * size * text.length + 4, h: size };
        if (back || used.some((u) => Math.abs(u.x - spot.x) < (u.w + spot.w) / 2 && Math.abs(u.y - spot.y) < (u.h + spot.h) / 2)) continue;
        used.push(spot);
        texts.push(h("svg:text", { x: spot.x, y: spot.y, "font-size": size, class: `mi-share${e.chain ? " mi-chain" : ""}`, text }));
        break;
      }
    }
    for (const b of c.boxes) {
      const kind = b.kind === TOKEN ? "token" : b.kind === ANSWER ? "answer" : b.name.startsWith("say ") ? "say" : "group";
      const box = h("svg:g", { class: `mi-box mi-box-${kind}${b.chain ? " mi-chain" : ""}`, transform: `translate(${b.x},${b.y})`, onclick: () => this.pickBox(b, supernodes) }, h("svg:rect", { x: -b.w / 2, y: -b.h / 2, width: b.w, height: b.h, rx: b.kind === TOKEN ? 2 : b.h / 2 }), h("svg:text", { text: b.text, "font-size": b.px }), h("svg:title", { text: clean(b.name) }));
      parts.push(box);
    }
    this.svg.replaceChildren(...parts, ...texts);
    for (const [key, value] of Object.entries({ width: full, height, viewBox: `0 0 ${full} ${height}`, "aria-label": this.chain.map((s) => `${clean(s.source)} to ${clean(s.target)}: ${percent(s.share)}`).join("; ") || "No chain" })) this.svg.setAttribute(key, value);
    this.circuitHead.textContent = `Supernodes and their summed links; per cent of all that reaches a box, whatever is hidden.${c.left ? ` ${c.left} weaker ${c.left === 1 ? "supernode is" : "supernodes are"} not drawn.` : ""}`;
  }

  pickBox(b, supernodes) {
    const ids = b.name in supernodes ? supernodes[b.name].filter((id) => this.g.index.has(id)) : [this.g.id[b.node]];
    this.select(ids);
    this.set({ clicked: b.name in supernodes ? "" : ids[0] });
    this.root.focus({ preventScroll: true });
  }
}

/** An intervention in a few signs. */
export function verb({ kind, factor, to }) { return kind === "zero" ? "→ 0" : kind === "swap" ? `→ ${clean(to || "", 30)}` : `×${String(factor).replace("-", "−")}`; }

export const render = renders(View);
export default { render };
