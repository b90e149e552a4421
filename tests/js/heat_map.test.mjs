// The logic of the heat map, the head browser, the attention brush and what they share, without a browser: node --test tests/js
import assert from "node:assert/strict";
import { test } from "node:test";
import * as brush from "../../mi_workshop/widgets/attention_brush.js";
import * as heads from "../../mi_workshop/widgets/attention_view.js";
import * as shared from "../../mi_workshop/widgets/common.js";
import * as map from "../../mi_workshop/widgets/heat_map.js";

const SCALES = { sequential: ["#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"], diverging: ["#7f2704", "#e6550d", "#fdbe85", "#ffffff", "#9ecae1", "#3182bd", "#08306b"] };
const light = (rgb) => rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + [0.2126, 0.7152, 0.0722][i] * c, 0);

test("larger values are darker in grey, and numbers keep a contrast of 4.5", () => {
  const steps = Array.from({ length: 201 }, (_, i) => i / 200);
  for (const [name, scale] of Object.entries(SCALES)) {
    const found = steps.map((v) => map.colour(v, 0, 1, scale)), grey = found.map((f) => light(f.rgb));
    const half = name === "diverging" ? grey.slice(100) : grey;
    for (let i = 1; i < half.length; i++) assert.ok(half[i] <= half[i - 1] + 1e-3, `${name} ${i}`);
    found.forEach((f, i) => assert.ok(f.ink === "#000" ? (grey[i] + 0.05) / 0.05 >= 4.5 : 1.05 / (grey[i] + 0.05) >= 4.5, `${name} ${i}`));
  }
  assert.deepEqual(map.colour(9, 0, 1, SCALES.sequential), map.colour(1, 0, 1, SCALES.sequential));
});

test("numbers are as short as the scale allows", () => {
  assert.equal(map.figure(0.5, 0, 1), "0.50");
  assert.equal(map.figure(-0.5, -1, 1), "−0.50");
  assert.equal(map.figure(-0.001, -1, 1), "0.00");
  assert.equal(map.figure(123.4, 0, 200), "123");
  assert.equal(map.figure(12.34, 0, 20), "12.3");
  assert.equal(map.figure(-0.000123, -0.001, 0), "−1.2e−4");
});

test("arrow keys go where they point, and never leave the map", () => {
  assert.deepEqual(map.step([0, 0], "ArrowUp", 3, 4, true), [1, 0]);
  assert.deepEqual(map.step([0, 0], "ArrowUp", 3, 4, false), [0, 0]);
  assert.deepEqual(map.step([0, 0], "ArrowDown", 3, 4, false), [1, 0]);
  assert.deepEqual(map.step([1, 3], "ArrowRight", 3, 4, true), [1, 3]);
  assert.deepEqual(map.step([1, 3], "Home", 3, 4, true), [1, 0]);
  assert.deepEqual(map.step([1, 1], "End", 3, 4, true, true), [0, 3]);
  assert.equal(map.step([1, 1], "a", 3, 4, true), null);
});

test("weights come out of bytes at any offset", () => {
  const bytes = new Uint8Array(1 + 2 * 8), at = new DataView(bytes.buffer, 1);
  [0, 65535, 13107, 52428, 65535, 0, 32768, 32767].forEach((w, i) => at.setUint16(2 * i, w, true));
  const weights = heads.unpack(at, [1, 2, 2, 2]);
  assert.deepEqual(weights(0, 0), [[0, 1], [0.2, 0.8]]);
  assert.ok(Math.abs(weights(0, 1)[1][0] - 0.5) < 1e-4);
  assert.deepEqual(heads.unpack(bytes.slice(1), [1, 2, 2, 2])(0, 0), weights(0, 0));
  assert.deepEqual(heads.largest([0.1, 0.6, 0.1, 0.2], 3), [[1, 0.6], [3, 0.2], [0, 0.1]]);
  assert.deepEqual(heads.largest([0.5, 0.5, 0], 3), [[0, 0.5], [1, 0.5]]);
});

test("arrow keys move between heads, layers upwards", () => {
  assert.deepEqual(heads.neighbour([1, 1], "ArrowUp", 2, 4), [1, 1]);
  assert.deepEqual(heads.neighbour([1, 1], "ArrowDown", 2, 4), [0, 1]);
  assert.deepEqual(heads.neighbour([1, 1], "ArrowRight", 2, 4), [1, 2]);
  assert.equal(heads.neighbour([1, 1], "x", 2, 4), null);
});

test("what leads on either side is among the bars", () => {
  const before = [0.4, 0.3, 0.2, 0.05, 0.03].map((prob, i) => ({ token: `b${i}`, prob })), after = [{ token: "new", prob: 0.9 }, { token: "b0", prob: 0.05 }];
  const found = shared.rows({ before, after });
  assert.deepEqual([found[0].token, found[0].before, found[0].after, found[1].token], ["new", 0, 0.9, "b0"]);
  assert.equal(found.length, 5);
  assert.deepEqual(shared.rows({ before }).map((r) => r.after), [null, null, null, null, null]);
});

test("labels lose control and bidi characters", () => {
  assert.equal(shared.clean("a\u202eb\u0000c\u2066d"), "a b c d");
  assert.equal(shared.clean("x".repeat(1000), 10).length, 10);
});

test("the stand-in for a kernel decodes bytes and tells who listens", () => {
  const model = shared.standIn({ data: { base64: "AAEC" }, a: 1 }), heard = [], off = shared.listen(model, { "a b": () => heard.push(model.get("a")) });
  assert.equal(model.get("data").getUint8(2), 2);
  model.set("a", 5);
  off();
  model.set("a", 6);
  assert.deepEqual(heard, [5]);
});

test("lines of heads: the strongest last, none below a per cent, of one token alone if asked", () => {
  const rows = [[1, 0, 0], [0.3, 0.7, 0], [0.005, 0.5, 0.495]], found = heads.lines([rows]);
  assert.deepEqual(found.map((l) => l[3]), [0.3, 0.495, 0.5, 0.7, 1]);
  assert.deepEqual(heads.lines([rows], { side: "from", at: 1 }), [[0, 1, 0, 0.3], [0, 1, 1, 0.7]]);
  assert.deepEqual(heads.lines([rows], { side: "to", at: 1 }), [[0, 2, 1, 0.5], [0, 1, 1, 0.7]]);
  assert.deepEqual(heads.lines([rows, rows], null, 2), [[0, 0, 0, 1], [1, 0, 0, 1]]);
});

test("the brush keeps weights that sum to one", () => {
  const sum = (weights) => weights.reduce((a, b) => a + b, 0), close = (a, b) => a.forEach((x, i) => assert.ok(Math.abs(x - b[i]) < 1e-12, `${a}`));
  close(brush.raised([0.5, 0.3, 0.2], 0, 0.75), [0.75, 0.15, 0.1]);
  close(brush.raised([1, 0, 0], 0, 0.4), [0.4, 0.3, 0.3]);
  for (const value of [-1, 0, 0.3, 1, 7]) assert.ok(Math.abs(sum(brush.raised([0.5, 0.3, 0.2], 1, value)) - 1) < 1e-12);
  close(brush.raised([1], 0, 0.2), [1]);
  close(brush.moved([0.5, 0.3, 0.2], 0, 2), [0, 0.3, 0.7]);
  close(brush.moved([0.5, 0.3, 0.2], 1, 1), [0.5, 0.3, 0.2]);
  assert.deepEqual(brush.permuted([0.5, 0.3, 0.2]).sort(), [0.2, 0.3, 0.5]);
});
