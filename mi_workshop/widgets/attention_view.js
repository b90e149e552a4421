// The head browser: every head as a small picture, CircuitsVis's pattern of the chosen head, and where a token looks, in words.
// First the logic, as exported functions without a browser (tests/js); then the view. All state lives in the model's traits.
import { bar, clean, h, listen, percent } from "./common.js";

/** The weights as bytes (16-bit integers, 65,535 for 1): a function of (layer, head) that gives them as [query][key]. */
export function unpack(bytes, [layers, heads, queries, keys]) {
  const view = bytes instanceof DataView ? bytes : new DataView(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength);
  return (layer, head) => Array.from({ length: layer < layers && head < heads ? queries : 0 }, (_, q) =>
    Array.from({ length: keys }, (_, k) => view.getUint16(2 * (((layer * heads + head) * queries + q) * keys + k), true) / 65535));
}

/** The `count` keys with the largest weights: [position, weight], the largest first; of equal ones the earlier. None that get nothing. */
export function largest(weights, count) {
  return weights.map((w, k) => [k, w]).filter(([, w]) => w > 0).sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, count);
}

/** Where an arrow key leads among the heads: left and right to the neighbour, up a layer, down a layer. */
export function neighbour([layer, head], key, layers, heads) {
  const [up, right] = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key] ?? [];
  return up === undefined ? null : [Math.min(Math.max(layer + up, 0), layers - 1), Math.min(Math.max(head + right, 0), heads - 1)];
}

/** CircuitsVis, from the page if it is there, otherwise from the kernel. */
function circuitsVis(model) {
  if (globalThis.CircuitsVis) return Promise.resolve(globalThis.CircuitsVis);
  return new Promise((done, fail) => {
    const heard = async (message, buffers) => {
      if (message?.answer !== "circuitsvis") return;
      model.off("msg:custom", heard);
      if (message.error) return fail(new Error(message.error));
      const address = URL.createObjectURL(new Blob([buffers[0]], { type: "text/javascript" }));
      try {
        if (!globalThis.CircuitsVis) await import(address);
        done(globalThis.CircuitsVis);
      } catch (error) { fail(error); } finally { URL.revokeObjectURL(address); }
    };
    model.on("msg:custom", heard);
    model.send({ ask: "circuitsvis" });
  });
}

let made = 0; // CircuitsVis draws into an element that it finds by its id

class View {
  constructor(model, el) {
    Object.assign(this, { model, drawn: new Map() });
    const [layers, heads] = this.get("shape");
    this.weights = unpack(this.get("pattern"), this.get("shape"));
    this.names = this.get("tokens").map((token, i) => `${clean(token, 30).trim() || "␣"} [${i}]`);
    this.live = h("div", { class: "mi-live", role: "status", "aria-live": "polite" });
    this.buttons = Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (_, head) => this.button(layer, head)));
    const grid = h("div", { class: "mi-heads", role: "radiogroup", "aria-label": "Heads; layers upwards", onkeydown: (e) => this.key(e) },
      ...this.buttons.flatMap((row, layer) => [h("span", { text: `layer ${layer}` }), h("div", { class: "mi-layer-row" }, ...row)]).reduce((pairs, node, i, all) => (i % 2 ? [[all[i - 1], node], ...pairs] : pairs), []).flat());
    this.chart = h("div", { class: "mi-chart" });
    this.query = h("select", { onchange: () => this.set({ query: Number(this.query.value) }) }, ...this.names.map((text, value) => h("option", { value, text })));
    this.side = h("div");
    const silent = this.get("silent").flat().some(Boolean);
    this.root = h("div", { class: "mi-graph mi-attention" }, h("h2", { class: "mi-title", text: clean(this.get("title"), 200) }),
      h("p", { class: "mi-status", text: `Choose a head: click, or arrow keys. Each row of a picture is a token that looks (the first on top), each column one that is looked at; dark is much.${silent ? " Pale, dashed heads are silent: their output matrix is zero, so they write nothing, whatever they attend to." : ""}` }),
      h("div", { class: "mi-main" }, grid, this.chart, h("div", { class: "mi-side" }, h("section", { "aria-label": "Where a token looks" }, h("label", {}, "From token ", this.query), this.side))), this.live);
    el.append(this.root);
    const off = listen(model, { "layer head": () => this.show(), query: () => this.look(), size: () => this.resize() });
    this.cleanup = () => { off(); this.gone = true; cancelAnimationFrame(this.frame); };
    this.resize();
    this.show();
  }

  get(key) { return this.model.get(key); }
  set(values) {
    for (const [key, value] of Object.entries(values)) this.model.set(key, value);
    this.model.save_changes();
  }
  resize() { this.root.classList.toggle("mi-big", this.get("size") === "stage"); }

  button(layer, head) {
    const rows = this.weights(layer, head), silent = this.get("silent")[layer][head], n = rows.length;
    const canvas = h("canvas", { width: n, height: n, "aria-hidden": "true" }), pen = canvas.getContext("2d"), image = pen.createImageData(n, n);
    rows.flat().forEach((w, i) => image.data.set([0, 114, 178].map((c) => 255 - (silent ? 0.35 : 1) * w * (255 - c)).concat(255), 4 * i));
    pen.putImageData(image, 0, 0);
    return h("button", { type: "button", role: "radio", class: `mi-head-button${silent ? " mi-silent" : ""}`, "aria-label": this.name(layer, head), onclick: () => this.set({ layer, head }) }, canvas, h("span", { text: `${layer}.${head}` }), silent ? h("span", { text: "silent" }) : "");
  }

  name(layer, head) { return `head ${layer}.${head}${this.get("silent")[layer][head] ? ", silent" : ""}`; }

  key(e) {
    const [layers, heads] = this.get("shape"), to = neighbour([this.get("layer"), this.get("head")], e.key, layers, heads);
    if (!to || e.altKey || e.ctrlKey || e.metaKey) return;
    e.preventDefault();
    e.stopPropagation();
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
    this.frame = requestAnimationFrame(() => this.draw(layer, head));
  }

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
    } catch (error) {
      node.append(h("p", { class: "mi-error", role: "alert", text: clean(error.message || "CircuitsVis cannot be loaded.", 300) }));
    }
  }

  look() {
    const [layer, head, query] = ["layer", "head", "query"].map((key) => this.get(key)), top = largest(this.weights(layer, head)[query] ?? [], 6);
    this.query.value = String(query);
    const silent = this.get("silent")[layer][head];
    this.side.replaceChildren(h("h3", { text: `${this.name(layer, head)} looks at` }), ...top.map(([k, w]) => h("div", { class: "mi-answer-row" }, h("b", {}, h("bdi", { text: this.names[k] })), bar("after", w, this.names[k]))),
      silent ? h("p", { class: "mi-quiet", text: "It writes nothing: its output matrix is zero." }) : "");
    const text = `${this.name(layer, head)}: ${this.names[query]} looks at ${top.slice(0, 2).map(([k, w]) => `${this.names[k]}, ${percent(w)}`).join("; ")}`;
    if (this.said !== undefined && this.said !== text) this.live.textContent = text;
    this.said = text;
  }
}

export function render({ model, el }) {
  const view = new View(model, el);
  return () => view.cleanup();
}

export default { render };
