"""The lenses and logit attribution: they must be the model's own arithmetic, and say clearly what they cannot read."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

import mi_workshop as mi
from mi_workshop.lens import LensError
from mi_workshop.teach.logit_lens import home_ranks, patched
from mi_workshop.worlds import WorldError

PROMPT = "Fact: the capital of the state containing Dallas is"
OAKLAND = PROMPT.replace("Dallas", "Oakland")
IDS = [1, 2, 3, 4, 2]
NORMS = {
    "LN": {},
    "LNPre": {},
    "RMS": {"use_normalization_before_and_after": True, "output_logits_soft_cap": 5.0, "gated_mlp": True},  # as Gemma 2
    "RMSPre": {"parallel_attn_mlp": True},
    None: {"attn_only": True},
}


def tiny(norm="LN"):
    """A HookedTransformer with random weights, biases included, and no tokenizer."""
    config = HookedTransformerConfig(
        n_layers=2, d_model=16, n_ctx=8, d_head=4, n_heads=4, d_mlp=32, d_vocab=20, act_fn="relu", normalization_type=norm, seed=1,
        **NORMS[norm],
    )  # fmt: skip
    model = HookedTransformer(config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def lens(atlas):
    return mi.logit_lens(atlas, PROMPT)


@pytest.fixture(scope="module")
def tuned(atlas):
    return mi.tuned_lens(atlas, steps=100)


# ------------------------------------------------------------------------------------------------- the plain lens
@pytest.mark.parametrize("norm", NORMS)
def test_the_last_layer_says_what_any_model_says(norm):
    """Otherwise the top row of every grid would be another model's, and no row below could be trusted."""
    model = tiny(norm)
    lens = mi.logit_lens(model, torch.tensor(IDS), mid=True)
    with torch.no_grad():
        own = model(torch.tensor([IDS]))[0].log_softmax(-1)
    torch.testing.assert_close(lens.logprobs[-1], own, atol=1e-5, rtol=0)
    assert ("layer 0 mid" in lens.points) == (norm in ("LN", "LNPre", "RMS"))


def test_the_last_layer_says_what_atlas_says(atlas, lens):
    """The same for the model of the course, with circuit-tracer's wrapped modules inside."""
    own = atlas.replacement(atlas.tokens(PROMPT)[None])[0].log_softmax(-1)
    torch.testing.assert_close(lens.logprobs[-1], own, atol=1e-5, rtol=0)
    assert [t for t, _ in lens.top(-1)] == [t for t, _ in atlas.top(PROMPT, 5)]


def test_a_middle_row_is_the_model_stopped_there(atlas, lens):
    """A row that read another hook point would tell of a layer that it does not show."""
    norm, unembed = atlas.replacement.ln_final, atlas.replacement.unembed
    _, cache = atlas.replacement.run_with_cache(atlas.tokens(PROMPT))
    for name, hook in (("embed", "blocks.0.hook_resid_pre"), ("layer 1", "blocks.1.hook_resid_post")):
        for kind, read in ((True, lambda x: unembed(norm(x))), (False, unembed)):
            shown = mi.logit_lens(atlas, PROMPT, norm=kind)
            torch.testing.assert_close(shown.logprobs[shown.point(name)], read(cache[hook])[0].log_softmax(-1))


def test_kl_is_a_distance_from_the_output(lens):
    """KL below zero, or above it at the end, would make the curves of notebook 03 meaningless."""
    assert (lens.kl.to_numpy() >= 0).all() and lens.kl.iloc[-1].max() < 1e-6 and lens.kl.iloc[0].min() > 0.1
    entropy = lens.entropy.to_numpy()
    assert (entropy >= 0).all() and (entropy <= torch.tensor(916.0).log().item() + 1e-4).all()


def test_rank_is_the_place_in_the_sorted_list(lens):
    """A rank off by one makes the likeliest token second."""
    order = lens.logprobs.argsort(-1, descending=True)
    for word in ("Texas", "Austin", "is", "<bos>"):
        place = (order == lens.vocabulary.id(word)).int().argmax(-1) + 1
        assert (lens.rank(word).to_numpy() == place.numpy()).all()
    for point in lens.points:
        token, p = lens.top(point, "Dallas", 1)[0]
        assert lens.rank(token).loc[point, "Dallas"] == 1
        assert lens.prob(token).loc[point, "Dallas"] == pytest.approx(p)


def test_a_trajectory_is_a_column_of_the_tables(lens):
    """The curves and the grid must not tell two stories."""
    path = lens.trajectory(["Texas", "Austin"], at="Dallas")
    assert (path.rank["Texas"] == lens.rank("Texas")["Dallas"]).all()
    assert (path.prob["Austin"] == lens.prob("Austin")["Dallas"]).all()
    assert str(path.rank["Texas"].iloc[1]) in path.words()


def test_tokens_that_occur_twice_are_told_apart(lens):
    """'the' stands at two places; reading the wrong one goes unnoticed."""
    assert [label for label in lens.labels if label.startswith("the")] == ["the (3)", "the (6)"]
    assert lens.position("the (6)") == 6 and lens.position(-1) == len(lens.tokens) - 1
    with pytest.raises(LensError, match=r"occurs 2 times: choose 'the \(3\)' or 'the \(6\)'"):
        lens.position("the")


def test_nothing_of_the_model_changes(atlas):
    """A lens that left a hook or touched a weight would falsify everything that is computed after it."""
    net, tokens = atlas.replacement, atlas.tokens(PROMPT)[None]
    hooks = {name: len(point.fwd_hooks) for name, point in net.hook_dict.items()}
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    before = net(tokens)
    mi.tuned_lens(atlas, steps=2)
    mi.logit_lens(atlas, PROMPT, mid=True)
    mi.direct_logit_attribution(atlas, PROMPT)
    assert {name: len(point.fwd_hooks) for name, point in net.hook_dict.items()} == hooks
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    torch.testing.assert_close(net(tokens), before, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------- the tuned lens
def test_the_tuned_lens_is_nearer_on_questions_it_never_saw(tuned):
    """If it only fitted its training text, its picture of a new question would be worth less than the plain one."""
    table = tuned.table
    assert (table.tuned[:-1] < table.plain[:-1]).all() and tuned.counts[1] > 400
    assert table.tuned.iloc[-1] == pytest.approx(0, abs=1e-6) and table.cosine.iloc[-1] == pytest.approx(1)


def test_the_tuned_lens_leaves_the_last_layer_alone(atlas, lens, tuned):
    """At the end there is nothing to translate: the two lenses must agree with the model."""
    view = mi.logit_lens(atlas, PROMPT, tuned=tuned)
    torch.testing.assert_close(view.logprobs[-1], lens.logprobs[-1], atol=1e-5, rtol=0)
    assert view.kind == "tuned lens" and not torch.allclose(view.logprobs[0], lens.logprobs[0])


def test_the_same_seed_gives_the_same_tuned_lens():
    """A figure in a report must come out again. Also: a plain model and prompts of several lengths will do."""
    model, prompts = tiny(), [[1, 2, 3], [4, 5, 6, 7], [3, 2, 1]]
    first, again, other = (mi.tuned_lens(model, prompts, [[7, 8, 9]], steps=5, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    assert first.counts == (7, 1) and all(p.grad is None for p in model.parameters())


# ------------------------------------------------------------------------------------------------- attribution
@pytest.mark.parametrize("norm", NORMS)
def test_the_parts_add_up_in_any_model(norm):
    """Parts that do not add up leave out a component, and the missing one may be the one that matters."""
    for token, versus, at in ((None, None, -1), (4, None, 1), (4, 5, 2)):
        result = mi.direct_logit_attribution(tiny(norm), IDS, token, versus, at)
        assert result.table.value.sum() == pytest.approx(result.logit, abs=1e-4)
        assert len(result.table) == 2 + 2 * (5 if norm else 4)


@pytest.mark.parametrize("versus", [None, "Texas"])
def test_the_parts_add_up_to_the_logit_of_atlas(atlas, versus):
    """The same for the model of the course, against the logit that the model itself gives."""
    result = mi.direct_logit_attribution(atlas, PROMPT, "Austin", versus)
    logits = atlas.logits(atlas.tokens(PROMPT))
    own = logits[atlas.token_id("Austin")] - (logits[atlas.token_id(versus)] if versus else 0)
    assert result.table.value.sum() == pytest.approx(float(own), abs=1e-4)
    assert result.logit == pytest.approx(float(own), abs=1e-4)


def test_a_part_is_what_its_component_writes(atlas):
    """Two heads with each other's bars would still add up."""
    net = atlas.replacement
    result = mi.direct_logit_attribution(atlas, PROMPT, "Austin", "Texas").table.set_index("component").value
    _, cache = net.run_with_cache(atlas.tokens(PROMPT))
    read = net.unembed.W_U[:, atlas.token_id("Austin")] - net.unembed.W_U[:, atlas.token_id("Texas")]
    scale = cache["ln_final.hook_scale"][0, -1]
    head = cache["blocks.3.attn.hook_z"][0, -1, 2] @ net.blocks[3].attn.W_O[2]
    assert result["L3H2"] == pytest.approx(float(head @ read / scale), abs=1e-5)
    assert result["MLP 2"] == pytest.approx(float(cache["blocks.2.hook_mlp_out"][0, -1] @ read / scale), abs=1e-5)


# ------------------------------------------------------------------------------------------------- bad input
def test_bad_input_gets_one_sentence(atlas, lens, tuned, tmp_path):
    """A learner who mistypes must learn what there is, not read a traceback of torch's."""
    plain = tiny()
    cases = {
        "did you mean Texas": lambda: lens.rank("Texsa"),
        "does not know the token 'unicorn'": lambda: lens.prob("unicorn"),
        "'Dallas is' is 2 tokens ('Dallas', 'is')": lambda: lens.rank("Dallas is"),
        "The empty text is no token": lambda: lens.rank(""),
        "ids run from 0 to 915": lambda: lens.rank(916),
        "'Houston' is no token of this prompt": lambda: lens.top(0, "Houston"),
        "There is no position 11: the prompt has positions 0 to 10": lambda: lens.top(0, 11),
        "There is no layer 4; there are embed, layer 0": lambda: lens.top(4, "is"),
        "There is no layer 'layer 9'": lambda: lens.top("layer 9", "is"),
        "not '.pdf'": lambda: lens.save(tmp_path / "x.pdf"),
        "leave mid and norm": lambda: mi.logit_lens(atlas, PROMPT, mid=True, tuned=tuned),
        "belongs to atlas, a model of another shape": lambda: mi.logit_lens(plain, IDS, tuned=tuned),
        "give token ids instead of text": lambda: mi.logit_lens(plain, PROMPT),
        "give a token id from 0 to 19": lambda: mi.direct_logit_attribution(plain, IDS, "Austin"),
        "give prompts to train on": lambda: mi.tuned_lens(plain),
        "There is no position 7": lambda: mi.direct_logit_attribution(plain, IDS, at=7),
    }
    for said, wrong in cases.items():
        with pytest.raises(LensError) as error:
            wrong()
        assert said in str(error.value) and len(str(error.value).splitlines()) == 1
    with pytest.raises(WorldError, match="'Dalas'; did you mean Dallas"):
        mi.logit_lens(atlas, PROMPT.replace("Dallas", "Dalas"))


# ------------------------------------------------------------------------------------------------- showing
class Page(HTMLParser):
    """Tags of a page, and the addresses that its tags ask for."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.asks = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.asks += [v for k, v in attributes if k in ("src", "href") and not v.startswith("data:")]


def test_results_show_and_save_themselves(atlas, lens, tuned, tmp_path):
    """A picture must be there live, on GitHub and in a file, with words for those who cannot see it."""
    results = [lens, lens.trajectory(["Texas"], "is"), tuned, mi.direct_logit_attribution(atlas, PROMPT)]
    for result in results:
        data, _ = result._repr_mimebundle_()
        assert data["text/plain"] == result.words() == " ".join(str(result).split())
        assert max(map(len, str(result).splitlines())) <= 88, "a printed sentence is cut off in the middle of a word"
        assert "<img alt=" in data["text/html"] and len(data["text/html"]) < 80_000
        assert ("application/vnd.plotly.v1+json" in data) == (result is lens) == ("image/png" not in data)
        for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!doctype html>")):
            assert result.save(tmp_path / f"x{suffix}").read_bytes().startswith(start)
        assert Page((tmp_path / "x.html").read_text(encoding="utf-8")).asks == []
    assert len(json.dumps(lens.interactive())) < 40_000, "stored notebooks stay small"


def test_the_hover_lists_what_top_says(lens):
    """The grid shows one token; what comes second is only on hover."""
    grid = lens.interactive()["data"][0]
    row, column = lens.point("layer 2"), lens.position("is")
    listed = re.findall(r"<br>[\d.]+ ([^<]+)", grid["customdata"][row][column])
    assert listed[:5] == [token for token, _ in lens.top("layer 2", "is", 5)]
    assert "Austin" in grid["text"][-1][column] and "<b>" in grid["text"][-1][column]


def test_tokens_are_text_never_markup(atlas, tmp_path):
    """A token from a stranger's tokenizer must not become a link or a script in somebody's notebook."""
    evil = '<a href="https://example.org">x</a>$x_1$<script>alert(1)</script>'
    shown = mi.logit_lens(atlas, PROMPT)
    shown.vocabulary.name = lambda i: evil
    shown.tokens = [evil, *shown.tokens[1:]]
    assert "<a " not in json.dumps(shown.interactive()) and "<script" not in json.dumps(shown.interactive())
    assert Page(shown.save(tmp_path / "x.html").read_text(encoding="utf-8")).tags.count("a") == 0
    shown.trajectory([3], at=1).save(tmp_path / "x.png")


def test_a_long_prompt_says_how_much_is_drawn(atlas):
    """A picture that silently left out the beginning would pass for the whole."""
    lens = mi.logit_lens(atlas, "Mr Potter thanked Mrs Watson. " * 4 + "Mr")
    assert f"the last 16 of {len(lens.tokens)} tokens" in lens.interactive()["layout"]["title"]["text"]
    assert len(lens.interactive()["data"][0]["z"][0]) == 16


# ------------------------------------------------------------------------------------------------- the lesson
def test_what_notebook_03_tells_is_so(atlas, lens):
    """The notebook says in words what these models do; other weights may do otherwise, and then the words must change."""
    assert not any(lens.top(point, at, 1)[0][0] == "Texas" for point in lens.points for at in range(len(lens.tokens)))
    assert patched(atlas, PROMPT, OAKLAND, layer=1, at="Dallas")[0][0] == "Sacramento"
    other = mi.load("atlas-global")
    assert [mi.logit_lens(other, PROMPT).top(layer, "Dallas", 1)[0][0] for layer in (0, 1)] == ["Texas", "Texas"]
    assert patched(other, PROMPT, OAKLAND, layer=1, at="Dallas")[0][0] == "Austin"
    assert patched(other, PROMPT, OAKLAND, layer=1, at="is")[0][0] == "Sacramento"
    assert mi.logit_lens(other, "Letter to Dallas").top(-1)[0][0] == "Texas"
    ours, theirs = home_ranks(atlas).loc["layer 1"], home_ranks(other).loc["layer 1"]
    assert 1 < ours["median"] < 20 and ours["first"] < 0.2 and theirs["first"] > 0.9
    parts = mi.direct_logit_attribution(atlas, PROMPT, "Austin").table.set_index("component").value
    against = mi.direct_logit_attribution(atlas, PROMPT, "Austin", "Texas").table.set_index("component").value
    assert parts.idxmax() == against.idxmin()


def test_patching_needs_prompts_of_one_length(atlas):
    """Vectors of another prompt's wrong token would be put in without a word."""
    with pytest.raises(ValueError, match="needs the same number"):
        patched(atlas, PROMPT, "Letter to Oakland", 1, "Dallas")
    with pytest.raises(ValueError, match="is no token"):
        patched(atlas, PROMPT, OAKLAND, 1, "Oakland")
