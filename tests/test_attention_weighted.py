"""Attention of every model, weighted and rolled out: a number with the right name and the wrong formula teaches something false."""

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets
from transformer_lens import HookedTransformer

import mi_workshop as mi
from mi_workshop.attention import brush, compare_with_key, gradient_weighted, norm_weighted, patterns, rollout
from mi_workshop.models.attention_rnn import AttentionRNN, PassageModel
from mi_workshop.saliency import SaliencyError, attribute
from mi_workshop.widgets.attention_brush import distance
from mi_workshop.worlds import Reviews, Rooms, Scenes

SCENE = Scenes().sample(1, "validation")[0]
QUERY = SCENE.caption
STORY = "Sandra went to the garden. John moved to the office. Where is Sandra?"
PROMPT = "Fact: the capital of the state containing Dallas is"
IDS = torch.tensor([3, 7, 1, 9])
EVERY = (patterns, norm_weighted, gradient_weighted, rollout)


@pytest.fixture(scope="module")
def rooms():
    torch.manual_seed(0)
    return PassageModel(AttentionRNN(len(Rooms.vocabulary), 6, width=8).eval(), Rooms())


@pytest.fixture(scope="module")
def tiny():
    """Two layers of two heads with random weights, one head silent."""
    settings = {"n_layers": 2, "d_model": 8, "n_ctx": 8, "d_head": 4, "n_heads": 2, "d_vocab": 12, "d_mlp": 16, "act_fn": "relu"}  # fmt: skip
    model = HookedTransformer(settings | {"seed": 3, "device": "cpu", "normalization_type": "LN"})
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_O.normal_()
            block.attn.b_V.normal_()
            block.attn.b_O.normal_()
        model.blocks[1].attn.W_O[0] = 0
    return model


# ------------------------------------------------------------------ every model
def test_every_model_has_its_patterns(clip, rooms, atlas):
    """By hand: from the weights of the layer norm, queries and keys, not by the hook that the package reads."""
    found = patterns(clip, SCENE, QUERY)
    assert found.pattern.shape == (3, 4, 65, 65) and found.tokens[:3] == ["<class>", "x 0, y 0", "x 8, y 0"]
    assert found.tokens[-1] == "x 56, y 56"
    words = patterns(clip, QUERY, SCENE)
    assert words.tokens == QUERY.split()
    text = clip.module
    x = text.words(clip.tokens(QUERY)) + text.word_position[: len(words.tokens)]
    attn = text.textual[0].attn
    q, k, _ = attn.qkv(text.textual[0].ln1(x))[0].chunk(3, -1)
    split = [t.unflatten(-1, (4, -1)).transpose(0, 1) for t in (q, k)]
    by_hand = (split[0] @ split[1].mT / split[0].shape[-1] ** 0.5).softmax(-1)
    np.testing.assert_allclose(words.pattern[0], by_hand.detach(), atol=1e-6)

    story = patterns(rooms, STORY)
    assert story.pattern.shape == (1, 1, 1, 12) and story.head(0, 0).index.tolist() == ["answer"]
    np.testing.assert_allclose(story.pattern[0, 0, 0], rooms.weights([rooms.world.parse(STORY)])[0], atol=1e-6)
    for one in (found, words, story, patterns(atlas, PROMPT)):
        np.testing.assert_allclose(one.pattern.sum(-1), 1, atol=1e-5)


def test_a_guided_model_shows_the_weights_that_it_is_given(rooms):
    """Frozen weights are those that the prediction is made with: the debate's pictures would show others."""
    guided = PassageModel(rooms.module, rooms.world, lambda passages: torch.tensor([[0.0] * 11 + [1.0]]))
    assert patterns(guided, STORY).pattern.ravel().tolist() == [0.0] * 11 + [1.0]


def test_what_has_no_attention_says_so(rooms):
    cnn = mi.load("scenes-cnn")
    for f in EVERY:
        with pytest.raises(SaliencyError, match="attention"):
            f(cnn, SCENE, "circle")
    with pytest.raises(SaliencyError, match="self-attention layers, and Rooms has none"):
        rollout(rooms, STORY)
    with pytest.raises(SaliencyError, match="no layers 'first': choose 'last' or 'all'"):
        attribute(rooms, STORY, None, "attention", layers="first")


# --------------------------------------------------------------------- weighted
def test_value_norm_by_hand(tiny, clip, rooms):
    """Kobayashi's length, from the values and the output matrix of each kind of model."""
    _, cache = tiny.run_with_cache(IDS)
    found = norm_weighted(tiny, IDS).pattern
    for layer, block in enumerate(tiny.blocks):
        written = torch.einsum("khd,hdm->hkm", cache["v", layer][0], block.attn.W_O)
        expected = cache["pattern", layer][0] * written.norm(dim=-1)[:, None]
        np.testing.assert_allclose(found[layer], expected.detach(), atol=1e-4)

    kept = []
    attn = clip.module.visual[1].attn
    handle = attn.qkv.register_forward_hook(lambda m, a, out: kept.append(out[0].detach()))
    seen = norm_weighted(clip, SCENE, QUERY)
    handle.remove()
    value = kept[0].chunk(3, -1)[2].unflatten(-1, (4, -1))  # [key, head, d_head]
    written = torch.einsum("khd,mhd->hkm", value, attn.out.weight.unflatten(-1, (4, -1)))
    expected = patterns(clip, SCENE, QUERY).pattern[1] * written.norm(dim=-1)[:, None].detach().numpy()
    np.testing.assert_allclose(seen.pattern[1], expected, atol=1e-4)

    passage = rooms.world.parse(STORY)
    lengths = rooms.module.encode(rooms.tokens([passage])[0])[0].norm(dim=-1).detach()
    np.testing.assert_allclose(norm_weighted(rooms, STORY).pattern.ravel(), rooms.weights([passage])[0] * lengths, atol=1e-5)  # fmt: skip


def test_silent_heads_get_nothing(tiny, atlas):
    """The lesson of norm weighting: a head that writes nothing attends to nothing that counts."""
    found = norm_weighted(tiny, IDS)
    assert found.silent.tolist() == [[False, False], [True, False]]
    assert not found.pattern[1, 0].any() and found.pattern[1, 1].any()
    found = norm_weighted(atlas, PROMPT)
    assert not found.pattern[:2].any() and found.pattern[2:].max() == found.top > 1
    assert not gradient_weighted(atlas, PROMPT).pattern[:2].any()


def test_gradient_weighting_by_differences(tiny):
    """Each weight changed a little by hand: what the logit gains, times the weight, where positive."""
    target, step = 5, 1e-2
    found = gradient_weighted(tiny, IDS, target).pattern[1]
    _, cache = tiny.run_with_cache(IDS)
    for head, q, k in [(1, 3, 0), (1, 3, 2), (1, 3, 3), (0, 3, 1), (1, 2, 1)]:

        def change(pattern, hook, head=head, q=q, k=k, by=0.0):
            pattern = pattern.clone()
            pattern[:, head, q, k] += by
            return pattern

        ends = [
            float(tiny.run_with_hooks(IDS[None], fwd_hooks=[("blocks.1.attn.hook_pattern", lambda p, hook, by=by: change(p, hook, by=by))])[0, -1, target].detach())
            for by in (step, -step)
        ]  # fmt: skip
        expected = max(0.0, (ends[0] - ends[1]) / (2 * step) * float(cache["pattern", 1][0, head, q, k]))
        assert found[head, q, k] == pytest.approx(expected, rel=0.02, abs=2e-4)


def test_rollout_by_hand(tiny, clip):
    """Rows sum to 1, one layer is its mean pattern mixed with the identity, later layers stand to the left of earlier ones."""
    raw, found = patterns(tiny, IDS).pattern, rollout(tiny, IDS)
    mixed = [0.5 * layer.mean(0) + 0.5 * np.eye(4) for layer in raw]
    np.testing.assert_allclose(found.pattern[0, 0], mixed[0], atol=1e-6)
    np.testing.assert_allclose(found.pattern[1, 0], mixed[1] @ mixed[0], atol=1e-6)
    for rolled in (found, rollout(clip, SCENE, QUERY)):
        np.testing.assert_allclose(rolled.pattern.sum(-1), 1, atol=1e-5)
    assert not found.silent.any() and np.allclose(np.triu(found.pattern[1, 0], 1), 0)


def test_scores_are_read_off_the_same_numbers(tiny, clip, rooms, atlas):
    """What is scored against the keys is what the pictures show."""
    shown = {
        "attention": patterns, "attention_norm": norm_weighted, "attention_gradient": gradient_weighted, "rollout": rollout,
    }  # fmt: skip
    for method, f in shown.items():
        last = f(atlas, PROMPT, "Austin").pattern[-1].mean(0)[-1]
        np.testing.assert_allclose(attribute(atlas, PROMPT, "Austin", method).scores, last, atol=1e-6)
        words = f(clip, QUERY, SCENE).pattern[-1].mean(0).mean(0)
        np.testing.assert_allclose(attribute(clip, QUERY, SCENE, method).scores, words, atol=1e-6)
        seen = attribute(clip, SCENE, QUERY, method).scores
        assert seen.shape == (64, 64) and (seen >= 0).all() and seen.max() > 0
        if method != "rollout":
            np.testing.assert_allclose(attribute(rooms, STORY, None, method).scores, f(rooms, STORY).pattern.ravel(), atol=1e-6)  # fmt: skip
    every = patterns(atlas, PROMPT).pattern.mean((0, 1))[-1]
    np.testing.assert_allclose(attribute(atlas, PROMPT, None, "attention", layers="all").scores, every, atol=1e-6)


def test_nothing_is_left_behind(tiny, rooms):
    """A hook that stays would change the next result."""
    for model, module, given in ((tiny, tiny, IDS), (rooms, rooms.module, STORY)):
        before = [len(m._forward_hooks) for m in module.modules()]
        for f in EVERY[:3]:
            f(model, given)
        assert [len(m._forward_hooks) for m in module.modules()] == before
        assert all(p.grad is None for p in module.parameters())


# ---------------------------------------------------------- against the answer key
def test_comparison_with_the_keys(rooms, clip):
    """The table would look the same if it scored something else: one row again, by hand, and chance near what it must be."""
    stories = [(s, None) for s in Rooms().sample(6, "test")]
    table = compare_with_key(rooms, stories)
    assert table.index.tolist() == ["raw, last layer", "× value norm", "× gradient", "chance"]
    from mi_workshop.saliency import scores

    by_hand = pd.DataFrame([scores(rooms, s, None, "attention_norm") for s, _ in stories]).mean()
    pd.testing.assert_series_equal(table.loc["× value norm"], by_hand[table.columns], check_names=False)
    assert abs(table.auc["chance"] - 0.5) < 0.2 and table.notna().all(axis=None)
    assert "rollout" in compare_with_key(clip, [(SCENE, QUERY)]).index


# ------------------------------------------------------------------------ showing
@pytest.mark.parametrize("f", EVERY)
def test_everything_shows_itself(f, tiny, tmp_path):
    found = f(tiny, IDS)
    for mode in ("pattern", "lines"):
        view = found.show(mode=mode)
        data, metadata = view._repr_mimebundle_()
        assert data["text/plain"] == found.describe() == metadata["image/png"]["alt"]
        sent = np.frombuffer(view.pattern, "<u2").reshape(view.shape) / 65535 * view.top
        np.testing.assert_allclose(sent, found.pattern, atol=found.top / 60_000)
    assert (found.top == 1) == (found.kind in ("attention", "rollout")) and bool(view.unit) == (found.top != 1)
    assert found.kind in found.describe().lower()


def test_one_query_is_shown_as_lines(rooms, tiny):
    view = patterns(rooms, STORY).show()
    assert view.mode == "lines" and view.queries == ["answer"] and view.query == 0
    with pytest.raises(traitlets.TraitError, match="shown as lines"):
        view.mode = "pattern"
    assert view.figure().axes
    with pytest.raises(traitlets.TraitError, match="no head 2: choose 0 to 1"):
        patterns(tiny, IDS).show(also=[2])


# ---------------------------------------------------------------------- the brush
def test_the_brush_asks_the_model(rooms):
    """What it shows must be what the model says with these weights, or its lesson is made up."""
    passage = rooms.world.parse(STORY)
    view = brush(rooms, STORY)
    assert "moved by 0.00, the prediction by 0.00" in view.answer["text"]
    view.weights = [0] * 4 + [2] + [0] * 6 + [2]
    assert view.weights[4] == view.weights[11] == 0.5
    said = rooms.predict([passage], torch.tensor([view.weights]))[0][0]
    shown = {row["token"]: row["prob"] for row in view.answer["after"]}
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    np.testing.assert_allclose([shown[c] for c in Rooms.classes], said, atol=1e-6)
    own = rooms.predict([passage])[0][0]
    assert (
        f"by {distance(view.own, view.weights):.2f}, the prediction by {distance(own, said):.2f}" in view.answer["text"]
    )
    for wrong in ([1.0], [-1.0] + [1.0] * 11, [0.0] * 12, [float("nan")] * 12):
        with pytest.raises(traitlets.TraitError, match="Give 12 weights"):
            view.weights = wrong
    with pytest.raises(ValueError, match="does not know the word 'moon'"):
        brush(rooms, "Sandra went to the moon. Where is Sandra?")


def test_what_goes_wrong_in_the_brush_is_a_sentence(rooms, monkeypatch):
    view = brush(rooms, STORY)
    monkeypatch.setattr(PassageModel, "predict", lambda *a: 1 / 0)
    view.weights = [1] * 12
    assert view.answer["error"] == "division by zero" and "division by zero" in view.describe()
    assert view.figure().axes


def test_the_brush_is_stored_as_a_picture(tmp_path):
    torch.manual_seed(0)
    reviews = PassageModel(AttentionRNN(len(Reviews.vocabulary), 2, width=8).eval(), Reviews())
    view = brush(reviews, Reviews().sample(1, "test")[0])
    data, metadata = view._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == view.describe() and "prediction by" in view.describe()
    text = view.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and len(view._esm) + len(view._css) < 50_000 and "innerHTML" not in view._esm
