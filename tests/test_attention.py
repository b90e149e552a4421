"""Attention patterns, head scores and the head browser, without a browser."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets
from transformer_lens import HookedTransformer

import mi_workshop as mi
from mi_workshop import attention
from mi_workshop.attention import head_scores, patterns, score_patterns, second_mentions
from mi_workshop.saliency import SaliencyError
from mi_workshop.widgets.attention_view import bundle

PROMPT = "Mr Dursley met Mrs Potter. Mr"
HALF = 6


@pytest.fixture(scope="module")
def found(atlas):
    return patterns(atlas, PROMPT)


@pytest.fixture(scope="module")
def scores(atlas):
    return head_scores(atlas)


@pytest.fixture(scope="module")
def small():
    """Somebody else's model: no world, no tokenizer, random weights."""
    settings = {"n_layers": 2, "d_model": 16, "n_ctx": 32, "d_head": 8, "n_heads": 2, "d_vocab": 50, "attn_only": True}
    return HookedTransformer(settings | {"seed": 0, "device": "cpu"})


def looks(key_of, n=2 * HALF + 1):
    """A pattern [row, head, query, key] that puts all weight of each query on one key."""
    pattern = torch.zeros(1, 1, n, n)
    for q in range(n):
        pattern[0, 0, q, key_of(q)] = 1
    return pattern


@pytest.mark.parametrize(
    ("name", "key_of"),
    [
        ("previous_token", lambda q: max(q - 1, 0)),
        ("first_token", lambda q: 0),
        ("current_token", lambda q: q),
        ("induction", lambda q: q - HALF + 1 if q > HALF else 0),
    ],
)
def test_a_head_that_does_one_thing_scores_one(name, key_of):
    """An index off by one would call previous-token heads induction heads, in a table that nobody can check by eye."""
    got = {k: float(v[0]) for k, v in score_patterns(looks(key_of), HALF).items()}
    assert got[name] == pytest.approx(1)
    assert got["entropy"] == 0
    assert all(got[other] < 0.6 for other in ("previous_token", "current_token", "induction") if other != name)


def test_the_second_mention_leads_to_the_first_name():
    words = ["Mr", "Dursley", "met", "Mrs", "Potter", ".", "Dr", "Pip", "saw", "Mr", "Dursley", ".", "Mrs"]
    text = ["<bos>", *words]
    assert [(text[q], text[k]) for q, k in second_mentions(words)] == [("Mr", "Dursley"), ("Mrs", "Potter")]
    assert second_mentions(words[:6]) == []


def test_patterns_are_the_models_own(atlas, found):
    _, cache = atlas.replacement.run_with_cache(atlas.tokens(PROMPT))
    for layer in range(4):
        np.testing.assert_array_equal(found.pattern[layer], cache["pattern", layer][0].numpy())
    assert found.tokens == ["<bos>", "Mr", "Dursley", "met", "Mrs", "Potter", ".", "Mr"]
    again = patterns(atlas.replacement, atlas.tokens(PROMPT))
    np.testing.assert_array_equal(again.pattern, found.pattern)
    assert again.tokens == found.tokens
    with pytest.raises(SaliencyError, match="does not know"):
        patterns(atlas, "Mr Voldemort met")


def test_silent_heads_are_those_that_change_nothing(atlas, found):
    """Layers 0 and 1 of atlas attend but write nothing: whoever reads their patterns as a mechanism is misled."""
    silent = [[layer < 2] * 4 for layer in range(4)]
    assert found.silent.tolist() == silent and "0.0, 0.1" in found.describe()
    network, tokens = atlas.replacement, atlas.tokens(PROMPT)
    for layer in range(4):

        def mute(z, hook):
            return torch.zeros_like(z)

        with torch.no_grad():
            plain = network(tokens[None])
            muted = network.run_with_hooks(tokens[None], fwd_hooks=[(f"blocks.{layer}.attn.hook_z", mute)])
        assert torch.equal(plain, muted) == (layer < 2)


def test_one_head_as_a_table(found):
    table = found.head(3, 0)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    assert table.loc["Mr [7]"].idxmax() == "Dursley [2]"
    with pytest.raises(ValueError, match="no head 4.0"):
        found.head(4, 0)


def test_scores_of_atlas(atlas, scores):
    """The table names what the model can do: it finishes repeats and names, so some head looks back at what came after."""
    uniform = scores.attrs["uniform"]
    assert scores.index.names == ["layer", "head"] and len(scores) == 16
    assert scores.silent.groupby("layer").all().tolist() == [True, True, False, False]
    loud = scores[~scores.silent]
    assert loud.induction.max() > 5 * uniform["induction"] and loud.names.max() > 5 * uniform["names"]
    weights = scores.drop(columns=["silent", "entropy"])
    assert ((weights >= 0) & (weights <= 1)).all(axis=None)
    assert (scores.entropy <= uniform["entropy"] + 1e-4).all()
    pd.testing.assert_frame_equal(scores, head_scores(atlas))
    other = head_scores(atlas, seed=1).drop(columns=["silent", "entropy"])
    assert (other - weights).abs().max(axis=None) < 0.1, "the draw decides the table"


def test_any_transformer_lens_model(small, atlas):
    assert patterns(small, torch.tensor([0, 7, 9])).tokens == ["0", "7", "9"]
    settings = small.cfg.to_dict() | {"d_vocab": len(atlas.tokenizer), "d_vocab_out": len(atlas.tokenizer)}
    other = HookedTransformer(settings | {"tokenizer_prepends_bos": False})
    other.tokenizer = atlas.tokenizer
    assert patterns(other, PROMPT).tokens == ["<bos>", "Mr", "Dursley", "met", "Mrs", "Potter", ".", "Mr"]
    table = head_scores(small, rows=4, half=10)
    assert len(table) == 4 and "names" not in table and not table.silent.any()
    with pytest.raises(ValueError, match="passages of 2 to 15 tokens"):
        head_scores(small, half=16)


# --------------------------------------------------------------- the browser of heads
def test_the_browser_holds_the_patterns(found):
    view = found.show(layer=2, query=3)
    sent = np.frombuffer(view.pattern, "<u2").reshape(view.shape) / 65535
    np.testing.assert_allclose(sent, found.pattern, atol=1e-5)
    assert (view.layer, view.head, view.query) == (2, 0, 3) and view.silent == found.silent.tolist()
    with pytest.raises(traitlets.TraitError, match="no layer 9"):
        view.layer = 9
    with pytest.raises(TypeError, match="no trait 'colour'"):
        found.show(colour="red")


def test_stored_notebooks_stay_small(found, monkeypatch):
    """CircuitsVis's own output is 1.3 MB per figure, and asks the network first."""
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("the network was asked"))
    data, metadata = found._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert data["text/plain"] == found.describe() == metadata["image/png"]["alt"]
    assert len(json.dumps(data)) < 300_000
    view = found.show()
    assert len(view._esm) + len(view._css) < 50_000
    assert sum(len(value) for value in view.get_state().values() if isinstance(value, (bytes, str))) < 60_000


def test_the_kernel_sends_circuitsvis_when_asked(found, monkeypatch):
    view, sent = found.show(), []
    monkeypatch.setattr(view, "send", lambda *message: sent.append(message))
    view._send_bundle(view, {"ask": "something else"}, [])
    view._send_bundle(view, {"ask": "circuitsvis"}, [])
    ((content, (text,)),) = sent
    assert content == {"answer": "circuitsvis"} and b"globalThis.CircuitsVis" in text
    monkeypatch.setattr("mi_workshop.widgets.attention_view.bundle", Path("/nowhere/iife.js").read_text)
    view._send_bundle(view, {"ask": "circuitsvis"}, [])
    assert "cannot be loaded" in sent[-1][0]["error"]


def test_the_bundle_cannot_end_its_element():
    assert "</script" not in bundle().lower() and "<!--" not in bundle() and "sourceMappingURL" not in bundle()


def test_saved(found, tmp_path):
    assert found.save(tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in found.save(tmp_path / "x.svg").read_bytes()
    text = found.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and text.replace(bundle(), "").count("<script") == 2
    with pytest.raises(ValueError, match="html, .png or .svg"):
        found.save(tmp_path / "x.pdf")


def test_importing_draws_nothing():
    """The table of scores must not cost the start of widgets and figures."""
    assert not {"anywidget", "matplotlib"} & set(vars(attention)) and hasattr(mi, "load")
