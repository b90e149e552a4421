// The head browser: every head as a small picture, the chosen head as CircuitsVis's pattern or as lines between tokens (in BertViz's manner),
// and where a token looks, in words.
// First the logic, as exported functions without a browser (tests/js); then the view. All state lives in the model's traits.
import { bar, clean, h, listen, percent, renders, rove, Shared, stop } from "./common.js";

/** The weights as bytes (16-bit integers, 65,535 for 1): a function of (layer, head) that gives them as [query][key]. */
export function unpack(bytes, [layers, heads, queries, keys]) {
  const view = bytes instanceof DataView ? bytes : new DataView(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength);
  return (layer, head) => Array.from({ length: layer < layers && head < heads ? queries : 0 }, (_, q) =>
    Array.from({ length: keys }, (_, k) => view.getUint16(2 * (((layer * heads + head) * queries + q) * keys + k), true) / 65535));
}

/** The `count` keys with the largest weights: [position, weight], the largest first; of equal ones the earlier. None that get nothing. */
export function largest(weights, count) { return weights.map((w, k) => [k, w]).filter(([, w]) => w > 0).sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, count); }

/** What is drawn of heads, each [query][key], as lines [number of the head, query, key, weight], the strongest last and at most `max` of them, none below
 *  1 %; of one query or one key alone where `only` is {side: "from" or "to", at}. */
export function lines(heads, only = null, max = 4000) {
  const all = heads.flatMap((rows, k) => rows.flatMap((row, q) => row.map((w, key) => [k, q, key, w])));
  return all.filter(([, q, key, w]) => w >= 0.01 && (!only || only.at === (only.side === "from" ? q : key))).sort((a, b) => a[3] - b[3]).slice(-max);
}

/** Where an arrow key leads among the heads: left and right to the neighbour, up a layer, down a layer. */
export function neighbour([layer, head], key, layers, heads) {
  const [up, right] = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key] ?? [];
  return up === undefined ? null : [Math.min(Math.max(layer + up, 0), layers - 1), Math.min(Math.max(head + right, 0), heads - 1)];
}

/** CircuitsVis, from the page if it is there, otherwise from the kernel. */
async function circuitsVis(model) {
  if (globalThis.CircuitsVis) return globalThis.CircuitsVis;
  const [message, buffers] = await new Promise((done) => {
    const heard = (message, buffers) => { if (message?.answer === "circuitsvis") { model.off("msg:custom", heard); done([message, buffers]); } };
    model.on("msg:custom", heard);
    model.send({ ask: "circuitsvis" });
  });
  if (message.error) throw new Error(message.error);
  const address = URL.createObjectURL(new Blob([buffers[0]], { type: "text/javascript" }));
  try { if (!globalThis.CircuitsVis) await import(address); } finally { URL.revokeObjectURL(address); }
  return globalThis.CircuitsVis;
}

const SQUARE = { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" };
let made = 0; // CircuitsVis draws into an element that it finds by its id

class View extends Shared {
  constructor(model, el) {
    super(model);
    Object.assign(this, { drawn: new Map() });
    const [layers, heads] = this.get("shape");
    this.weights = unpack(this.get("pattern"), this.get("shape"));
    this.names = this.get("tokens").map((token, i) => `${clean(token, 30).trim() || "␣"} [${i}]`);
    this.queries = this.get("queries").length ? this.get("queries").map((name) => clean(name, 30)) : this.names;
    this.live = h("div", { class: "mi-live", role: "status", "aria-live": "polite" });
    this.buttons = Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (_, head) => this.button(layer, head)));
    const grid = h("div", { class: "mi-heads", role: "radiogroup", "aria-label": "Heads; layers upwards", onkeydown: (e) => this.key(e) },
      ...this.buttons.flatMap((row, layer) => [h("span", { text: `layer ${layer}` }), h("div", { class: "mi-layer-row" }, ...row)]).reduce((pairs, node, i, all) => (i % 2 ? [[all[i - 1], node], ...pairs] : pairs), []).flat());
    this.links = h("svg:svg", { ...SQUARE, style: `height: ${1.7 * this.names.length}em` });
    this.sides = Object.fromEntries([["from", this.queries], ["to", this.names]].map(([side, names]) => [side, names.map((text, at) => h("button", { type: "button", class: "mi-end", tabindex: at ? -1 : 0, "aria-pressed": "false", onclick: () => this.pin(side, at), onkeydown: (e) => rove(e, this.sides[side], at, "ArrowUp", "ArrowDown"),
      onmouseenter: () => this.join({ side, at }), onmouseleave: () => this.join(), onfocus: () => this.join({ side, at }), onblur: () => this.join() }, h("bdi", { text }), h("span")))]));
    const column = (side, label) => h("div", { role: "group", "aria-label": label, class: `mi-ends mi-${side}` }, h("b", { text: label }), ...this.sides[side]);
    this.together = Array.from({ length: heads }, (_, k) => h("button", { type: "button", onclick: () => { const also = this.get("also"); this.set({ also: also.includes(k) ? also.filter((one) => one !== k) : [...also, k] }); } },
      h("svg:svg", { viewBox: "0 0 30 6", "aria-hidden": "true" }, h("svg:line", { x2: 30, y1: 3, y2: 3, class: `mi-link-${k % 4}` })), ` ${k}`)); // made once: a button that is made again loses the focus
    this.both = h("div", { class: "mi-row", role: "group", "aria-label": "Heads of this layer, drawn together" }, "With head ", ...this.together);
    this.panel = h("div", { hidden: true }, this.title = h("h2"), heads > 1 ? this.both : "", h("div", { class: "mi-long" }, h("div", { class: "mi-lines" }, column("from", "looks"), this.links, column("to", "is looked at"))));
    this.chart = h("div", { class: "mi-chart" }, this.panel);
    this.mode = h("select", { onchange: () => this.set({ mode: this.mode.value }) }, h("option", { value: "pattern", text: "pattern" }), h("option", { value: "lines", text: "lines" }));
    this.query = h("select", { onchange: () => this.set({ query: Number(this.query.value) }) }, ...this.queries.map((text, value) => h("option", { value, text })));
    this.side = h("div");
    const silent = this.get("silent").flat().some(Boolean);
    this.root = h("div", { class: "mi-graph mi-attention" }, h("h2", { class: "mi-title", text: clean(this.get("title"), 200) }),
      h("p", { class: "mi-status", text: `Choose a head: click, or arrow keys. In a pattern each row is a token that looks (the first on top), each column one that is looked at; as lines, tokens look from left to right. Dark is much.${this.get("unit") ? ` The numbers are ${this.get("unit")}.` : ""}${silent ? " Pale, dashed heads are silent: their output matrix is zero, so they write nothing, whatever they attend to." : ""}` }),
      this.queries === this.names ? h("label", {}, "Show as ", this.mode) : "",
      h("div", { class: "mi-main" }, grid, this.chart, h("div", { class: "mi-side" }, h("section", { "aria-label": "Where a token looks" }, h("label", {}, "From token ", this.query), this.side))), this.live);
    el.append(this.root);
    this.cleanup.push(listen(model, { "layer head also mode": () => this.show(), query: () => this.look(), size: () => this.resize() }), () => { this.gone = true; cancelAnimationFrame(this.frame); });
    this.resize();
    this.show();
  }
  button(layer, head) {
    const rows = this.weights(layer, head), silent = this.get("silent")[layer][head], [n, m] = this.get("shape").slice(2);
    const canvas = h("canvas", { width: m, height: n, "aria-hidden": "true" }), pen = canvas.getContext("2d"), image = pen.createImageData(m, n);
    rows.flat().forEach((w, i) => image.data.set([0, 114, 178].map((c) => 255 - (silent ? 0.35 : 1) * w * (255 - c)).concat(255), 4 * i));
    pen.putImageData(image, 0, 0);
    return h("button", { type: "button", role: "radio", class: `mi-head-button${silent ? " mi-silent" : ""}`, "aria-label": this.name(layer, head), onclick: () => this.set({ layer, head }) }, canvas, h("svg:svg", SQUARE), h("span", { text: `${layer}.${head}` }), silent ? h("span", { text: "silent" }) : "");
  }
  /** Lines of SVG for heads of a layer; see `lines`. */
  linesOf(layer, heads, only, max) {
    return lines(heads.map((k) => this.weights(layer, k)), only, max).map(([k, q, key, w]) => h("svg:line", { x2: 1, y1: (q + 0.5) / this.queries.length, y2: (key + 0.5) / this.names.length, "stroke-opacity": w.toFixed(2), class: `mi-link-${heads.length > 1 ? heads[k] % 4 : 0}` }));
  }
  name(layer, head) { return `head ${layer}.${head}${this.get("silent")[layer][head] ? ", silent" : ""}`; }
  key(e) {
    const [layers, heads] = this.get("shape"), to = neighbour([this.get("layer"), this.get("head")], e.key, layers, heads);
    if (!to || e.altKey || e.ctrlKey || e.metaKey) return;
    stop(e);
    this.set({ layer: to[0], head: to[1] });
    this.buttons[to[0]][to[1]].focus();
  }
  show() {
    const [layer, head] = [this.get("layer"), this.get("head")];
    this.buttons.forEach((row, l) => row.forEach((button, i) => {
      const chosen = l === layer && i === head;
      button.setAttribute("aria-checked", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }));
    this.look();
    cancelAnimationFrame(this.frame);
    const linked = this.get("mode") === "lines";
    this.root.classList.toggle("mi-linked", linked);
    this.mode.value = this.get("mode");
    this.panel.hidden = !linked;
    if (!linked) { this.frame = requestAnimationFrame(() => this.draw(layer, head)); return; }
    this.buttons.forEach((row, l) => row.forEach(({ children: [, svg] }, i) => { if (!svg.firstChild) svg.append(...this.linesOf(l, [i], null, 200)); }));
    for (const node of this.drawn.values()) node.hidden = true;
    const also = this.get("also");
    this.title.textContent = `${this.name(layer, head)}: lines from the token that looks to the one that is looked at`;
    this.together.forEach((button, k) => { button.setAttribute("aria-pressed", String(k === head || also.includes(k))); button.disabled = k === head; });
    this.join();
  }
  /** Draws the lines: all, or those of one token (the one under the pointer or else the pinned one), with its weights as numbers on the other side. */
  join(only = this.pinned) {
    const [layer, head] = [this.get("layer"), this.get("head")], heads = [head, ...this.get("also").filter((k) => k !== head && k < this.get("shape")[1])], one = this.weights(layer, head);
    this.links.replaceChildren(...this.linesOf(layer, heads, only));
    for (const [side, buttons] of Object.entries(this.sides)) buttons.forEach((button, at) => {
      const weight = !only || only.side === side ? 0 : side === "to" ? one[only.at][at] : one[at][only.at];
      button.lastChild.textContent = weight >= 0.005 ? this.said(weight) : "";
      button.setAttribute("aria-pressed", String(this.pinned?.side === side && this.pinned.at === at));
    });
  }
  pin(side, at) {
    this.pinned = this.pinned?.side === side && this.pinned.at === at ? undefined : { side, at };
    this.join();
    if (side === "from") return this.set({ query: at });
    const top = largest(this.weights(this.get("layer"), this.get("head")).map((row) => row[at]), 3);
    this.live.textContent = `${this.names[at]} is looked at by ${top.map(([q, w]) => `${this.queries[q]}, ${this.said(w)}`).join("; ")}`;
  }
  said(weight) { return this.get("unit") ? (weight * this.get("top")).toPrecision(2) : percent(weight); }
  /** CircuitsVis cannot be told to stop, so each head is drawn once and then hidden and shown. */
  async draw(layer, head) {
    const key = `${layer}.${head}`;
    for (const [name, node] of this.drawn) node.hidden = name !== key;
    if (this.drawn.has(key)) return;
    const id = `mi-circuitsvis-${(made += 1)}-${Math.random().toString(36).slice(2, 8)}`;
    const node = h("div", {}, h("h2", { text: `${this.name(layer, head)}: attention from the row's token to the column's` }), h("div", { id, "aria-hidden": "true" }));
    this.drawn.set(key, node);
    this.chart.append(node);
    try {
      const library = await circuitsVis(this.model);
      if (this.gone) return;
      library.render(id, library.AttentionPattern, { attention: this.weights(layer, head), tokens: this.get("tokens").map((token) => clean(token, 20)), maxValue: 1, minValue: -1, positiveColor: "#0072b2", upperTriColor: "#e6e6e6", zoomed: true });
    } catch (error) { node.append(h("p", { class: "mi-error", role: "alert", text: clean(error.message || "CircuitsVis cannot be loaded.", 300) })); }
  }
  look() {
    const [layer, head, query] = ["layer", "head", "query"].map((key) => this.get(key)), top = largest(this.weights(layer, head)[query] ?? [], 6);
    this.query.value = String(query);
    const silent = this.get("silent")[layer][head];
    this.side.replaceChildren(h("h3", { text: `${this.name(layer, head)} looks at` }), ...top.map(([k, w]) => h("div", { class: "mi-answer-row" }, h("b", {}, h("bdi", { text: this.names[k] })), bar("after", w, this.names[k], this.said(w)))),
      silent ? h("p", { class: "mi-quiet", text: "It writes nothing: its output matrix is zero." }) : "");
    const text = `${this.name(layer, head)}: ${this.queries[query]} looks at ${top.slice(0, 2).map(([k, w]) => `${this.names[k]}, ${this.said(w)}`).join("; ")}`;
    if (this.told !== undefined && this.told !== text) this.live.textContent = text;
    this.told = text;
  }
}

export const render = renders(View);
export default { render };
