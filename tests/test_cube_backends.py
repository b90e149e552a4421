"""Back ends of capture: all read the same numbers, leave nothing on the model, and say what they cannot see."""

import importlib

import numpy as np
import pytest
import torch
from cube_help import IDS, PROMPT, SHORT, VALUES, close, marks, refused

from mi_workshop.cube import BACKENDS, CubeError, capture, compare_backends


@pytest.mark.parametrize("backend", ["hooks", "nnsight"])
@pytest.mark.parametrize("error", [ValueError("no luck"), KeyboardInterrupt("no luck")])
def test_hooks_come_off_whatever_happens(parts, backend, error):
    """Else a failed or interrupted capture slows down, or changes, every later run of the model."""
    parts.fail = error
    before = marks(parts)
    with pytest.raises(CubeError if isinstance(error, ValueError) else KeyboardInterrupt, match="no luck"):
        capture(parts, VALUES, "first", backend=backend)
    assert marks(parts) == before
    parts.fail = None


def test_back_ends_agree(atlas, gpt2, cnn, parts, monkeypatch):
    """Else a number depends on the tool that read it; what a tool cannot see is said, not guessed."""
    monkeypatch.setattr(importlib.import_module("nnsight").CONFIG.APP, "PYMOUNT", False)  # as circuit-tracer leaves it
    for model, prompts, sites, names, unseen in (
        (atlas, [PROMPT, SHORT], ["resid_post", "pattern"], ("transformerlens", "nnsight"), "blocks.{}.attn"),
        (gpt2, [IDS, IDS[:3]], ["resid_post"], ("hidden_states", "nnsight"), "attn_out"),
        (cnn.module, torch.rand(2, 3, 64, 64), ["conv1", "fc"], ("nnsight", "fx"), None),
        (parts, VALUES, ["shared", "dic", "dic.line"], ("nnsight", "fx"), "silent"),
    ):  # fmt: skip
        before, hooked = marks(model), capture(model, prompts, sites).data
        for backend in [name for name in BACKENDS if name != "hooks"]:
            if backend not in names:
                refused(rf"'{backend}'|torch.fx cannot", model, prompts, sites=sites, backend=backend)
                continue
            cube = capture(model, prompts, sites, backend=backend)
            seen = {"layer": slice(-1)} if backend == "hidden_states" else {}
            for name in hooked.data_vars:
                close(cube.data[name].isel(seen), hooked[name].isel(seen))
            if backend == "hidden_states":
                assert np.isnan(cube["norm"][:, -1]).all() and list(cube.provenance["left_out"]) == ["transformer.h.2"]
            elif unseen and backend != "nnsight":
                refused(f"back end '{backend}'.*'hooks' sees", model, prompts, sites=unseen, backend=backend)
        assert marks(model) == before


def test_comparison_of_back_ends(gpt2, parts):
    """Else the table of what each back end costs and misses is wrong where it can be checked."""
    found = compare_backends(gpt2, torch.stack([IDS, IDS]), budget=0.1)
    table = found.table
    assert list(table.index) == list(BACKENDS) and "fx cannot read it" in found.words() and found.figure().axes
    assert list(table.index[table.milliseconds.notna()]) == ["hooks", "hidden_states", "nnsight"]
    assert table.sees.hooks == table.sees.nnsight == found.modules and table.sees.hidden_states == 2
    assert (table.difference.dropna() == 0).all() and table.bytes.hooks < table.bytes.hidden_states
    assert "final norm" in table.misses.hidden_states and "cannot trace" in table.misses.fx
    overwritten = compare_backends(parts, VALUES, "first", budget=0.1).table
    assert overwritten.difference.nnsight > 0 and overwritten.difference.fx == 0
