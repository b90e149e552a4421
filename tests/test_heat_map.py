"""The heat map without a browser: its traits, what a click answers, errors, files and the stored fallback."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import traitlets

from mi_workshop.widgets.heat_map import HeatMap

ROWS, COLUMNS = ["layer 0", "layer 1"], ["<bos>", "Dallas", "is"]
VALUES = np.array([[0.1, 0.9, np.nan], [0.0, 0.3, 0.2]])


def asked(answer):
    return HeatMap(VALUES, ROWS, COLUMNS, on_click=answer)


def test_a_click_is_answered():
    calls = []
    view = asked(lambda row, column: calls.append((row, column)) or f"{ROWS[row]} at {COLUMNS[column]}")
    view.selected = [1, 2]
    assert calls == [(1, 2)] and view.answer["text"] == "layer 1 at is" and view.answer["cell"] == [1, 2]
    view.selected = []
    assert view.answer == {}


def test_answers_before_and_after_with_controls():
    parts = {
        "text": "swapped", "before": [{"token": "Austin", "prob": 0.9}], "after": [{"token": "Salem", "prob": 0.8}],
        "controls": [{"name": "random", "token": "Austin", "prob": 0.85}],
    }  # fmt: skip
    view = asked(lambda *cell: parts | {"unknown": object()})
    view.selected = [0, 0]
    assert view.answer == parts | {"cell": [0, 0], "error": ""}


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError("No such layer."), "No such layer."), (KeyError(), "KeyError")]
)
def test_what_a_callback_raises_is_said(error, said):
    """A kernel swallows the errors of callbacks: the click would seem to do nothing."""

    def fail(row, column):
        raise error

    view = asked(fail)
    view.selected = [0, 1]
    assert said in view.answer["error"] and view.answer["text"] == ""


def test_python_moves_the_choice_but_not_out_of_the_map():
    view = HeatMap(VALUES, ROWS, COLUMNS, diverging=True)
    view.selected = [1, 1]
    for bad in ([2, 0], [0, 3], [-1, 0], [0]):
        with pytest.raises(traitlets.TraitError, match="no cell"):
            view.selected = bad
    assert view.selected == [1, 1] and view.answer == {}


def test_the_scale():
    """A scale that leaves out values, or a diverging one whose white is not 0, misleads."""
    plain, wide = HeatMap(VALUES, ROWS, COLUMNS), HeatMap(VALUES, ROWS, COLUMNS, low=0, high=2)
    assert (plain.low, plain.high, wide.low, wide.high) == (0.0, 0.9, 0.0, 2.0)
    both = HeatMap(VALUES - 0.5, ROWS, COLUMNS, diverging=True)
    assert both.low == -both.high == pytest.approx(-0.5) and both.scale != plain.scale
    for empty in (np.full((2, 3), np.nan), np.zeros((2, 3)), np.full((2, 3), np.inf)):
        for diverging in (False, True):
            view = HeatMap(empty, ROWS, COLUMNS, diverging=diverging)
            assert view.low < view.high and view.figure() is not None and view.describe()
    with pytest.raises(ValueError, match="low must be less"):
        HeatMap(VALUES, ROWS, COLUMNS, low=1, high=0)


def test_what_is_not_computed_is_counted_and_can_follow():
    """A sweep that was interrupted must not look like one that found nothing."""
    view = HeatMap(VALUES, ROWS, COLUMNS, title="Patching")
    assert view.cells[0][2] is None and "5 of 6 cells computed" in view.describe()
    assert "highest 0.9 at layer 0, Dallas" in view.describe()
    json.dumps(view.cells, allow_nan=False)
    view.update(np.arange(6).reshape(2, 3))
    assert view.cells[0][2] == 2 and view.high == 5 and "6 of 6" in view.describe()
    with pytest.raises(ValueError, match="shape"):
        view.update([[1]])


def test_names_must_fit():
    with pytest.raises(ValueError, match="2 × 3 need as many names"):
        HeatMap(VALUES, ROWS, ["one"])
    with pytest.raises(ValueError, match="as many names"):
        HeatMap(VALUES[0], ROWS, COLUMNS)
    table = HeatMap(pd.DataFrame(VALUES, [0, 1], COLUMNS))
    assert table.rows == ["0", "1"] and table.columns == COLUMNS


def test_stored_notebooks_keep_a_picture_and_a_sentence(monkeypatch):
    view = HeatMap(VALUES, ROWS, COLUMNS)
    data, metadata = view._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert data["text/plain"] == view.describe() == metadata["image/png"]["alt"]
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    view._ipython_display_()
    assert shown[0][0][0].keys() == data.keys() and shown[0][1]["raw"] is True


def test_code_travels_with_every_map_and_stays_small():
    view = HeatMap(VALUES, ROWS, COLUMNS)
    assert len(view._esm) + len(view._css) < 50_000
    assert "innerHTML" not in view._esm and not re.search(r"https?://(?!www\.w3\.org/2000/svg)", view._esm + view._css)
    assert not re.search(r"^import ", view._esm, re.M), "a widget is one module: it can import nothing beside it"


@pytest.mark.parametrize("suffix", ["html", "svg", "png"])
def test_saved_files_hold_no_markup_of_strangers(tmp_path, suffix):
    evil = '</script><script>alert("x")</script>&$\\alpha$'
    view = HeatMap(VALUES, [evil] * 2, [evil] * 3, title=evil, unit=evil, on_click=lambda *cell: evil)
    view.selected = [0, 0]
    path = view.save(tmp_path / f"x.{suffix}")
    if suffix == "png":
        assert path.read_bytes()[:4] == b"\x89PNG"
    elif suffix == "svg":
        ElementTree.fromstring(path.read_text(encoding="utf-8"))
    else:
        text = path.read_text(encoding="utf-8")
        assert re.findall("<script[^>]*>", text.lower()) == [
            '<script type="application/json" id="mi-graph-state">', '<script type="module">',
        ]  # fmt: skip
        assert "default-src 'none'" in text


def test_large_maps_draw(tmp_path):
    values = np.random.default_rng(0).normal(size=(26, 120))
    view = HeatMap(values, [f"layer {i}" for i in range(26)], [f"token{i}" for i in range(120)], diverging=True)
    assert 1000 < view.save(tmp_path / "x.png").stat().st_size < 1_000_000
