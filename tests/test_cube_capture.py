"""Capturing activations: numbers and labels are those of the model, for every kind of model and every way of reading it."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from cube_help import IDS, PROMPT, SHORT, VALUES, close, marks, refused
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

import mi_workshop as mi
from mi_workshop.cube import METRICS, CubeError, capture
from mi_workshop.cube.places import find


@pytest.fixture(scope="module")
def tokenizer():
    words = {w: i for i, w in enumerate(["?", "the", "a", "cat", "dog", "sat"])}
    made = Tokenizer(models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return Fast(tokenizer_object=made, unk_token="?")


FORMULAS = {
    "norm": lambda x, c: np.sqrt((x**2).sum(-1)), "mean": lambda x, c: x.mean(-1), "std": lambda x, c: np.sqrt((c**2).sum(-1) / (x.shape[-1] - 1)),
    "max": lambda x, c: x.max(-1), "share_active": lambda x, c: (x > 0).mean(-1), "kurtosis": lambda x, c: (c**4).mean(-1) / (c**2).mean(-1) ** 2,
    "participation_ratio": lambda x, c: (x**2).sum(-1) ** 2 / (x**4).sum(-1),
}  # fmt: skip


def test_every_metric_is_its_formula():
    """Else the numbers of a cube are not what their names say, in half precision or where a large mean hides the spread."""
    assert set(FORMULAS) == set(METRICS)
    net = nn.Sequential(nn.Linear(4, 9)).to(torch.bfloat16)
    for x in (VALUES.bfloat16(), (VALUES + 30).bfloat16()):
        found, y = capture(net, x, "0", list(METRICS)), net(x).detach().double().numpy()
        for name, formula in FORMULAS.items():
            assert found["0", name].dtype == np.float32 and found["0", name].dims == ("prompt", "token")
            close(found["0", name], formula(y, y - y.mean(-1, keepdims=True)))


def test_one_unit_and_nothing_have_no_spread():
    """Else a constant unit, or a dead layer, shows a number where none is defined, or floods the notebook with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zero = capture(nn.Sequential(nn.Flatten(2)), 0 * VALUES, "0", list(METRICS))
        one = capture(nn.Sequential(nn.Linear(4, 1)), VALUES, "0", ["std", "norm"])
    assert not (zero["norm"].any() or zero["std"].any() or zero["share_active"].any())
    assert np.isnan(zero["kurtosis"]).all() and np.isnan(zero["participation_ratio"]).all()
    assert np.isnan(one["std"]).all() and np.isfinite(one["norm"]).all()


def test_own_metrics(atlas):
    """Else one's own metric is refused or misnamed, or a bad one ends in a traceback."""

    def first(x):
        return x[..., 0]

    cube = capture(atlas, PROMPT, metrics={"first": first, "l1": lambda x: x.abs().sum(-1)}, raw="resid_post")
    close(cube["resid_post", "first"], cube["resid_post"][..., 0])
    close(cube["l1"], np.abs(cube["resid_post"]).sum("d_model"))
    assert list(capture(atlas, PROMPT, metrics=first).data) == ["resid_post_first"]
    for wrong, says in (
        ([lambda x: x], "a name"), ({"all": lambda x: x}, "one number for each vector"), ({"two": lambda x: 2}, "int"), ({"bad": 3}, "function"),
        ({"fails": lambda x: x.wrong}, "'fails' failed"), ("energy", "no metric 'energy'"), ([["norm"]], "no metric"),
    ):  # fmt: skip
        refused(says, atlas, PROMPT, metrics=wrong)


def test_raw_is_run_with_cache_and_features_are_encode(atlas):
    """Else tensors in a cube are not the model's, or features not those of the graphs."""
    sites = ["embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "neuron", "pattern"]  # fmt: skip
    cube, net = capture(atlas, [PROMPT, SHORT], sites, raw=sites, features=3), atlas.replacement
    for row, prompt in enumerate((PROMPT, SHORT)):
        n = len(atlas.tokens(prompt))
        with torch.no_grad():
            _, cache = net.run_with_cache(atlas.tokens(prompt)[None])
        for site in sites:
            have = cube[site].isel({"prompt": row} | {d: slice(n) for d in ("token", "query", "key") if d in cube[site].dims})  # fmt: skip
            want = np.stack([cache[place.path][0].numpy() for place in find(atlas, net, site)])
            close(have, want if "layer" in have.dims else want[0])
            norm = np.linalg.norm(have, axis=-1)  # of attention: [layer, head, query]
            close(cube[site, "norm"].isel(prompt=row, token=slice(n)), norm.swapaxes(1, 2) if site == "pattern" else norm)  # fmt: skip
        for layer in range(net.cfg.n_layers):
            want = net.transcoders.encode_layer(cache[f"blocks.{layer}.{net.feature_input_hook}"], layer)[0].detach()
            have, (strength, feature) = cube.data.isel(prompt=row, layer=layer, token=slice(n)), want.topk(3)
            close(have.feature_strength, strength.clamp(min=0))
            assert np.array_equal(have.feature_id, feature.masked_fill(strength <= 0, -1))
            assert np.array_equal(have.feature_count, (want > 0).sum(-1))
    assert cube["neuron"].dims == ("prompt", "layer", "token", "d_mlp") and cube["z"].dims[-2:] == ("head", "d_head")


def test_ragged_prompts_are_rows_of_their_own(atlas):
    """Else a short prompt's numbers depend on its neighbours: something was padded."""
    prompts, more = [PROMPT, SHORT, PROMPT.replace("Dallas", "Miami")], {"sites": ["resid_post", "pattern"], "raw": "pattern"}  # fmt: skip
    cubes = [capture(atlas, prompts, batch=size, **more) for size in (1, None)]
    for row, prompt in enumerate(prompts):
        alone, n = capture(atlas, prompt, **more).data, len(atlas.tokens(prompt))
        for here in (cube.data.isel(prompt=row) for cube in cubes):
            for name in alone.data_vars:
                cut = {d: slice(n) for d in ("token", "query", "key") if d in here[name].dims}
                close(here[name].isel(cut), alone[name][0])
                assert here[name].notnull().sum() == alone[name].notnull().sum()
        assert cubes[0].tokens(row) == atlas.words(atlas.tokens(prompt)) and (here.position[n:] == -1).all()


def test_dictionary_features(atlas):
    """Else the features of a dictionary are read at the wrong layer."""
    trained, plain = mi.dictionary.load("atlas", layer=2), nn.Sequential(nn.Linear(4, 4))
    cube = capture(atlas, PROMPT, (), features=4, dictionary=trained, raw=trained.reads)
    want = trained.encode(torch.tensor(cube[trained.reads].values[0])).detach().topk(4).values
    close(cube.data.feature_strength[0, 2], want)
    assert np.isnan(cube.data.feature_strength[0, [0, 1, 3]]).all()
    close(capture(atlas, PROMPT, "feature", "max", dictionary=trained)["max"][0, 2], want[:, 0])
    for more, says in (({"features": 2}, "no transcoders"), ({"sites": "feature"}, "no transcoders"), ({"dictionary": trained}, "features=5")):  # fmt: skip
        refused(says, plain, VALUES, **({"sites": "0"} | more))


def test_hooked_transformers(tokenizer):
    """Else models whose keys are shared fail, their heads are labelled as if each had its own, or a long prompt is cut in silence."""
    net = HookedTransformer(HookedTransformerConfig(n_layers=2, d_model=16, n_ctx=12, d_head=4, n_heads=4, n_key_value_heads=2, d_vocab=30, act_fn="gelu", device="cpu"))  # fmt: skip
    cube = capture(net, [IDS, IDS[:4]], ["q", "k", "pattern"], raw="k")
    assert cube["q", "norm"].sizes["head"] == cube["pattern", "norm"].sizes["head"] == 4 and cube["k"].sizes["k_head"] == 2  # fmt: skip
    refused("tokenizer", net, "the cat")
    net.set_tokenizer(tokenizer)
    assert capture(net, "the cat sat").tokens()[-3:] == ["the", "cat", "sat"]
    refused("tokens, and the model reads 12", net, "the cat " * 9)


def test_transformers_models(gpt2, tokenizer):
    """Else a model from the Hub, in any of its shapes, cannot be looked into, or dropout is in its numbers."""
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}  # fmt: skip
    for model in (gpt2, LlamaForCausalLM(LlamaConfig(**size, num_key_value_heads=2)), BertModel(BertConfig(**size))):
        before = marks(model.train())
        cube = capture(model, ["the cat sat", "a dog"], ["resid_post", "attn_out"], raw="resid_post", tokenizer=tokenizer)  # fmt: skip
        assert cube.tokens(1) == ["a", "dog"] and marks(model) == before
        with torch.no_grad():
            want = model.eval()(torch.tensor([[1, 3, 5]]), output_hidden_states=True).hidden_states[1]
        close(cube["resid_post"][0, 0], want[0])
    wpe = capture(gpt2, torch.stack([IDS, IDS.flip(0)]), "transformer.wpe", raw="transformer.wpe")
    close(wpe["transformer.wpe"][1], gpt2.transformer.wpe.weight[:6].detach())
    refused("17 tokens, and the model reads 16", gpt2, torch.zeros(17, dtype=torch.long))
    refused("could not read an input of", gpt2, torch.tensor([99]))


def test_modules_of_gpt2_are_those_of_the_public_cube(real_file):
    """Else a cube of ours cannot be laid beside one of modelrecon's: other modules, another order, or other numbers."""
    model, seen = GPT2LMHeadModel(GPT2Config(n_embd=24, n_head=4, vocab_size=40, n_positions=16)).eval(), {}
    cube = capture(model, IDS[:2], "modules")
    names = [one["layer_name"] for one in json.loads(real_file("activity_cube_gpt2.json").read_text())["layers"]]
    assert len(names) == 113 and cube.layers == names
    for name, m in model.named_modules():
        m.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out if torch.is_tensor(out) else out[0]}))  # fmt: skip
    model(IDS[None, :2])
    for name in names:
        for token in (0, 1):
            x = seen[name][0, token].detach()
            close(cube.data.isel(prompt=0, token=token).sel(module=name).to_array(), [x.norm(), x.mean(), x.std()])


def test_outputs_of_every_kind(parts):
    """Else a module that returns a tuple, a dictionary or a dataclass cannot be read, or silence passes for numbers."""
    state, kinds = {k: v.clone() for k, v in parts.state_dict().items()}, ["first", "tup", "dic", "data"]
    cube, every = capture(parts, VALUES, kinds, raw=kinds), capture(parts, VALUES, "modules")
    with torch.no_grad():
        close(cube["first"], parts.first(VALUES))  # as it was before it was overwritten
        y = parts.first(VALUES).relu()
        for _ in range(3):
            y = parts.shared(y)
        for name in kinds[1:]:
            close(cube[name], getattr(parts, name).line(y))
    close(every.data.module_mean.sel(module="shared"), y.mean(-1))
    lines = ("tup.line", "tup", "dic.line", "dic", "data.line", "data", "none.line", "counts.line")
    assert every.layers == ["first", "shared", "norm", *lines] and "4 modules left out" in every.words()
    assert every.provenance["left_out"] == {"shared": "is called several times in one run: the last call is kept", "none": "returns no tensor", "counts": "returns int64, not activations", "silent": "was never called while the model ran"}  # fmt: skip
    assert all(torch.equal(v, state[k]) for k, v in parts.state_dict().items())  # running averages too
    assert list(capture(parts, VALUES, (), raw="shared").provenance["left_out"]) == ["shared"]
    for site, says in (("none", "no tensor"), ("counts", "int64"), ("silent", "never called"), ("frist", "did you mean first")):  # fmt: skip
        refused(says, parts, VALUES, sites=site)
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))
    refused("different shapes", net, VALUES, sites="{}", raw="{}")
    assert capture(net, VALUES, "{}")["norm"].dims == ("prompt", "layer", "token")


def test_pictures(cnn, clip):
    """Else picture models have no cubes."""
    pictures = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    cube = capture(cnn, list(pictures), ["conv2", "fc"], raw="conv2")
    close(cube["conv2", "mean"], cube["conv2"].mean("conv2_unit"))
    assert cube["fc", "norm"].dims == ("prompt",) and cube["conv2", "norm"].dims == ("prompt", "conv2_y", "conv2_x")
    both, alone = (capture(clip, [(p, "a red circle") for p in some], "visual.{}") for some in (pictures, pictures[1:]))
    close(both["norm"][1], alone["norm"][0])
    assert both.prompts == ["a red circle"] * 2 and both["norm"].dims == ("prompt", "layer", "visual.{}_position")
    refused(r"give each prompt as \(picture, query\)", clip, list(pictures), sites="visual.{}")


def test_bad_input_is_one_sentence(atlas, gpt2, monkeypatch):
    """Else a typing error ends in a traceback from inside a library, or a large capture ends the kernel."""
    plain, no = nn.Sequential(nn.Linear(4, 4)), torch.zeros(2, 0, dtype=torch.long)
    for says, more in (
        ("resid_post", {"sites": "resid_pots"}), ("no back end 'hook'", {"backend": "hook"}), ("no site", {"sites": "a.{x}"}), ("named by a text", {"sites": [3]}),
        ("no common shape", {"raw": "modules"}), ("nothing to keep", {"metrics": ()}), ("batch=0", {"batch": 0}), ("features=-1", {"features": -1}), ("features=1.5", {"features": 1.5}),
    ):  # fmt: skip
        refused(says, atlas, PROMPT, **more)
    for says, prompts in (("no prompts", []), ("empty", ""), ("text or a tensor", ["Fact:", 3]), ("text or a tensor", None), ("moon", "Fact: the moon"), ("at most", "the " * 200), ("do not fit", no)):  # fmt: skip
        refused(says, atlas, prompts, ValueError)
    refused("do not fit", gpt2, no)
    refused("not from a int", 3, PROMPT)
    for says, prompts in (
        ("tokenizer", "text"), ("do not fit", [torch.ones(4), torch.ones(5)]), ("do not fit", [torch.ones(3, 4, 4), torch.ones(3, 5, 4)]),
        (r"could not read an input of \[2, 5\]", torch.ones(2, 5)), ("two kinds", [torch.ones(4), IDS]), ("no prompts", torch.ones(0, 4)),
    ):  # fmt: skip
        refused(says, plain, prompts, sites="0")
    refused("no list of blocks", plain, torch.ones(2, 4))
    monkeypatch.setattr(sys.modules["mi_workshop.cube.capture"], "available_memory", lambda: 20_000)
    refused("resid_post would take .* GB of memory: capture fewer", atlas, [PROMPT] * 60, metrics="norm", raw="resid_post")  # fmt: skip


def test_cubes_of_other_models_layers_or_weights_are_not_subtracted(atlas, gpt2):
    """Else a difference compares two things that have nothing to do with each other."""
    a = capture(gpt2, IDS)
    b = capture(atlas, PROMPT), a.select(layer=1)
    assert not (a - capture(gpt2, IDS)).data.resid_post_norm.any()
    with pytest.raises(CubeError, match="different models: model is 'GPT2LMHeadModel' here and 'atlas' there"):
        a - b[0]
    with pytest.raises(CubeError, match="different layers: 0 here and 1 there"):
        a.select(layer=0) - b[1]
    gpt2.transformer.wte.weight.data = gpt2.transformer.wte.weight.data + 1
    with pytest.raises(CubeError, match="weights is sha256:"):
        a - capture(gpt2, IDS)
