"""Walk through the widgets of every notebook with the keyboard alone, in a real JupyterLab, and write down what was met.

Not a test (nothing collects it): ``python -m pytest -q tests/browser/walk_keyboard.py`` runs every solution notebook, which takes some
ten minutes, and writes the table of docs/accessibility.md. At each stop of Tab: the accessible name as Chromium computes it, whether the pixels
around it differ from those without focus, what a key changes, what a live region or the control itself then says, and whether Tab leaves again.
"""

import io
import json
import re

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_lab import BUILT, RUN_ALL

DOC = ROOT / "docs" / "accessibility.md"
MOST = 200  # presses of Tab in one output
KEYS = {
    "slider": ["ArrowRight", "ArrowLeft"], "combobox": ["ArrowDown", "ArrowUp"], "spinbutton": ["ArrowUp", "ArrowDown"], "radio": ["ArrowRight", "ArrowUp"],
    "grid": ["ArrowRight", "Enter"], "checkbox": ["Space"], "textbox": ["a", "Enter"], "searchbox": ["a"], "group": ["ArrowRight"], "application": ["ArrowRight"],
}  # fmt: skip
OUTPUTS = """() => [...document.querySelectorAll('.jp-CodeCell')].flatMap((cell, i) => {
    const root = cell.querySelector('.jp-Cell-outputArea'), find = (css) => root.querySelector(css);
    const kind = !root ? '' : find('.mi-heat') ? 'heat map' : find('.mi-attention') ? 'heads' : find('.mi-brush') ? 'brush' : find('.mi-graph') ? 'graph'
        : find('.mi-clock') ? 'clock' : find('.mi-audience') ? "audience's box" : find('.widget-vbox') ? 'controls' : find('.js-plotly-plot') ? 'plotly figure'
        : find('.xr-wrap') ? "xarray's table" : find('a[href], button, input, select, [tabindex="0"]:not(.jp-OutputArea-output):not(.jp-OutputArea-child)') ? 'other' : '';
    return kind ? [[i, kind]] : [];
})"""
BEGIN = """i => { const cell = document.querySelectorAll('.jp-CodeCell')[i]; window.walked = cell.querySelector('.jp-Cell-outputArea');
    cell.scrollIntoView(); jupyterapp.shell.currentWidget.content.activeCellIndex = [...document.querySelectorAll('.jp-Cell')].indexOf(cell);
    jupyterapp.shell.currentWidget.content.mode = 'command'; cell.focus(); }"""
WHERE = """() => { const at = document.activeElement, box = at.getBoundingClientRect();
    return { inside: walked.contains(at) && at !== walked, box: [box.x, box.y, box.width, box.height], html: at.outerHTML.slice(0, 90), type: at.type ?? '', edits: at.matches('input:not([type=range],[type=checkbox],[type=number])') } }"""
STATE = """() => { const of = (css) => [...walked.querySelectorAll(css)], at = document.activeElement;
    return { all: walked.innerHTML + of('input, select').map((e) => e.value + e.checked).join('|') + at.ariaValueNow,
        live: of('[role=status], [role=alert], [aria-live]').map((e) => e.textContent).join('|'), dialog: Boolean(document.querySelector('dialog[open]')),
        own: [at.value, at.checked, at.textContent, at.outerHTML.match(/aria-[a-z]+="[^"]*"/g)].join('|'), lost: at === document.body || !walked.contains(at) } }"""
IDLE = "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
COUNTS = ("stops", "nameless", "ringless", "changed", "live", "own", "silent", "lost")
HEAD = "| notebook | widget | outputs | stops | no name | no visible focus | changed by keys | said by a live region | said by the control | said by neither | focus lost | left by Tab |"


@pytest.mark.parametrize("path", [path for path in BUILT if path.startswith("solutions/")])
def test_walk(lab, path, artifacts):
    rows, file = [], artifacts / "walk.json"
    with lab.notebook(path) as page, open(artifacts / "walk.txt", "a", encoding="utf-8") as log:
        page.on("filechooser", lambda chooser: None)
        page.evaluate(RUN_ALL)
        devtools = page.context.new_cdp_session(page)
        for cell, kind in page.evaluate(OUTPUTS):
            row, pressed = dict.fromkeys(COUNTS, 0) | {"kind": kind}, set()
            page.evaluate(BEGIN, cell)
            for press in range(MOST):
                page.keyboard.press("Tab")
                if page.evaluate(WHERE)["inside"]:
                    walk_stop(page, devtools, row, pressed, log)
                elif row["stops"] or press > 8:
                    break
            rows.append(row | {"left": not page.evaluate(WHERE)["inside"]})
            print({"notebook": path, "cell": cell} | rows[-1], file=log, flush=True)
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | {path[10:-6]: rows}))
    write_table(json.loads(file.read_text()))


def write_table(walked):
    """One line for each notebook and kind of output; of several walks the last one counts."""
    lines = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
    for name, rows in sorted(walked.items()):
        for kind in dict.fromkeys(row["kind"] for row in rows):
            these = [row for row in rows if row["kind"] == kind]
            total = [name, kind, len(these), *(sum(row[count] for row in these) for count in COUNTS)]
            lines.append(f"| {' | '.join(map(str, total))} | {'yes' if all(row['left'] for row in these) else 'NO'} |")
        if not rows:
            lines.append(f"| {name} | none |" + " |" * 10)
    old = DOC.read_text(encoding="utf-8")
    DOC.write_text(
        re.sub(r"(?s)(?<=<!-- walk -->\n).*?(?=\n<!-- end -->)", lambda _: "\n".join(lines), old), encoding="utf-8"
    )


def walk_stop(page, devtools, row, pressed, log):
    """Look at the element that has the focus, press its keys, and count what comes of it; once each, since some keys lead back to the start."""
    at = page.evaluate(WHERE)
    this = devtools.send("Runtime.evaluate", {"expression": "document.activeElement"})["result"]["objectId"]
    node = devtools.send("Accessibility.getPartialAXTree", {"objectId": this, "fetchRelatives": False})["nodes"][0]
    role, name = (node.get(key, {}).get("value", "") for key in ("role", "name"))
    if (role, name) in pressed and name:
        return
    pressed.add((role, name))
    row["stops"] += 1
    row["nameless"] += not name.strip()
    ring = ringed(page, at["box"])
    row["ringless"] += not ring
    before, keys = page.evaluate(STATE), ["a", "Enter"] if at["edits"] else KEYS.get(role, ["Enter"])
    for key in keys:
        page.keyboard.press(key)
        for wait in range(200):
            page.wait_for_timeout(50)  # ms
            if page.evaluate(IDLE) and (wait > 8 or page.evaluate(STATE)["all"] != before["all"]):
                break
        after = page.evaluate(STATE)
        if after["all"] != before["all"] and not at["edits"]:
            break
    page.wait_for_timeout(150)  # ms
    after = page.evaluate(STATE)
    changed, live, own = (after[k] != before[k] for k in ("all", "live", "own"))
    row["changed"] += changed
    row["live"] += live
    row["own"] += own and not live
    row["silent"] += changed and not live and not own and not after["dialog"]
    row["lost"] += after["lost"] and not after["dialog"]
    if after["dialog"]:
        page.keyboard.press("Escape")
    print(
        f"  {row['kind']}: {role} {name[:40]!r} ring {ring} changed {changed} live {live} own {own} lost {after['lost']} {at['html']}",
        file=log,
    )


def ringed(page, box):
    """Do at least 20 pixels in and around the box change by a quarter of the range when the focus goes?"""
    x, y, wide, high = box
    x, y = max(x - 8, 0), max(y - 8, 0)
    clip = {"x": x, "y": y, "width": min(wide + 16, 1200 - x), "height": min(high + 16, 900 - y)}
    if clip["width"] < 2 or clip["height"] < 2:
        return False
    shots = []
    for script in ("null", "(window.had = document.activeElement).blur()"):
        page.evaluate(script)
        shots.append(np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"), float))
    page.evaluate("had.focus()")
    return bool((np.abs(shots[0] - shots[1]).max(-1) > 64).sum() >= 20)
