// A heat map: rows by columns, a number in each cell where it fits; Enter or a click asks Python about a cell.
// First the logic, as exported functions without a browser (tests/js); then the view. All state lives in the model's traits.
import { answered, clean, h, listen, renders, Shared, stop } from "./common.js";

/** Red, green and blue (0 to 255) of `value` on the scale, and whether black or white is read better on it. */
export function colour(value, low, high, scale) {
  const at = Math.min(1, Math.max(0, (value - low) / (high - low))) * (scale.length - 1), k = Math.min(Math.floor(at), scale.length - 2);
  const part = (stop, i) => parseInt(scale[stop].slice(1 + 2 * i, 3 + 2 * i), 16);
  const rgb = [0, 1, 2].map((i) => Math.round(part(k, i) + (at - k) * (part(k + 1, i) - part(k, i))));
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return { rgb, ink: 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff" };
}

/** A number in as few signs as tell apart what lies between low and high. */
export function figure(value, low, high) {
  const size = Math.max(Math.abs(low), Math.abs(high), Number.MIN_VALUE);
  const text = size >= 1e5 || size < 0.01 ? value.toExponential(1) : value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return (Number(text) === 0 ? text.replace("-", "") : text).replaceAll("-", "−");
}

/** Where a key leads from a cell [row, column], inside the map; null for another key. Up is a higher row where rows go up. */
export function step([row, column], key, rows, columns, upward, control = false) {
  const up = upward ? 1 : -1, to = {
    ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row + up, column], ArrowDown: [row - up, column],
    Home: [control ? (upward ? rows - 1 : 0) : row, 0], End: [control ? (upward ? 0 : rows - 1) : row, columns - 1],
  }[key];
  return to ? [Math.min(Math.max(to[0], 0), rows - 1), Math.min(Math.max(to[1], 0), columns - 1)] : null;
}

const same = (a, b) => a?.length === 2 && a[0] === b?.[0] && a[1] === b?.[1];
let made = 0; // ids must differ between views of one page

class View extends Shared {
  constructor(model, el) {
    super(model);
    Object.assign(this, { here: null, id: `mi-heat-${(made += 1)}-${Math.random().toString(36).slice(2, 8)}` });
    this.live = h("div", { class: "mi-live", role: "status", "aria-live": "polite" });
    this.head = h("h2", { class: "mi-title" });
    this.status = h("p", { class: "mi-status" });
    this.grid = h("div", { class: "mi-grid", role: "grid", tabindex: 0, onkeydown: (e) => this.key(e), onfocus: () => this.go(this.here ?? this.first()), onblur: () => this.mark() });
    this.legend = h("div", { class: "mi-legend" });
    this.panel = h("section", { "aria-label": "The chosen cell" });
    this.root = h("div", { class: "mi-graph mi-heat" }, this.head, this.status,
      h("div", { class: "mi-main" }, h("div", {}, h("div", { class: "mi-scroll" }, this.grid), this.legend), h("div", { class: "mi-side" }, this.panel)), this.live);
    el.append(this.root);
    this.cleanup.push(listen(model, { "rows columns upward title": () => this.build(), "cells low high scale unit": () => this.fill(), "selected answer can_ask": () => this.show(), size: () => this.resize() }));
    const watch = new ResizeObserver(() => this.fit());
    watch.observe(this.root);
    this.cleanup.push(() => watch.disconnect());
    this.resize();
    this.build();
  }
  first() { const chosen = this.get("selected"); return chosen.length ? chosen : [this.get("upward") ? this.get("rows").length - 1 : 0, 0]; }
  cell([row, column]) { return this.boxes[row]?.[column]; }
  build() {
    const rows = this.get("rows"), columns = this.get("columns"), order = rows.map((_, i) => i);
    if (this.get("upward")) order.reverse();
    this.head.textContent = clean(this.get("title"), 200);
    this.head.hidden = !this.head.textContent;
    this.grid.setAttribute("aria-label", clean(this.get("title") || "Heat map", 200));
    const top = h("div", { role: "row" }, h("span", { role: "columnheader" }, h("span", { class: "mi-live", text: "row" })), ...columns.map((name) => h("span", { role: "columnheader", title: clean(name), text: clean(name, 40).trim() || "␣" })));
    this.boxes = [];
    const lines = order.map((row) => {
      this.boxes[row] = columns.map((_, column) => h("div", { role: "gridcell", class: "mi-cell", id: `${this.id}-${row}-${column}`, onclick: () => { this.go([row, column]); this.ask([row, column]); } }));
      return h("div", { role: "row" }, h("span", { role: "rowheader", title: clean(rows[row]), text: clean(rows[row], 40).trim() || "␣" }), ...this.boxes[row]);
    });
    this.names = [...top.children].slice(1);
    this.grid.replaceChildren(...(this.get("upward") ? [...lines, top] : [top, ...lines]));
    this.grid.style.gridTemplateColumns = `max-content repeat(${columns.length}, minmax(1.35em, 5em))`;
    this.fill();
  }
  fill() {
    const [cells, low, high, scale] = ["cells", "low", "high", "scale"].map((key) => this.get(key));
    let known = 0, least = Infinity, most = -Infinity;
    this.boxes.forEach((line, row) => line.forEach((box, column) => {
      const value = cells[row]?.[column] ?? null, shade = value === null ? null : colour(value, low, high, scale);
      if (value !== null) { known++; least = Math.min(least, value); most = Math.max(most, value); }
      box.classList.toggle("mi-none", value === null);
      Object.assign(box.style, { background: shade ? `rgb(${shade.rgb})` : "", color: shade ? shade.ink : "#000" });
      box.dataset.text = value === null ? "" : figure(value, low, high);
      const said = `${clean(this.get("rows")[row], 40)}, ${clean(this.get("columns")[column], 40)}: ${value === null ? "not computed" : box.dataset.text}`;
      box.setAttribute("aria-label", said);
      box.title = said;
    }));
    const all = this.boxes.length * this.get("columns").length, unit = clean(this.get("unit"), 120), mid = low < 0 && high > 0;
    const partial = known === all ? `All ${all} cells computed.` : `${known} of ${all} cells computed.`;
    this.status.textContent = this.get("can_ask") ? `${partial} Click on a cell, or choose one with the arrow keys and Enter.` : partial;
    const name = (value, sign) => h("span", { text: `${sign}${figure(value, low, high)}` });
    const ramp = h("i", { role: "img", "aria-label": `The scale runs from ${figure(low, low, high)} to ${figure(high, low, high)}.` });
    ramp.style.background = `linear-gradient(90deg, ${scale.join(", ")})`;
    this.legend.replaceChildren(unit ? h("b", { text: unit }) : "", name(low, least < low ? "≤ " : ""), ramp, name(high, most > high ? "≥ " : ""), mid ? h("span", { class: "mi-quiet", text: "white: 0; negative cells carry a −" }) : "",
      ...(known < all ? [h("span", { class: "mi-key-none mi-cell mi-none", "aria-hidden": "true" }), h("span", { text: "not computed" })] : []));
    this.fit();
    this.show();
  }
  /** Numbers where the widest of them fits, and names upright where one is wider than its column. */
  fit() {
    const box = this.boxes?.[0]?.[0];
    if (!box || !box.clientWidth) return;
    const em = parseFloat(getComputedStyle(box).fontSize), longest = Math.max(...this.boxes.flat().map((b) => b.dataset.text.length)), fits = box.clientWidth >= 0.6 * em * longest;
    for (const b of this.boxes.flat()) b.textContent = fits ? b.dataset.text : b.dataset.text.startsWith("−") ? "−" : "";
    this.grid.classList.remove("mi-upright");
    this.grid.classList.toggle("mi-upright", this.names.some((n) => n.scrollWidth > box.clientWidth + 3));
  }
  // ---- choosing
  key(e) {
    const move = step(this.here ?? this.first(), e.key, this.get("rows").length, this.get("columns").length, this.get("upward"), e.ctrlKey || e.metaKey);
    if (e.altKey || !(move || e.key === "Enter" || e.key === " " || e.key === "Escape")) return;
    stop(e);
    if (move) this.go(move);
    else this.ask(e.key === "Escape" ? [] : this.here ?? this.first());
  }
  go(cell) {
    this.here = cell;
    this.mark();
    this.grid.setAttribute("aria-activedescendant", this.cell(cell)?.id ?? "");
    this.cell(cell)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  mark() {
    const focused = document.activeElement === this.grid, chosen = this.get("selected");
    this.boxes.forEach((line, row) => line.forEach((box, column) => {
      box.classList.toggle("mi-here", focused && same(this.here, [row, column]));
      box.classList.toggle("mi-chosen", same(chosen, [row, column]));
      box.setAttribute("aria-selected", String(same(chosen, [row, column])));
    }));
  }
  ask(cell) { this.set({ selected: cell }); }
  show() {
    const chosen = this.get("selected"), answer = this.get("answer"), asks = this.get("can_ask") || Boolean(answer.cell);
    this.root.classList.toggle("mi-asks", asks);
    this.mark();
    if (!asks) return;
    const box = chosen.length ? this.cell(chosen) : null, waits = box && !same(answer.cell, chosen);
    const out = [h("h2", { text: box ? box.getAttribute("aria-label") : "No cell chosen" })];
    if (waits) out.push(h("p", { class: "mi-quiet", text: this.get("can_ask") ? "Computing …" : "A saved page has no model to ask: open the notebook to click on a cell." }));
    else if (box) out.push(...answered(answer));
    this.panel.replaceChildren(...out);
    const said = !box || waits ? "" : answer.error || [answer.text, answer.after?.length ? `now ${answer.after[0].token}` : ""].filter(Boolean).join("; ");
    if (said && said !== this.said) this.live.textContent = clean(said, 300);
    this.said = said;
  }
}

export const render = renders(View);
export default { render };
