// The attention brush: a bar for each word's attention weight, moved by mouse, touch or keys; Python says what the model then predicts.
// First the logic, as exported functions without a browser (tests/js); then the view. All state lives in the model's traits.
import { answered, clean, h, listen, percent, renders, rove, Shared, stop } from "./common.js";

/** Weights with that of word `i` set to `value` (kept from 0 to 1) and the others scaled so that all sum to 1; where they were 0, they share alike. */
export function raised(weights, i, value) {
  const to = Math.min(1, Math.max(0, value)), rest = weights.reduce((sum, w, k) => (k === i ? sum : sum + w), 0);
  return weights.length < 2 ? [1] : weights.map((w, k) => (k === i ? to : rest > 0 ? (w * (1 - to)) / rest : (1 - to) / (weights.length - 1)));
}

/** Weights with all of word `from` given to word `to`. */
export function moved(weights, from, to) { return weights.map((w, k) => (from === to ? w : k === from ? 0 : k === to ? w + weights[from] : w)); }

/** The same weights in another order. */
export const permuted = (weights, random = Math.random) => weights.map((w) => [random(), w]).sort((a, b) => a[0] - b[0]).map(([, w]) => w);

class View extends Shared {
  constructor(model, el) {
    super(model);
    this.start = this.get("weights");
    this.live = h("div", { class: "mi-live", role: "status", "aria-live": "polite" });
    this.bars = this.get("words").map((word, i) => h("div", { class: "mi-word", role: "slider", tabindex: i ? -1 : 0, "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": `${clean(word, 30)} [${i}]`, onkeydown: (e) => this.key(e, i), onpointerdown: (e) => this.down(e, i) },
      h("div", { class: "mi-well" }, h("i", { class: "mi-own" }), h("i", { class: "mi-now" })), h("span", { class: "mi-number" }), h("bdi", { text: clean(word, 14) })));
    const button = (text, weights) => h("button", { type: "button", text, onclick: () => this.set({ weights: weights() }) });
    this.panel = h("section", { "aria-label": "Prediction" });
    this.root = h("div", { class: "mi-graph mi-brush" }, h("h2", { class: "mi-title", text: clean(this.get("title"), 200) }),
      h("p", { class: "mi-status", text: "Attention weights: the model's own hatched, those of now filled. Drag a bar up or down, or onto another word to give it all; keys: ← → choose a word, ↑ ↓ or + − change it, Home and End empty it or give it all. The others share the rest." }),
      h("div", { class: "mi-row" }, button("Uniform", () => this.bars.map(() => 1 / this.bars.length)), button("Permute", () => permuted(this.get("weights"))), button("Reset", () => this.get("own"))),
      h("div", { class: "mi-main" }, this.row = h("div", { class: "mi-words", onpointermove: (e) => this.move(e), onpointerup: (e) => this.up(e), onpointercancel: (e) => this.up(e) }, ...this.bars), h("div", { class: "mi-side" }, this.panel)), this.live);
    el.append(this.root);
    this.cleanup.push(listen(model, { "weights own": () => this.show(), "answer can_ask": () => this.tell(), size: () => this.resize() }));
    this.resize();
    this.show();
    this.tell();
  }
  show() {
    const [own, now] = [this.get("own"), this.get("weights")];
    if (!this.get("can_ask")) this.tell();
    if (!this.press) this.scale = Math.max(0.2, ...own, ...now);
    this.bars.forEach((bar, i) => {
      const [first, second] = bar.firstChild.children;
      first.style.height = `${(100 * own[i]) / this.scale}%`;
      second.style.height = `${Math.min(100, (100 * now[i]) / this.scale)}%`;
      bar.children[1].textContent = now[i] >= 0.005 ? Math.round(100 * now[i]) : "";
      bar.setAttribute("aria-valuenow", Math.round(100 * now[i]));
      bar.setAttribute("aria-valuetext", percent(now[i]));
    });
  }
  tell() {
    const answer = this.get("can_ask") || this.get("weights") === this.start ? this.get("answer") : {}, text = answer.error || answer.text || "";
    this.panel.replaceChildren(h("h2", { text: "Prediction" }), ...answered(answer), this.get("can_ask") ? "" : h("p", { class: "mi-quiet", text: "A saved page has no model to ask: open the notebook to see the prediction move." }));
    if (this.told !== undefined && this.told !== text) this.live.textContent = clean(text, 300);
    this.told = text;
  }
  key(e, i) {
    const now = this.get("weights"), step = { ArrowUp: 0.05, "+": 0.05, "=": 0.05, ArrowDown: -0.05, "-": -0.05, Home: -1, End: 1 }[e.key];
    if (rove(e, this.bars, i, "ArrowLeft", "ArrowRight") || !step || e.altKey || e.ctrlKey || e.metaKey) return;
    stop(e);
    this.set({ weights: raised(now, i, now[i] + step) });
  }
  down(e, i) {
    if (e.button) return;
    e.preventDefault();
    this.bars[i].focus();
    this.row.setPointerCapture(e.pointerId);
    this.press = { i, y: e.clientY, start: this.get("weights"), tall: this.bars[i].firstChild.clientHeight };
  }
  move(e) {
    if (!this.press) return;
    const { i, y, start, tall } = this.press, over = this.bars.indexOf(this.row.getRootNode().elementFromPoint(e.clientX, e.clientY)?.closest(".mi-word"));
    this.next = over >= 0 && over !== i ? moved(start, i, over) : raised(start, i, start[i] + ((y - e.clientY) / tall) * this.scale);
    this.bars.forEach((bar, k) => bar.classList.toggle("mi-target", k === over && k !== i));
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.set({ weights: this.next }); }); // not more often than the screen shows it
  }
  up() {
    this.press = null;
    this.bars.forEach((bar) => bar.classList.remove("mi-target"));
    this.show();
  }
}

export const render = renders(View);
export default { render };
