"""Feature pages: what they show must be what the model does, and what they claim about a label must be countable."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import mi_workshop as mi
from mi_workshop.circuits.corpus import FeatureError, text_activations, training_text
from mi_workshop.circuits.feature_html import GROUPS
from mi_workshop.circuits.feature_page import detail_html
from mi_workshop.circuits.intervene import feature_activations

EVIL = "<script>alert(\"x\")</script><b onmouseover='x'>&amp;$\\alpha$"


def first(model, kind, skip=0):
    """A feature with this kind of label, the most active one."""
    chosen = model.features[model.features.label_kind == kind].sort_values("density", ascending=False)
    return chosen.index[skip]


@pytest.fixture(scope="module")
def page(atlas):
    texas = atlas.features[atlas.features.label == "Texas"].sort_values("density")
    return mi.feature(atlas, *texas.index[-1])


def some_sentences(model, count=12):
    text = training_text(model)
    for i in np.random.default_rng(5).choice(len(text.words), count, replace=False):
        tokens = torch.tensor([[model.tokenizer.bos_token_id, *map(model.token_id, text.words[i])]])
        yield tokens, slice(text.start[i], text.start[i] + len(text.words[i]))


@pytest.mark.parametrize("transcoders", ["plt", "clt"])
def test_activations_are_those_of_the_model(request, transcoders):
    """A page from other activations than the graph's would explain another feature."""
    model = request.getfixturevalue("atlas" if transcoders == "plt" else "atlas_clt")
    acts = text_activations(model)
    for tokens, rows in some_sentences(model):
        want = feature_activations(model, tokens)[0, :, 1:].permute(1, 0, 2).flatten(1)
        np.testing.assert_allclose(acts[rows.start : rows.stop].toarray(), want, atol=1e-5)


def test_neurons_are_the_hook_of_the_model(atlas):
    acts, name = text_activations(atlas, "neuron"), "blocks.2.mlp.old_mlp.hook_post"
    width = atlas.replacement.cfg.d_mlp
    for tokens, rows in some_sentences(atlas):
        _, cache = atlas.replacement.run_with_cache(tokens, names_filter=name)
        ours = acts[rows.start : rows.stop, 2 * width : 3 * width].toarray()
        np.testing.assert_allclose(ours, cache[name][0, 1:].detach(), atol=1e-5)
    neuron = mi.feature(atlas, 2, 17, kind="neuron")
    assert neuron.density == pytest.approx(float((acts[:, [2 * width + 17]].toarray() > 0).mean()))
    effect = atlas.replacement.blocks[2].mlp.old_mlp.W_out[17] @ atlas.replacement.unembed.W_U
    token, size = neuron.promotes[0]
    assert size == pytest.approx(float(effect[atlas.token_id(token)] - effect.mean()), abs=1e-5)


def test_only_the_training_text_is_read(atlas):
    """Held-out questions shown on a page would no longer be held out."""
    shown = {tuple(words) for words in training_text(atlas).words}
    held_out = [s for s in atlas.world.facts if s.stratum]
    assert not [s for s in held_out if tuple(atlas.world.words(s.prompt)) in shown]
    assert len(shown) > len(atlas.world.facts) - len(held_out)


def test_page_agrees_with_the_table(atlas):
    """The label beside a node in the graph and the page about it must speak of the same feature."""
    for kind in ("place", "answer", "token", "attribute", "tokens"):
        layer, index = first(atlas, kind)
        row, page = atlas.features.loc[(layer, index)], mi.feature(atlas, layer, index)
        assert (page.label, page.label_kind) == (row.label, kind)
        assert page.density == pytest.approx(row.density, rel=1e-4)
        assert [t for t, _ in page.promotes][:5] == row.promotes and [t for t, _ in page.suppresses][
            :5
        ] == row.suppresses


def test_examples_span_the_whole_range(page):
    """Strongest examples alone make any feature look pure."""
    assert max(page.examples[0].activations) == pytest.approx(page.maximum)
    groups = {}
    for e in page.examples:
        groups.setdefault(e.group, []).append(e)
    for b in page.bins.itertuples():
        chosen = groups.get(f"{b.low:.0%} to {b.high:.0%}", [])
        assert bool(chosen) == bool(b.tokens)
        for e in chosen:
            assert b.low * page.maximum <= e.activations[e.at] <= b.high * page.maximum + 1e-6
            assert e.activations[e.at] > 0
    assert len(groups) >= 6, "a place feature fires at more than one strength"
    for group in ("missed", "silent"):
        assert all(max(e.activations) == 0 for e in groups.get(group, []))
    assert all(e.holds for e in groups.get("missed", [])) and groups["silent"]


def claims(world, kind, label, tokens):
    """Where a label holds, word by word, from the world alone."""
    word = label.removeprefix("say ").strip("'")

    def holds(words, i, answer):
        if kind == "place":
            places = word.split(" / ")
            home = {**world.home, **{place: world.places[place] for place in places}}
            return any(w in home and home[w].name in places for w in words[: i + 1])
        if kind == "answer":
            return (*words, answer)[i + 1] == word
        if kind == "attribute":
            return word in words[: i + 1]
        return words[i] in (tokens[:1] if kind == "token" else tokens[:3])

    return holds


@pytest.mark.parametrize("kind", ["place", "answer", "token", "attribute", "tokens"])
def test_precision_and_recall_are_counts(atlas, kind):
    """A score that nobody could count again is an opinion."""
    layer, index = first(atlas, kind, skip=1)
    page, row = mi.feature(atlas, layer, index), atlas.features.loc[(layer, index)]
    holds = claims(atlas.world, kind, row.label, [t for t, _ in row.tokens])
    text, width = training_text(atlas), atlas.replacement.transcoders.d_transcoder
    acts = text_activations(atlas)[:, [layer * width + index]].toarray()[:, 0].tolist()
    seen = []  # (sentence, activation, does the label hold), one per token
    for n, (words, sentence) in enumerate(zip(text.words, text.sentences, strict=True)):
        seen += [(n, acts[text.start[n] + i], holds(words, i, sentence.answer)) for i in range(len(words))]
    assert page.chance == pytest.approx(sum(right for *_, right in seen) / len(seen))
    about = {n for n, _, right in seen if right}
    for b in page.bins.itertuples():
        above = [(n, right) for n, a, right in seen if a > 0 and a >= b.low * page.maximum]
        assert b.recall == pytest.approx(len({n for n, right in above if right}) / len(about))
        assert b.precision == pytest.approx(sum(right for _, right in above) / len(above))
    assert page.bins.tokens.sum() == page.histogram[0].sum() == sum(a > 0 for _, a, _ in seen)


def test_a_silent_feature_has_a_page(atlas, tmp_path):
    """A click on one must not end in a traceback."""
    page = mi.feature(atlas, *first(atlas, "silent"))
    assert page.maximum == 0 and page.density == 0 and not page.concept and not page.bins.tokens.any()
    assert "never fires" in page.html() and not re.search(r"\bnan\b", page.html() + page.describe())
    assert page.save(tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_only_features_that_never_fire_are_called_silent(atlas):
    """A feature that fires on so many tokens that none stands out is not silent."""
    features = atlas.features
    assert ((features.label_kind == "silent") == (features.density == 0)).all()
    page = mi.feature(atlas, *first(atlas, "many"))
    assert page.maximum > 0 and not page.concept and "✗" not in page.html()


def hostile(page):
    examples = [replace(e, words=[EVIL] * len(e.words), answer=EVIL) for e in page.examples]
    return replace(
        page, model=EVIL, label=EVIL, concept=EVIL, examples=examples, promotes=[(EVIL, 1.0)] * 8, suppresses=[(EVIL, -1.0)] * 8,
        neighbours=page.neighbours.assign(label=EVIL), selectivity={EVIL: {EVIL: [0.5, 3]}},
    )  # fmt: skip


def test_hostile_text_is_text(page, tmp_path):
    """A label or token that came as markup would run in the reader's notebook."""
    bad = hostile(page)
    for shown in (bad.html(), bad.html(compact=True), bad.save(tmp_path / "x.html").read_text(encoding="utf-8")):
        assert "alert(&quot;x&quot;)" in shown
        assert "<script" not in shown.lower() and "<b onmouseover" not in shown and "&amp;$" not in shown
    assert bad.save(tmp_path / "x.svg").exists()


def test_fragment_needs_nothing_that_a_notebook_strips(page):
    """An untrusted notebook drops style sheets, scripts, SVG and addresses: nothing of the page may hang on them."""
    shown = page.html()
    assert set(re.findall(r"<(\w+)", shown)) <= {"div", "span", "b", "table", "tr", "th", "td"}
    assert set(re.findall(r' ([\w-]+)="', re.sub(r'title="[^"]*"', 'title=""', shown))) <= {"style", "title"}
    assert not re.search(r"(?<![-\w])color:", shown), "text takes the theme's colour"
    data, metadata = page._repr_mimebundle_()
    assert set(data) == {"text/html", "image/png", "text/plain"} and metadata["image/png"]["alt"] == page.describe()
    assert len(shown) < 100_000


def test_short_form_is_the_page_of_that_feature(atlas, page):
    """The panel beside a graph."""
    shown = detail_html(atlas, page.layer, page.index)
    assert page.name in shown and page.promotes[0][0] in shown and html.escape(page.neighbours.label[0]) in shown
    assert len(shown) < len(page.html()) / 1.5 and shown.count("→") <= 9


def test_every_group_has_a_heading(page):
    ranges = {f"{b.low:.0%} to {b.high:.0%}" for b in page.bins.itertuples()}
    assert {e.group for e in page.examples} <= set(GROUPS) | ranges


def test_neighbours_are_the_nearest_that_fire(atlas, page):
    """A neighbour that never fires teaches nothing."""
    own = page.neighbours[page.neighbours.layer == page.layer]
    assert len(own) == len(page.neighbours) - len(own) == 4 and page.neighbours.cosine.between(-1, 1).all()
    t = atlas.replacement.transcoders[page.layer].W_dec
    cosine = torch.cosine_similarity(t, t[page.index], dim=1)
    silent = (atlas.features.label_kind == "silent").loc[page.layer]
    cosine[page.index] = -2
    cosine[silent[silent].index.tolist()] = -2
    assert own["index"].tolist() == cosine.topk(4).indices.tolist()


def test_bad_arguments_get_one_sentence(atlas, page, tmp_path):
    unknown = mi.Model("gemma", None, None, None, "plt", dict)
    for call, said in (
        (lambda: mi.feature(atlas, 9, 0), "no layer 9: choose 0 to 3"),
        (lambda: mi.feature(atlas, -1, 0), "no layer -1"),
        (lambda: mi.feature(atlas, 0, 512), "no feature 512: choose 0 to 511"),
        (lambda: mi.feature(atlas, 0, 300, kind="neuron"), "no neuron 300: choose 0 to 255"),
        (lambda: mi.feature(atlas, 0, "1"), "no feature '1'"),
        (lambda: mi.feature(atlas, 0, 0, kind="head"), "no kind 'head'"),
        (lambda: mi.feature(unknown, 0, 0), "'gemma' was trained on is not known"),
        (lambda: page.save(tmp_path / "x.gif"), ".html, .svg or .png"),
    ):
        with pytest.raises(FeatureError, match=said):
            call()
