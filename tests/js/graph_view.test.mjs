// The logic of the interactive graph without a browser: node --test tests/js
import assert from "node:assert/strict";
import { test } from "node:test";
import * as shared from "../../mi_workshop/widgets/common.js";
import * as view from "../../mi_workshop/widgets/graph_view.js";

const F = "cross layer transcoder", E = "mlp reconstruction error";
const IDS = ["t0", "t1", "a", "b", "e", "out"];
const NODES = {
  id: IDS, type: ["embedding", "embedding", F, F, E, "logit"], layer: [-1, -1, 0, 1, 0, 2], ctx: [0, 1, 1, 1, 1, 1],
  label: ["big", "Dallas", "Texas", "Texas", "error", "Austin"], activation: [null, null, 1, 2, null, null],
  influence: [0.9, 0.6, 0.3, 0.5, 0.8, null], prob: [0, 0, 0, 0, 0, 0.9], end: ["token 'big' [0]", "token 'Dallas' [1]", "", "", "", "answer 'Austin'"],
  x: [1, 3, 3, 3, 4, 3], y: [0, 0, 1, 2, 1, 3],
};
const LINKS = [[0, 2, 1], [1, 2, 3], [2, 3, 2], [4, 3, -2], [3, 5, 3], [1, 5, 1]];
const pack = (links) => {
  const out = new Uint8Array(12 * links.length + 1), at = new DataView(out.buffer, 1);
  links.forEach(([s, t, w], i) => { at.setInt32(4 * i, s, true); at.setInt32(4 * (links.length + i), t, true); at.setFloat32(4 * (2 * links.length + i), w, true); });
  return at; // at an odd offset, as a message may bring it
};
const g = view.buildGraph(NODES, pack(LINKS)), all = new Uint8Array(6).fill(1);

test("bytes at any offset become links, indexed both ways", () => {
  assert.deepEqual([...g.source], LINKS.map((l) => l[0]));
  assert.deepEqual([...g.into(3)], [2, 3]);
  assert.deepEqual([...g.outOf(1)], [1, 5]);
});

test("the threshold keeps tokens, answers and the most influential", () => {
  assert.deepEqual([...view.visible(g, 0.3)], [1, 1, 1, 0, 0, 1]);
  assert.deepEqual([...view.visible(g, 1)], [1, 1, 1, 1, 1, 1]);
});

test("scores by hand, all shown and with a feature hidden", () => {
  // shares: b→out .75, t1→out .25; a→b .5, e→b .5; t0→a .25, t1→a .75. Influence is .9 of: tokens .625, error .375
  const full = view.scores(g, all);
  assert.ok(Math.abs(full.replacement - 0.625) < 1e-6, full.replacement);
  const [out, b, a] = [0.9, 0.675, 0.3375], rest = 0.9 * (0.625 + 0.375);
  assert.ok(Math.abs(full.completeness - (out + 0.5 * b + a + rest) / (out + b + a + rest)) < 1e-6);
  const less = view.scores(g, Uint8Array.from([1, 1, 1, 0, 1, 1])); // b hidden: it counts as an error, its inputs are cut
  assert.ok(Math.abs(less.replacement - 0.25) < 1e-6, less.replacement);
  assert.equal(view.scores(view.buildGraph(NODES, pack([...LINKS, [3, 2, 1]])), all), null);
});

test("above the limit the strongest links are drawn, the others counted", () => {
  const { list, possible } = view.drawnLinks(g, all, 2);
  assert.equal(possible, 6);
  assert.deepEqual([...list].map((e) => Math.abs(g.weight[e])), [3, 3]);
});

test("hit: nearest within the radius, hidden nodes never", () => {
  const at = (i) => [10 * g.x[i], 10 * g.y[i]];
  assert.equal(view.hit(g, all, at, 31, 11, 5), 2);
  assert.equal(view.hit(g, Uint8Array.from([1, 1, 0, 1, 1, 1]), at, 31, 11, 5), -1);
});

test("search: label, token, node id", () => {
  const tokens = ["big", "Dallas"];
  assert.deepEqual(view.search(g, tokens, "texas"), [2, 3]);
  assert.deepEqual(view.search(g, tokens, "e"), [4]); // an exact id wins
  assert.deepEqual(new Set(view.search(g, tokens, "DALLAS")), new Set([1, 2, 3, 4, 5]));
  assert.deepEqual(view.search(g, tokens, "  "), []);
});

test("walking: along the layer and along the strongest links", () => {
  assert.equal(view.walk(g, all, -1, "up"), 5);
  assert.equal(view.walk(g, all, 5, "down"), 3);
  assert.equal(view.walk(g, all, 2, "up"), 3);
  assert.equal(view.walk(g, all, 2, "right"), 4);
  assert.equal(view.walk(g, all, 0, "left"), 0);
  assert.equal(view.walk(g, Uint8Array.from([1, 1, 1, 0, 1, 1]), 5, "down"), 1);
});

test("flow and chain: shares of all input", () => {
  const rows = view.flow(g, { "Texas @Dallas": ["a"], later: ["b", "not there"] });
  const share = (s, t) => rows.find((r) => r.source === s && r.target === t).share;
  assert.equal(share("token 'Dallas' [1]", "Texas @Dallas"), 0.75);
  assert.equal(share("Texas @Dallas", "later"), 0.5);
  const steps = view.path(rows, "answer 'Austin'", (name) => name.startsWith("token "));
  assert.deepEqual(steps.map((s) => s.source), ["token 'Dallas' [1]", "Texas @Dallas", "later"]);
  const round = [{ source: "x", target: "y", share: 1 }, { source: "y", target: "x", share: 1 }];
  assert.equal(view.path(round, "y", () => false).length, 1);
  const drawn = view.circuit(g, { "Texas @Dallas": ["a"], later: ["b"] }, rows, steps);
  assert.deepEqual(drawn.boxes.filter((b) => b.chain).map((b) => [b.name, b.col, b.row]).sort((p, q) => p[1] - q[1]),
    [["token 'Dallas' [1]", 0, 0], ["Texas @Dallas", 1, 0], ["later", 2, 0], ["answer 'Austin'", 3, 0]]);
});

test("a node belongs to one supernode", () => {
  const groups = view.group({ x: ["a", "b"], y: ["e"] }, "z", ["a", "e"]);
  assert.deepEqual(groups, { x: ["b"], z: ["a", "e"] });
  assert.deepEqual(view.group(groups, "z", []), { x: ["b"] });
  assert.deepEqual(view.rename(groups, "z", "w"), { x: ["b"], w: ["a", "e"] });
  assert.equal(view.rename(groups, "z", "x"), groups);
  assert.equal(view.supernodeOf(groups, ["e", "a"]), "z");
  assert.deepEqual(view.byConcept(g, ["big", "Dallas"]), { "Texas @Dallas": ["a", "b"] });
});

test("undo and redo; a drag of the slider is one step", () => {
  const h = new view.History({ t: 1 });
  h.record({ t: 0.9 }, "threshold", 1000);
  h.record({ t: 0.8 }, "threshold", 1200);
  h.record({ t: 0.5 }, "supernodes", 1300);
  assert.deepEqual([h.undo(), h.undo(), h.undo()], [{ t: 0.8 }, { t: 1 }, null]);
  assert.deepEqual([h.redo(), h.redo(), h.redo()], [{ t: 0.8 }, { t: 0.5 }, null]);
});

test("labels never overlap and stay inside", () => {
  const labels = Array.from({ length: 40 }, (_, i) => ({ x: 50 + (i * 37) % 200, y: 40 + (i * 53) % 150, w: 60, h: 20 }));
  const put = view.place(labels, 300, 200).map((p, i) => p && { x: labels[i].x + p.dx, y: labels[i].y + p.dy }).filter(Boolean);
  assert.ok(put.length > 5);
  put.forEach((a, i) => {
    assert.ok(a.x >= 30 && a.x <= 270 && a.y >= 10 && a.y <= 190);
    put.slice(i + 1).forEach((b) => assert.ok(Math.abs(a.x - b.x) >= 60 || Math.abs(a.y - b.y) >= 20));
  });
});

test("bars: the old and the new answers, the expected one among them", () => {
  const rows = shared.rows({ before: [{ token: "Austin", prob: 0.9 }], after: [{ token: "Sacramento", prob: 0.8 }], expected: "Sacramento" });
  assert.deepEqual(rows.map((r) => [r.token, r.before, r.after, r.expected]), [["Sacramento", 0, 0.8, true], ["Austin", 0.9, 0, false]]);
});

test("bars: the likeliest words are not left out", () => {
  const before = [0.9, 0.04, 0.03, 0.008, 0.007, 0.006, 0.005].map((prob, i) => ({ token: `w${i}`, prob })), after = [{ token: "x", prob: 0.5 }, { token: "w2", prob: 0.3 }, { token: "w3", prob: 0.005 }];
  assert.deepEqual(shared.rows({ before }).map((r) => r.token), ["w0", "w1", "w2", "w3", "w4"]);
  assert.deepEqual(shared.rows({ before, after }).map((r) => r.token), ["x", "w2", "w0", "w1"]);
});

test("words that differ by a blank alone show it", () => {
  assert.deepEqual([" euro", "euro", " Austin", "", " "].map((w, _, all) => view.spelled(w, all)), ["␣euro", "euro", "Austin", "␣", "␣"]);
});
