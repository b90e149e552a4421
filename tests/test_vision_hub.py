"""CLIP, ViT and ResNet by name: the real loading path against a Hub of our own, with tiny random weights under the real names."""

import re
import types
from pathlib import Path

import hub_help
import numpy as np
import pytest
import torch
import vision_help
from captum import attr
from hub_help import connected
from vision_help import FAULTS

import mi_workshop as mi
from mi_workshop.models import ModelError
from mi_workshop.models.small import ImageModel, ImageTextModel
from mi_workshop.saliency import METHODS, SaliencyError, answer_keys, attribute, problem
from mi_workshop.saliency.methods import ATTENTION
from mi_workshop.worlds import Scenes
from mi_workshop.worlds.scenes import SHAPES

SCENE = Scenes().sample(1, "test")[0]
PHOTO = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
QUERIES = ["a photo of a cat", "two small blue squares"]
NAMES = {"clip": "clip-vit-base-patch32", "vit": "google/vit-base-patch16-224", "resnet": "resnet-50"}
REPOSITORY = {"clip": f"{vision_help.CLIP}@pr-7", "vit": vision_help.VIT, "resnet": vision_help.RESNET}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return vision_help.build(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def hub(root):
    hub = hub_help.Hub(root)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("vision-home")


@pytest.fixture(scope="module")
def models(hub, cache):
    with connected(hub, cache):
        return {kind: mi.load(name, device="cpu") for kind, name in NAMES.items()}


def theirs(root, kind):
    """transformers' own, with its own attention, and what its processor makes of PHOTO."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification, CLIPModel

    own = CLIPModel if kind == "clip" else AutoModelForImageClassification
    net = own.from_pretrained(root / REPOSITORY[kind], attn_implementation="eager").eval()
    pixels = AutoImageProcessor.from_pretrained(root / REPOSITORY[kind], use_fast=False)(PHOTO, return_tensors="pt").pixel_values  # fmt: skip
    return net, pixels


# ------------------------------------------------------------ what it gives
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_classifier_is_transformers_own(models, root, kind):
    """Another crop, scaling of colours or attention would explain a model that nobody uses."""
    net, pixels = theirs(root, kind)
    model = models[kind]
    with torch.no_grad():
        logits = net(pixels).logits
        torch.testing.assert_close(model.module(model.pixels(PHOTO)), logits, atol=1e-5, rtol=1e-5)
    assert isinstance(model, ImageModel) and model.world is None and model.name == NAMES[kind].split("/")[-1]
    assert model.predict([PHOTO, SCENE])[0] == net.config.id2label[int(logits.argmax())]
    assert torch.allclose(model(PHOTO), logits.softmax(-1), atol=1e-5)


def test_clip_is_transformers_own(models, root):
    """For pictures and queries of different lengths: what pads a query must change nothing."""
    from transformers import CLIPTokenizerFast

    net, pixels = theirs(root, "clip")
    tokenizer = CLIPTokenizerFast.from_pretrained(root / REPOSITORY["clip"])
    with torch.no_grad():
        logits = net(pixel_values=pixels, **tokenizer(QUERIES, padding=True, return_tensors="pt")).logits_per_image
    model = models["clip"]
    assert isinstance(model, ImageTextModel)
    torch.testing.assert_close(model(PHOTO, QUERIES) * net.logit_scale.exp().detach(), logits, atol=1e-5, rtol=1e-5)
    for i, query in enumerate(QUERIES):
        torch.testing.assert_close(model(PHOTO, query)[:, 0], model(PHOTO, QUERIES)[:, i], atol=1e-6, rtol=1e-6)
    assert model.words("a photograph of Bäume")[:3] == ["<|startoftext|>", "a", "photograph"]
    assert "".join(w.removesuffix("…") for w in model.words("Bäume")[1:-1]) == "b\ufffd\ufffdume"


def test_attention_patterns_and_their_gradients(models, root):
    """Relevance is made of these: transformers' own weights, each query's summing to 1, in both encoders."""
    net, pixels = theirs(root, "clip")
    p = problem(models["clip"], PHOTO, QUERIES[0])
    kept = []
    handles = [m.register_forward_hook(lambda m, a, o: kept.append(o)) for m in p.patterns]
    p.forward(p.x)
    [h.remove() for h in handles]
    with torch.no_grad():
        expected = net.vision_model(pixels, output_attentions=True).attentions
    for ours, own in zip(kept, expected, strict=True):
        torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)
    assert len(problem(models["clip"], QUERIES[0], PHOTO).patterns) == 2 and kept[0].shape == (1, 4, 17, 17)


CAPTUM = {
    "gradient": lambda f, x, b: attr.Saliency(f).attribute(x, abs=False)[0].abs().amax(0),
    "gradient_x_input": lambda f, x, b: attr.InputXGradient(f).attribute(x)[0].sum(0),
    "smoothgrad": lambda f, x, b: attr.NoiseTunnel(attr.Saliency(f)).attribute(x, nt_type="smoothgrad", nt_samples=32, stdevs=0.15 * float(x.max() - x.min()), abs=False)[0].abs().amax(0),
    "integrated_gradients": lambda f, x, b: attr.IntegratedGradients(f).attribute(x, b, n_steps=64)[0].sum(0),
    "gradient_shap": lambda f, x, b: attr.GradientShap(f).attribute(x, b, n_samples=64, stdevs=0.0)[0].sum(0),
    "occlusion": lambda f, x, b: attr.Occlusion(f).attribute(x, (3, 6, 6), (3, 3, 3), b)[0, 0],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", CAPTUM)
def test_equals_captum_called_directly(models, root, method):
    """On transformers' own network, written out: likeness to a query as a function of colours before normalisation."""
    from transformers import AutoImageProcessor, CLIPTokenizerFast

    net, pixels = theirs(root, "clip")
    processor = AutoImageProcessor.from_pretrained(root / REPOSITORY["clip"], use_fast=False)
    mean, std = (torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std))
    text = CLIPTokenizerFast.from_pretrained(root / REPOSITORY["clip"])(QUERIES[0], return_tensors="pt")
    toward = torch.nn.functional.normalize(net.get_text_features(**text).detach(), dim=-1)[0]

    def likeness(x):
        return torch.nn.functional.normalize(net.get_image_features((x - mean) / std), dim=-1) @ toward

    x = (pixels * std + mean).clamp(0, 1)
    torch.manual_seed(3)
    np.random.seed(3)
    expected = CAPTUM[method](likeness, x, torch.full_like(x, 0.5)).detach().numpy()
    found = attribute(models["clip"], PHOTO, QUERIES[0], method, "grey", seed=3).scores
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-5)
    assert np.abs(found).max() > 1e-4


def test_every_method_on_every_model(models):
    """What fits gives a map of the picture that the model sees; what does not says which fit; the model stays as it was."""
    refused = set()
    for kind, *args in (
        ("clip", PHOTO, QUERIES[0]),
        ("clip", QUERIES[0], PHOTO),
        ("vit", PHOTO, "tiger"),
        ("resnet", PHOTO, "tiger"),
    ):
        module = models[kind].module
        before = [(len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks)) for m in module.modules()]
        for method in METHODS:
            try:
                a = attribute(
                    models[kind],
                    *args,
                    method,
                    **({"samples": 8} if "samples" in METHODS[method].__code__.co_varnames else {}),
                )
            except SaliencyError as error:
                refused.add((kind, method))
                assert re.search(r"(has none|has none here): choose gradient, .* or \w+\.$", str(error)), error
                continue
            assert np.isfinite(a.scores).all() and np.abs(a.scores).max() > 0
            if a.picture:
                assert a.scores.shape == a.input.shape[:2] == (48, 48) and a.input.dtype == np.uint8
            else:
                assert a.input == ["<|startoftext|>", *QUERIES[0].split(), "<|endoftext|>"] and a.scores.shape == (7,)
        assert before == [
            (len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks)) for m in module.modules()
        ]
        assert all(p.grad is None for p in module.parameters())
    assert refused == {("clip", "guided_backprop"), ("vit", "guided_backprop"), *(("resnet", m) for m in ATTENTION)}


def test_the_map_lies_on_what_the_model_sees(models):
    """A map in other coordinates than the picture beside it points at the wrong thing."""
    picture = np.full((48, 96, 3), 128, np.uint8)
    picture[:, :24] = 255  # outside of the middle, which is all that CLIP sees
    assert (attribute(models["clip"], picture, "cat", "gradient").input == 128).all()
    vit = problem(models["vit"], picture, "tiger", "black")
    assert vit.shown.shape == (48, 48, 3) and (vit.shown[:, :11] == 255).all() and float(vit.baseline.max()) == 0
    a = attribute(
        models["vit"], np.full((48, 48, 3), 128, np.uint8), "tiger", "occlusion", np.full((9, 9, 3), 128, np.uint8)
    )
    assert np.abs(a.scores).max() < 1e-4, "a baseline is resized as the picture is"


def test_words_of_a_query(models):
    """Start and end token are there whatever is asked: in the baseline they stay, and no score is theirs to get."""
    a = attribute(models["clip"], QUERIES[0], PHOTO, "integrated_gradients")
    assert a.scores[0] == a.scores[-1] == 0 and abs(a.gap) < 1e-4
    assert attribute(models["clip"], QUERIES[0], PHOTO, "occlusion", "dog").baseline == "dog"
    p = problem(models["clip"], QUERIES[0], PHOTO)
    assert float(p.forward(p.x)) == pytest.approx(float(models["clip"](PHOTO, QUERIES[0])), abs=1e-6) and p.read == [6]


def test_scenes_score_a_real_clip(models):
    """The answer key of Scenes holds for any model that can be asked about its pictures, in the pixels that this model sees."""
    key = answer_keys(models["clip"], SCENE, SCENE.caption)
    assert all(mask.shape == (48, 48) for mask in key.masks.values())
    assert {"marker", "background"} < set(key.masks) and key.table.effect.notna().all()
    row = mi.saliency.scores(models["clip"], SCENE, SCENE.caption, "gradient_x_input", key=key)
    assert 0 <= row["mass"] <= 1 and np.isfinite(row["insertion"])
    absent = next(shape for shape in SHAPES if not any(shape in c for c in SCENE.captions))
    assert not answer_keys(models["clip"], SCENE, f"a {absent}").true_mask("world").any()
    with pytest.raises(SaliencyError, match="no world that knows"):
        answer_keys(models["clip"], "a circle", SCENE)


def test_gpt2_by_token(server, home):
    """The language model's side of the same switch."""
    with connected(server, home):
        gpt2 = mi.load("gpt2", device="cpu")
    prompt = "The capital of Texas is"
    a = attribute(gpt2, prompt, method="integrated_gradients")
    assert a.input == gpt2.words(gpt2.tokens(prompt)) and abs(a.gap) < 0.05 * max(1, abs(a.output - a.base))
    assert attribute(gpt2, prompt, method="relevance").scores.shape == a.scores.shape


# ------------------------------------------------------------------- faults
def test_any_repository_of_these_kinds(hub, cache, capsys):
    """Whoever has trained a ViT of their own gives its name; nothing is downloaded that is not said."""
    with connected(hub, cache):
        model = mi.load(vision_help.OWN, device="cpu")
        assert model.name == "cats-vit" and "Downloading somebody/cats-vit: 0.1 MB" in capsys.readouterr().out
        for fault, name, options in (
            ("a type of model that is not known", vision_help.BERT, {}),
            ("no trained classifier", vision_help.HEADLESS, {}),
            ("half precision", NAMES["vit"], {"dtype": "bfloat16"}),
        ):
            with pytest.raises(ModelError) as error:
                mi.load(name, device="cpu", **options)
            assert re.match(FAULTS[fault], str(error.value)), error.value
    assert not [path for _, path, *_ in hub.requests if "refs/pr/3" in path], "a stranger's weights were asked for"
    assert not [path for _, path, *_ in hub.requests if path.endswith(".bin")], "pickled weights were fetched"


def test_without_a_network(hub, cache, models, tmp_path, capsys):
    """A course room without a network uses the cache, or goes on with the model of Scenes and says why."""
    gone = types.SimpleNamespace(address="http://127.0.0.1:9")
    for offline in (True, False):
        with connected(gone, cache, offline=offline):
            again = mi.load(NAMES["clip"], device="cpu")
            torch.testing.assert_close(again(PHOTO, QUERIES), models["clip"](PHOTO, QUERIES))
    with connected(gone, tmp_path):
        assert mi.load(NAMES["clip"], otherwise="scenes-clip").name == "scenes-clip"
    assert re.match(
        r"The Hugging Face Hub cannot be reached, and openai/clip-vit.* Going on with scenes-clip\.",
        capsys.readouterr().out,
    )
    hub.fault, hub.corrupt = "corrupt", "model.safetensors"
    try:
        with (
            connected(hub, tmp_path / "new"),
            pytest.raises(
                ModelError, match="The file model.safetensors of google/vit-base-patch16-224 is damaged: delete"
            ),
        ):
            mi.load(NAMES["vit"], device="cpu")
    finally:
        hub.fault, hub.corrupt = "", ""


def test_bad_input_gets_a_sentence(models):
    """Thousand classes cannot be listed: the near ones are."""
    clip, vit = models["clip"], models["vit"]
    for call, said in (
        (lambda: attribute(vit, PHOTO, "cat"), FAULTS["a class like others"]),
        (lambda: attribute(vit, PHOTO, "zeppelin"), FAULTS["a class like no other"]),
        (lambda: attribute(vit, PHOTO, "golfish"), ".*did you mean 'goldfish, Carassius auratus'"),
        (lambda: vit.class_id("tigre"), ".*has no class 'tigre'; did you mean 'tiger'"),
        (lambda: attribute(vit, PHOTO, 99), "There is no target 99"),
        (lambda: attribute(vit, PHOTO.astype(float), "tiger"), FAULTS["another kind of array"]),
        (lambda: attribute(vit, PHOTO[..., 0], "tiger"), "Give one picture"),
        (lambda: attribute(vit, PHOTO, "tiger", "guided_backprop"), FAULTS["a method that does not fit"]),
        (lambda: attribute(vit, PHOTO, "tiger", "grad_cam", layer="conv9"), "There is no layer 'conv9'"),
        (lambda: clip("cat.jpg", "a cat"), r".*this one is \[\] of <U7. read_picture\(file\)"),
        (lambda: clip([PHOTO, PHOTO[:, :, :2]], "a cat"), r".*this one is \[70, 100, 2\]"),
        (lambda: clip(np.zeros((2, 500, 3), np.uint8), "a cat"), FAULTS["too narrow"]),
        (lambda: clip(PHOTO, ""), FAULTS["no query"]),
        (lambda: clip(PHOTO, "cat " * 20), FAULTS["a long query"]),
        (lambda: attribute(clip, QUERIES[0], PHOTO, "occlusion", "unheardof"), "There is no baseline 'unheardof'"),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert re.match(said, str(error.value)) and "\n" not in str(error.value), error.value
    assert clip([PHOTO, SCENE, PHOTO[:9]], QUERIES).shape == (3, 2), "pictures of different sizes"


def test_every_fault_is_tested():
    """The page of faults is made from this list: a sentence that no test has seen may be wrong."""
    text = Path(__file__).read_text()
    assert not [fault for fault in FAULTS if f'"{fault}"' not in text]
