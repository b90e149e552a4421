"""How fast the interactive graph is: ``python tools/bench_view.py``. Figures for a person to read; no test depends on them.

For each graph, in headless Chromium without a GPU, medians of three loads: from the parsed page to its first paint, and the
time between two frames while it is dragged (16.7 ms are 60 frames a second); beside it the same nodes and all links as SVG.
Before that, in processes of their own: reading a JSON file and scoring it, here and with circuit-tracer's functions (on a dense
matrix). After it: an intervention on the atlas graph, from the changed trait to the new answers and to the last control.
"""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "real_data"
FILES = ["haiku_capital-state-dallas", "gemma2-2b_clt_fact-dallas-austin", "gemma2-2b_plt_euro_dup-node-id"]
PROMPT = "Fact: the capital of the state containing Dallas is"
OPENING = """
document.addEventListener("readystatechange", () => { if (document.readyState === "interactive") window.start = performance.now(); });
document.addEventListener("DOMContentLoaded", () => requestAnimationFrame(() => requestAnimationFrame(() => { window.paint = performance.now() - window.start; })));
"""
FRAMES = """async (move, count) => {
    const steps = [];
    let last = await new Promise(requestAnimationFrame);
    for (let i = 1; i <= count; i++) { move(i); const now = await new Promise(requestAnimationFrame); steps.push(now - last); last = now; }
    return steps.sort((a, b) => a - b);
}"""
PAN = f"""async () => {{
    const stage = document.querySelector(".mi-stage"), box = stage.getBoundingClientRect();
    stage.setPointerCapture = () => {{}}; // refuses the pointer of an event made by a script
    const send = (type, x, y) => stage.dispatchEvent(new PointerEvent(type, {{ pointerId: 1, clientX: box.x + x, clientY: box.y + y, bubbles: true }}));
    send("pointerdown", 60, 60);
    const steps = await ({FRAMES})((i) => send("pointermove", 60 + 2 * i, 60 + i), 40);
    send("pointerup", 140, 100);
    return [steps[20], steps[36]];
}}"""
SVG = f"""async () => {{
    const nodes = graphModel.get("nodes"), meta = graphModel.get("meta"), buffer = graphModel.get("links").buffer, m = buffer.byteLength / 12;
    const source = new Int32Array(buffer, 0, m), target = new Int32Array(buffer, 4 * m, m);
    const width = Math.max(...meta.columns.map((c) => c[1])), height = Math.max(...meta.rows.map((r) => r[2]));
    const x = (i) => 800 * nodes.x[i] / width, y = (i) => 460 * (1 - nodes.y[i] / height);
    document.body.replaceChildren();
    const start = performance.now(), make = (name, values) => {{
        const element = document.createElementNS("http://www.w3.org/2000/svg", name);
        for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
        return element;
    }};
    const picture = make("svg", {{ width: 800, height: 460 }}), all = make("g", {{}});
    for (let e = 0; e < m; e++) all.append(make("line", {{ x1: x(source[e]), y1: y(source[e]), x2: x(target[e]), y2: y(target[e]), stroke: "#0002" }}));
    nodes.id.forEach((_, i) => all.append(make("circle", {{ cx: x(i), cy: y(i), r: 3 }})));
    picture.append(all);
    document.body.append(picture);
    for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
    const paint = performance.now() - start;
    const steps = await ({FRAMES})((i) => all.setAttribute("transform", `translate(${{2 * i}},${{i}})`), 12);
    return [paint, steps[6]];
}}"""


def real_files():
    for name in FILES:
        path = REAL / f"{name}.json"
        if path.exists():
            yield path
        else:
            print(f"{name}: left out, the file is not in {REAL.parent.name}/{REAL.name} (it may not be shipped).")


def graphs(paths):
    import mi_workshop as mi

    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from test_view import synthetic

    for path in paths:
        with warnings.catch_warnings(action="ignore"):
            yield path.stem, mi.AttributionGraph.load(path)
    yield "atlas", mi.trace(mi.load("atlas"), PROMPT)
    yield "synthetic", synthetic()


def view(browser, page_file, runs=3):
    """First paint, pan step (median and 90th percentile), and both for the SVG, in milliseconds."""
    paints, pans = [], []
    for _ in range(runs):
        context = browser.new_context(viewport={"width": 1200, "height": 900}, bypass_csp=True)
        context.add_init_script(OPENING)
        page = context.new_page()
        page.goto(page_file.as_uri())
        page.wait_for_function("window.paint", timeout=60_000)
        paints.append(page.evaluate("window.paint"))
        page.wait_for_timeout(400)  # the sharper picture that replaces the first is drawn
        pans.append(page.evaluate(PAN))
        svg = page.evaluate(SVG) if len(paints) == runs else None
        context.close()
    return statistics.median(paints), *map(statistics.median, zip(*pans, strict=True)), *svg


def act(graph, kind, to=""):
    """Seconds until the new answers and until all controls are there, medians of five."""
    shown = graph.show()

    async def once(factor):
        start = time.perf_counter()
        one = {"nodes": graph.supernodes["Texas @Dallas"], "label": "Texas", "kind": kind, "factor": factor, "to": to}
        shown.interventions = [one]
        answered = time.perf_counter() - start
        await shown._task
        return answered, time.perf_counter() - start

    found = [asyncio.run(once(float(i))) for i in range(5)]
    return map(statistics.median, zip(*found, strict=True))


def read_and_score(who, path):
    """Scores, seconds (median of five) and peak memory in MB of reading and scoring one file; runs in a process of its own."""
    from mi_workshop.circuits.graph import AttributionGraph

    def ours():
        with warnings.catch_warnings(action="ignore"):
            return AttributionGraph.load(path).scores

    def theirs():
        raw = json.loads(Path(path).read_text("utf-8"))
        row, nodes = {}, raw["nodes"]
        for node in nodes:
            row.setdefault(node["node_id"], len(row))
        matrix, weights = torch.zeros(len(row), len(row)), torch.zeros(len(row))
        ends = torch.tensor([[row[link["target"]], row[link["source"]]] for link in raw["links"]])
        matrix.index_put_(tuple(ends.T), torch.tensor([link["weight"] for link in raw["links"]]), accumulate=True)
        first = {row[node["node_id"]]: node for node in reversed(nodes)}  # of several nodes of one id the first
        error, token = (
            torch.tensor([i for i, n in first.items() if word in n["feature_type"]]) for word in ("error", "embedding")
        )
        for i, node in first.items():
            weights[i] = node["token_prob"] if node["feature_type"] == "logit" else 0
        normalized = normalize_matrix(matrix)
        total = compute_influence(normalized, weights)
        output, fraction = total + weights, 1 - normalized[:, error].sum(1)
        tokens, errors = total[token].sum(), total[error].sum()
        return float(tokens / (tokens + errors)), float((fraction * output).sum() / output.sum())

    if who == "circuit-tracer":
        import torch
        from circuit_tracer.graph import compute_influence, normalize_matrix
    run, seconds = (theirs if who == "circuit-tracer" else ours), []
    before = peak_memory()
    for _ in range(5):
        start = time.perf_counter()
        scores = run()
        seconds.append(time.perf_counter() - start)
    return {"scores": list(scores), "seconds": statistics.median(seconds), "before": before, "peak": peak_memory()}


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def compare_reading(paths):
    for path in paths:
        for who in ("mi-workshop", "circuit-tracer"):
            done = subprocess.run(
                [sys.executable, __file__, who, str(path)], check=True, capture_output=True, text=True
            )
            found = json.loads(done.stdout)
            print(
                f"{path.stem}: read and scored by {who} in {1000 * found['seconds']:.0f} ms, peak {found['peak']:.0f} MB "
                f"({found['before']:.0f} of them for the imports); scores {found['scores'][0]:.4f} and {found['scores'][1]:.4f}"
            )


def main():
    paths = list(real_files())
    compare_reading(paths)  # first: a process starts with the peak memory of the one that started it
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from conftest import ARGUMENTS, CHROMIUM

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, graph in graphs(paths):
            saved = graph.show(threshold=1.0).save(Path(folder) / f"{name}.html")
            paint, pan, slow, svg_paint, svg_pan = view(browser, saved)
            print(
                f"{name}: {len(graph.nodes):,} nodes, {len(graph.links):,} links; first paint {paint:.0f} ms, pan step {pan:.1f} ms "
                f"(90 %: {slow:.1f}); as SVG {svg_paint:.0f} ms and {svg_pan:.0f} ms",
                flush=True,
            )
            if name == "atlas":
                atlas = graph
        browser.close()
    for kind, to in (("zero", ""), ("swap", "California")):
        answered, done = act(atlas, kind, to)
        print(f"atlas, {kind} the supernode Texas: new answers after {answered:.2f} s, all controls after {done:.2f} s")


if __name__ == "__main__":
    print(json.dumps(read_and_score(*sys.argv[1:]))) if len(sys.argv) == 3 else main()
