"""Saliency: a map that is not what its method's name says teaches something false, and looks as convincing as a right one."""

import builtins

import numpy as np
import pytest
import torch
from captum import attr

from mi_workshop.models.attention_rnn import AttentionRNN, PassageModel
from mi_workshop.saliency import METHODS, SaliencyError, attribute
from mi_workshop.saliency.inputs import problem
from mi_workshop.worlds import Rooms, Scenes

SCENE = Scenes().sample(1, "validation")[0]
QUERY = "a large red circle"
PROMPT = "Fact: the capital of the state containing Dallas is"
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="module")
def rooms():
    torch.manual_seed(0)
    return PassageModel(AttentionRNN(len(Rooms.vocabulary), len(Rooms.classes)).eval(), Rooms())


STORY = Rooms().sample(1, "validation")[0]


def sum_colours(a):
    return a[0].sum(0)


def largest_colour(a):
    return a[0].abs().amax(0)


DIRECT = {
    "gradient": lambda f, x, b: largest_colour(attr.Saliency(f).attribute(x, target=1, abs=False)),
    "gradient_x_input": lambda f, x, b: sum_colours(attr.InputXGradient(f).attribute(x, target=1)),
    "smoothgrad": lambda f, x, b: largest_colour(
        attr.NoiseTunnel(attr.Saliency(f)).attribute(
            x, target=1, nt_type="smoothgrad", nt_samples=32, stdevs=0.15 * float(x.max() - x.min()), abs=False
        )
    ),
    "integrated_gradients": lambda f, x, b: sum_colours(
        attr.IntegratedGradients(f).attribute(x, b, target=1, n_steps=64)
    ),
    "gradient_shap": lambda f, x, b: sum_colours(
        attr.GradientShap(f).attribute(x, b, target=1, n_samples=64, stdevs=0.0)
    ),
    "guided_backprop": lambda f, x, b: largest_colour(attr.GuidedBackprop(f).attribute(x, target=1)),
    "grad_cam": lambda f, x, b: attr.LayerAttribution.interpolate(
        attr.LayerGradCam(f, f.relu4).attribute(x, target=1, relu_attributions=True), (64, 64), "bilinear"
    )[0, 0],
    "occlusion": lambda f, x, b: attr.Occlusion(f).attribute(x, (3, 8, 8), (3, 4, 4), b, 1, perturbations_per_eval=64)[
        0, 0
    ],
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", DIRECT)
def test_equals_captum_called_directly(cnn, method):
    """Otherwise a figure of ours could not be compared with anybody else's."""
    x = cnn.pixels(SCENE)
    torch.manual_seed(3)
    np.random.seed(3)
    expected = DIRECT[method](cnn.module, x, torch.full_like(x, 0.5)).detach().numpy()
    found = attribute(cnn, SCENE, "square", method, "grey", seed=3).scores
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert np.abs(found).max() > 0


def test_kernel_shap_equals_shap_called_directly(cnn):
    """The same for the method that shap computes: over the objects of a scene, its marker and the rest."""
    from shap import KernelExplainer

    masks = {"object": SCENE.mask(SCENE.objects[0]), "marker": SCENE.cue_mask}
    regions = np.stack([*masks.values(), ~np.any(list(masks.values()), axis=0)])
    x = cnn.pixels(SCENE)

    def output(on):
        seen = torch.tensor(on @ regions.reshape(3, -1)).reshape(-1, 1, 64, 64)
        return cnn.module((seen * x + (1 - seen) * 0.5).float()).detach()[:, 1].numpy()

    np.random.seed(0)
    explainer = KernelExplainer(output, np.zeros((1, 3)))
    direct = explainer.shap_values(np.ones((1, 3)), nsamples=64, l1_reg=0, silent=True)[0]
    found = attribute(cnn, SCENE, "square", "kernel_shap", samples=64, segments=masks)
    np.testing.assert_allclose(list(found.by_part.values()), direct, **CLOSE)
    assert list(found.by_part) == ["object", "marker", "rest"]


def test_scores_that_should_add_up_do(cnn, rooms, atlas):
    """The completeness gap is how a learner sees that there were too few steps; a wrong one hides it."""
    for model, given, target in ((cnn, SCENE, "square"), (rooms, STORY, "garden"), (atlas, PROMPT, "Austin")):
        a = attribute(model, given, target, steps=200)
        assert abs(a.gap) < 0.1 + 0.02 * abs(a.output - a.base)
        assert a.gap == pytest.approx(a.scores.sum() - (a.output - a.base), abs=1e-4)
        assert abs(attribute(model, given, target, "kernel_shap", samples=200).gap) < 1e-4
    few, many = (abs(attribute(cnn, SCENE, "square", steps=n).gap) for n in (3, 200))
    assert many < few


def test_occlusion_is_what_is_lost_when_it_is_covered(cnn, clip):
    """By a loop: windows over a picture, words of a query one by one."""
    x, lost, seen = cnn.pixels(SCENE), np.zeros((64, 64)), np.zeros((64, 64))
    whole = cnn.module(x)[0, 1].item()
    for top in range(0, 64, 16):
        for left in range(0, 64, 16):
            covered = x.clone()
            covered[..., top : top + 16, left : left + 16] = 0
            lost[top : top + 16, left : left + 16] += whole - cnn.module(covered)[0, 1].item()
            seen[top : top + 16, left : left + 16] += 1
    found = attribute(cnn, SCENE, "square", "occlusion", "black", window=16, stride=16)
    np.testing.assert_allclose(found.scores, lost / seen, atol=1e-5)

    p = problem(clip, QUERY, SCENE, "zero")
    words = []
    for i in range(4):
        x = p.x.clone()
        x[:, i] = 0
        words.append((p.forward(p.x) - p.forward(x)).item())
    np.testing.assert_allclose(attribute(clip, QUERY, SCENE, "occlusion", "zero").scores, words, atol=1e-6)


def test_what_is_explained_is_what_the_model_says(cnn, clip, rooms, atlas):
    """A map of another number than the model's would still look fine."""
    logits = atlas.logits(atlas.tokens(PROMPT))
    lead = logits[atlas.token_id("Austin")] - logits[atlas.token_id("Ohio")]
    story = rooms.module(*rooms.tokens([STORY]))[0][0, 2]
    for args, number in (
        ((cnn, SCENE, "triangle"), cnn.module(cnn.pixels(SCENE))[0, 2]),
        ((clip, SCENE, QUERY), clip(SCENE, QUERY)[0, 0]),
        ((clip, QUERY, SCENE), clip(SCENE, QUERY)[0, 0]),
        ((rooms, STORY, Rooms.classes[2]), story),
        ((atlas, PROMPT, ("Austin", "Ohio")), lead),
    ):
        p = problem(*args)
        assert float(p.forward(p.x)) == pytest.approx(float(number), abs=1e-4)
    assert problem(atlas, PROMPT).target == "logit of Austin"
    assert problem(cnn, SCENE).target == f"logit of {cnn.predict(SCENE)[0]}"


def test_gradients_of_a_language_model_are_its_own(atlas):
    """circuit-tracer stops gradients at attention, norms and MLPs: a gradient of what is left would pass for the model's."""
    p = problem(atlas, PROMPT, ("Austin", "Sacramento"))
    x = p.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(p.forward(x).sum(), x)
    torch.manual_seed(1)
    for _ in range(3):
        step = torch.randn_like(x)
        step *= 1e-3 * p.x.norm() / step.norm()
        measured = float(p.forward(p.x + step) - p.forward(p.x - step)) / 2
        assert float((gradient * step).sum()) == pytest.approx(measured, rel=0.05, abs=2e-4)


@pytest.mark.parametrize("words", [False, True])
def test_relevance_by_hand(clip, words):
    """Chefer's rule, from each layer's attention weights as leaves; a mistake in the order of layers still gives a plausible map."""
    args = (QUERY, SCENE) if words else (SCENE, QUERY)
    p = problem(clip, *args)
    n = 4 if words else 65
    whole = np.eye(n)
    for module in p.patterns:
        leaf = []
        handle = module.register_forward_hook(lambda m, a, o, leaf=leaf: leaf.append(o.detach().requires_grad_()) or leaf[0])  # fmt: skip
        (gradient,) = torch.autograd.grad(p.forward(p.x), leaf)
        handle.remove()
        layer = (gradient * leaf[0]).detach().clamp(min=0).mean(1)[0].numpy()
        whole = whole + layer @ whole
    whole -= np.eye(n)
    found = attribute(clip, *args, "relevance").scores
    if words:
        np.testing.assert_allclose(found, whole.mean(0), atol=1e-6)
        np.testing.assert_allclose(attribute(clip, *args, "grad_cam").scores, layer.mean(0), atol=1e-6)
    else:
        grid = torch.tensor(whole[0, 1:].reshape(1, 1, 8, 8))
        expected = torch.nn.functional.interpolate(grid, (64, 64), mode="bilinear")[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def hooks(module):
    return [(len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks)) for m in module.modules()]


def test_models_and_chance_are_left_as_they_were(cnn, clip, rooms, atlas):
    """A hook, gradient or seed left behind would change the next result in a notebook, far from its cause."""
    story = (rooms, STORY, "garden")
    for module, calls in (
        (cnn.module, [(cnn, SCENE, "square")]), (clip.module, [(clip, SCENE, QUERY), (clip, QUERY, SCENE)]),
        (rooms.module, [story]), (atlas.replacement, [(atlas, PROMPT, "Austin")]),
    ):  # fmt: skip
        weights = {k: v.clone() for k, v in module.state_dict().items()}
        before = hooks(module), [p.requires_grad for p in module.parameters()], module.training
        chance = torch.get_rng_state(), np.random.get_state()[1].copy()
        for args in calls:
            for method in METHODS:
                try:
                    attribute(*args, method, **({"samples": 8} if method in ("kernel_shap", "gradient_shap") else {}))
                except SaliencyError as error:
                    assert " has none" in str(error)
        assert before == (hooks(module), [p.requires_grad for p in module.parameters()], module.training)
        assert all(torch.equal(weights[k], v) for k, v in module.state_dict().items())
        assert all(p.grad is None for p in module.parameters())
        assert torch.equal(chance[0], torch.get_rng_state()) and (chance[1] == np.random.get_state()[1]).all()


def test_bad_input_gets_a_sentence(cnn, clip, rooms, atlas, monkeypatch):
    """The learner gets told what fits, not where in Captum it failed."""
    picture = SCENE.image
    for args, options, sentence in (
        ((cnn, SCENE, "hexagon"), {}, "no target 'hexagon' in scenes-cnn; choose one of circle, square"),
        ((cnn, SCENE, 7), {}, "no target 7"),
        ((cnn, SCENE, "square", "lime"), {}, "no method 'lime'; choose gradient, "),
        ((cnn, SCENE, "square", "relevance"), {}, "needs self-attention layers, and scenes-cnn has none: choose"),
        ((rooms, STORY, "garden", "grad_cam"), {}, "needs a convolution or self-attention layer, and Rooms has none"),
        ((rooms, STORY, "garden", "guided_backprop"), {}, "ReLU layers .* Rooms has none here: choose gradient, "),
        ((atlas, PROMPT, "Austin", "guided_backprop"), {}, "ReLU .* atlas has none"),
        ((cnn, picture[:32], "square"), {}, r"must be 64 × 64 .* this one is \[32, 64, 3\] of uint8"),
        ((cnn, picture[..., 0], "square"), {}, "one picture"),
        ((cnn, picture / 255, "square"), {}, "this one is .* of float64"),
        ((cnn, picture.astype(np.uint16), "square"), {}, "this one is .* of uint16"),
        ((cnn, np.dstack([picture, picture[..., :1]]), "square"), {}, r"this one is \[64, 64, 4\]"),
        ((cnn, [SCENE, SCENE], "square"), {}, "one picture"),
        ((cnn, SCENE, "square", "occlusion", "beige"), {}, "no baseline 'beige': choose grey, black, white, blur"),
        ((cnn, SCENE, "square", "occlusion", picture[:8]), {}, r"baseline does not fit.*\[8, 64, 3\]"),
        ((cnn, SCENE, "square", "occlusion", [SCENE, SCENE]), {}, "occlusion takes one baseline, not 2; gradient_shap"),
        ((cnn, SCENE, "square", "occlusion"), {"window": 4, "stride": 8}, "at least the stride"),
        ((cnn, SCENE, "square"), {"step": 8}, "integrated_gradients has no option 'step'; it has steps"),
        ((cnn, SCENE, "square"), {"steps": 0}, "steps must be a whole number from 1 on, not 0"),
        ((cnn, SCENE, "square", "smoothgrad"), {"noise": -1}, "noise must be 0 or more"),
        ((cnn, SCENE, "square", "grad_cam"), {"layer": "conv9"}, "no layer 'conv9' .* it has conv1, relu1"),
        ((cnn, SCENE, "square", "kernel_shap"), {"segments": {"all": picture}}, "segments must be names with masks"),
        ((clip, SCENE), {}, "compares a picture with a query"),
        ((clip, SCENE, "a large rde circle"), {}, "does not know the word 'rde'; did you mean 'red'"),
        ((clip, "", SCENE), {}, "query is empty"),
        ((rooms, "Sandra went to the moon. Where is Sandra?"), {}, "Rooms does not know the word 'moon'"),
        ((rooms, STORY, "moon"), {}, "no target 'moon' in Rooms"),
        ((rooms, STORY, None, "occlusion", "moon"), {}, "no baseline 'moon': choose 'mean', 'zero' or a word of Rooms"),
        ((rooms, STORY, None, "occlusion", np.zeros(7)), {}, r"or embeddings \[64\].* not \[7\]"),
        ((atlas, PROMPT, "Astin"), {}, "does not know the token 'Astin'"),
        ((atlas, PROMPT, ("Austin", "Ohio", "Iowa")), {}, "one token, or two"),
        ((atlas, ""), {}, "empty"),
        ((object(), SCENE), {}, "not object"),
    ):
        with pytest.raises(SaliencyError, match=sentence) as caught:
            attribute(*args, **options)
        assert "\n" not in str(caught.value)

    imported = builtins.__import__

    def without_shap(name, *rest, **named):
        if name == "shap":
            raise ImportError(name)
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_shap)
    with pytest.raises(SaliencyError, match="pip install shap"):
        attribute(cnn, SCENE, "square", "kernel_shap")


def test_results_show_themselves(cnn, rooms, tmp_path):
    """What a notebook stores is a picture with alt text, without markup from the tokens."""
    for a in (attribute(cnn, SCENE, "square"), attribute(rooms, STORY, "garden")):
        data, _ = a._repr_mimebundle_()
        assert set(data) == {"text/html", "image/png", "text/plain"} and a.words() == data["text/plain"]
        assert "completeness gap" in a.words().lower() and "baseline" in a.words()
        assert a.waterfall(top=3).figure().axes[0].get_yticklabels()[-1].get_text() == max(a.by_part, key=lambda k: abs(a.by_part[k]))  # fmt: skip
        assert a.save(tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(SaliencyError, match="add up to nothing: a waterfall needs integrated_gradients, "):
        attribute(cnn, SCENE, "square", "gradient").waterfall()
    again = attribute(cnn, SCENE, "square", "smoothgrad", seed=5).scores
    assert (attribute(cnn, SCENE, "square", "smoothgrad", seed=5).scores == again).all()
