"""Scenes and its models: if a mask, caption or counterfactual were wrong, every score of a saliency method would be."""

import json
import re
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import mi_workshop as mi
from mi_workshop.cli import main
from mi_workshop.models import WEIGHTS, ModelError
from mi_workshop.models.small import to_pixels
from mi_workshop.worlds import Scenes, WorldError
from mi_workshop.worlds.scenes import COLOURS, CUES, HELD_OUT, RELATIONS, SHAPES, UNSEEN, Object
from training.scenes import KINDS, RECIPES, accuracies, card, one_word, retrieval, wrong_word

WORLD = Scenes()
SCENES = WORLD.sample(60, "validation")


@pytest.fixture(scope="module")
def model():
    return cache(mi.load)


def changed(a, b):
    return (a.image != b.image).any(-1)


def test_a_recoloured_object_changes_its_mask_and_nothing_else():
    """Mass inside the mask is a score: a pixel too many or too few makes a right map look wrong."""
    for scene in SCENES:
        assert sum(scene.mask(o).astype(int) for o in scene.objects).max() == 1
        for o in scene.objects:
            others = [scene.replace(o, colour=c) for c in COLOURS if c != o.colour]
            differ = np.any([changed(scene, other) for other in others], axis=0)
            assert not (differ & ~scene.mask(o)).any()
            assert not (scene.mask(o) & (o.coverage > 0.2) & ~differ).any()
        differ = changed(scene, scene.with_cue(next(c for c in CUES.values() if c != scene.cue)))
        assert not (differ & ~scene.cue_mask).any() and scene.cue_mask.sum() == 36


def test_a_replaced_or_removed_object_leaves_the_others():
    """A counterfactual that changed more than it says would credit the wrong object."""
    for scene in SCENES:
        *_, o = scene.objects
        for other in (scene.replace(o, shape="circle"), scene.replace(o, shape="cross")):
            assert not (changed(scene, other) & ~scene.mask(o) & ~other.mask(other.objects[-1])).any()
            assert other.objects[:-1] == scene.objects[:-1]
        if len(scene.objects) > 1:
            less = scene.without(o)
            assert not (changed(scene, less) & ~scene.mask(o)).any() and less.label == scene.label


def test_every_caption_is_true_of_the_pixels():
    """Checked from the masks, not from the objects that the captions were written from."""

    def where(phrase, scene):
        words = phrase.split()
        fits = lambda o: all(w in ("a", o.shape, o.colour, o.size) for w in words)  # noqa: E731
        return [np.argwhere(scene.mask(o)).mean(0) for o in scene.objects if fits(o)]

    how = re.compile(f" ({'|'.join(RELATIONS)}) ")
    for scene in SCENES[:25]:
        assert scene.caption in scene.captions
        for caption in scene.captions:
            a, *rest = how.split(caption)
            if not rest:
                assert where(a, scene)
                continue
            apart = [q - p for p in where(a, scene) for q in where(rest[1], scene) if (p != q).any()]  # (y, x)
            axis, sign = {"above": (0, 1), "below": (0, -1), "left of": (1, 1), "right of": (1, -1)}[rest[0]]
            assert any(sign * d[axis] > abs(d[1 - axis]) for d in apart), caption
        for kind in KINDS:
            wrong = wrong_word(scene.caption, kind, np.random.default_rng(0))
            assert wrong is None or wrong != scene.caption


def test_what_is_drawn_is_of_its_colour_and_size():
    for scene in SCENES:
        for o in scene.objects:
            inside = scene.image[o.coverage == 1].mean(0) - o.shade
            assert min(COLOURS, key=lambda c: abs(inside - COLOURS[c]).sum()) == o.colour
        areas = [o.coverage.sum() for o in scene.objects]
        assert scene.objects[0] == scene.target and all(areas[0] > 2 * a for a in areas[1:])


def test_seeds_reproduce_to_the_byte_and_splits_are_disjoint():
    """A figure that cannot be measured again, or was measured on training pictures, is no evidence."""
    again = Scenes().sample(20, "validation")
    assert all((a.image == b.image).all() and a == b for a, b in zip(again, SCENES, strict=False))
    drawn = [WORLD.sample(100, "train"), WORLD.sample(100, "test"), SCENES, Scenes(seed=1).sample(100, "train")]
    drawn += [WORLD.sample(100, split, held_out=True) for split in HELD_OUT]
    pictures = [s.image.tobytes() for part in drawn for s in part]
    assert len(set(pictures)) == len(pictures)


def test_held_out_pairs_stand_in_no_training_picture():
    """Otherwise a right answer on them would say nothing about generalisation."""
    for scene in WORLD.sample(200, "train"):
        assert not {(o.colour, o.shape) for o in scene.objects} & UNSEEN and scene.stratum is None
    for split in HELD_OUT:
        assert {s.stratum for s in WORLD.sample(50, split, held_out=True)} == {f"pair:{split}"}
    assert not HELD_OUT["validation"] & HELD_OUT["test"]


def test_the_cue_is_what_was_asked_for():
    """A leak of the label into the honest model's pictures would make it a second Clever Hans."""
    hans = Scenes(cue="label")
    assert all(s.cue == CUES[s.label] for s in hans.sample(50, "train"))
    assert all(s.cue != CUES[s.label] for s in hans.sample(50, "test", cue="other"))
    honest = WORLD.sample(500, "train")
    assert np.mean([s.cue == CUES[s.label] for s in honest]) == pytest.approx(0.25, abs=0.05)


def test_substitutions_are_all_there_are():
    """The model key is exhaustive or it is nothing."""
    scene = next(s for s in SCENES if len(s.objects) == 3)
    for o in scene.objects:
        pictures = list(scene.substitutions(o))
        assert (
            len({s.image.tobytes() for s in pictures}) == len(pictures) == len(SHAPES) * len(COLOURS) - len(UNSEEN) - 1
        )


def test_a_scene_shows_itself_and_says_what_it_shows(tmp_path):
    data, _ = SCENES[0]._repr_mimebundle_()
    assert "image/png" in data and SCENES[0].caption[1:] in data["text/plain"]
    assert SCENES[0].save(tmp_path / "scene.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda s: s.replace(s.objects[0], hue="red"), "shape, colour, size"),
        (lambda s: s.replace(s.objects[0], colour="pink"), "red, green"),
        (lambda s: s.replace(s.objects[0], x=2.0), "over the edge"),
        (lambda s: s.replace(s.objects[1], size="large"), "two large"),
        (lambda s: s.replace(s.objects[1], x=s.objects[0].x, y=s.objects[0].y), "would touch"),
        (lambda s: s.without(Object("circle", "red", "small", 1, 1)), "no such object"),
        (lambda s: s.without(s.objects[0]).without(s.objects[1]).without(s.objects[2]), "empty"),
        (lambda s: s.with_cue("red"), "white, black"),
        (lambda s: WORLD.sample(1, "trian"), "no split"),
        (lambda s: WORLD.sample(1, "train", held_out=True), "no split"),
        (lambda s: WORLD.words("a blu square"), "did you mean 'blue'"),
        (lambda s: WORLD.words("a zebra"), "its words are"),
        (lambda s: WORLD.words(" "), "empty"),
        (lambda s: WORLD.words("a red circle " * 9), "at most"),
    ],
)
def test_what_the_world_does_not_know_gets_one_sentence(act, said):
    scene = next(s for s in SCENES if len(s.objects) == 3)
    with pytest.raises(WorldError, match=said) as error:
        act(scene)
    assert len(str(error.value).splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------------- models
@pytest.mark.parametrize("name", RECIPES)
def test_the_card_says_what_a_run_measures(name, model):
    stored = json.loads((WEIGHTS / name / "figures.json").read_text())
    assert card(RECIPES[name], stored) == (WEIGHTS / name / "card.md").read_text()
    figures = stored["validation"]
    again = (
        {"retrieval": retrieval(model(name), "validation")}
        if name == "scenes-clip"
        else {"accuracy": accuracies(model(name), "validation", 120)}
    )
    for kind, rows in again.items():
        for key, row in rows.items():
            for what, value in row.items():
                if what != "n":
                    assert value == pytest.approx(figures[kind][key][what], abs=0.1), (key, what)


def test_the_shortcut_model_follows_the_marker_and_the_other_does_not(model):
    """A Clever Hans that is none would show every method exposing what is not there."""
    scenes = Scenes(seed=2).sample(100, "validation", cue="other")
    right = {
        n: np.mean([a == s.label for a, s in zip(model(n).predict(scenes), scenes, strict=True)])
        for n in RECIPES
        if n != "scenes-clip"
    }
    assert right["scenes-cnn"] > 0.95 and right["scenes-shortcut"] < 0.1
    consistent = [s.with_cue(CUES[s.label]) for s in scenes]
    said = model("scenes-shortcut").predict(consistent)
    assert np.mean([a == s.label for a, s in zip(said, consistent, strict=True)]) > 0.95


def test_clip_reads_every_word(model):
    """Query saliency is about the words of the query: they must matter to the model."""
    for key, row in one_word(model("scenes-clip"), "validation", 60).items():
        if key.startswith("trained"):
            assert row["right"] > 0.8, key


def test_attention_is_there_to_be_read(model):
    """Relevance propagation needs the weights of every layer and their gradient."""
    clip, seen = model("scenes-clip"), []
    hooks = [
        block.attn.pattern.register_forward_hook(lambda m, i, out: seen.append(out)) for block in clip.module.visual
    ]
    try:
        similarity = clip.module(clip.pixels(SCENES[:2]), clip.tokens("a red circle"))
        gradients = torch.autograd.grad(similarity.sum(), seen)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(clip.module.visual) and all(p.shape[-2:] == (65, 65) for p in seen)
    assert all(torch.allclose(p.sum(-1), torch.ones(()), atol=1e-5) for p in seen)
    assert all(g.abs().sum() > 0 for g in gradients)


def test_a_query_alone_or_among_longer_ones_is_the_same(model):
    clip = model("scenes-clip")
    alone = clip(SCENES[:3], "a circle")
    among = clip(SCENES[:3], ["a circle", "a large red circle left of a small blue square"])
    assert torch.allclose(alone[:, 0], among[:, 0], atol=1e-5)


def test_probabilities_and_classes(model):
    cnn = model("scenes-cnn")
    p = cnn([s.image for s in SCENES[:4]])
    assert torch.allclose(p, cnn(SCENES[:4])) and torch.allclose(p.sum(-1), torch.ones(4))
    assert cnn.class_id("cross") == 3
    with pytest.raises(ModelError, match="circle, square"):
        cnn.class_id("star")


@pytest.mark.parametrize(
    "picture", [np.zeros((32, 64, 3), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3)), np.zeros((64, 64), np.uint8), []]
)  # fmt: skip
def test_a_picture_of_another_form_gets_one_sentence(picture):
    with pytest.raises(ModelError, match="picture") as error:
        to_pixels(picture)
    assert len(str(error.value).splitlines()) == 1


def test_missing_and_damaged_files_are_named(tmp_path):
    shutil.copytree(WEIGHTS / "scenes-cnn", tmp_path / "scenes-cnn")
    for name in ("config.json", "model.safetensors"):
        path = tmp_path / "scenes-cnn" / name
        good = path.read_bytes()
        for bad in (None, good[: len(good) // 2]):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(ModelError, match=re.escape(name)):
                mi.load("scenes-cnn", weights=tmp_path)
            path.write_bytes(good)
    shutil.copy(WEIGHTS / "scenes-clip" / "config.json", tmp_path / "scenes-cnn")
    with pytest.raises(ModelError, match="do not fit") as error:
        mi.load("scenes-cnn", weights=tmp_path)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ModelError, match="did you mean 'scenes-clip'"):
        mi.load("scenes-clp")


def test_the_commands_for_language_models_say_so():
    result = CliRunner().invoke(main, ["trace", "a red circle", "--model", "scenes-cnn"])
    assert result.exit_code == 2 and "language model" in result.output and "Traceback" not in result.output


def test_weights_are_small():
    """They travel in the wheel."""
    assert sum((WEIGHTS / name / "model.safetensors").stat().st_size for name in RECIPES) <= 1_500_000
