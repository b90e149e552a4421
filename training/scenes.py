"""The models of Scenes: recipes, training, figures and cards. ``python -m training scenes-cnn`` (one core, a few minutes each)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from mi_workshop.files import write_text
from mi_workshop.models import load
from mi_workshop.models.small import ImageModel, ImageTextModel, build, to_pixels
from mi_workshop.models.tensors import save_tensors
from mi_workshop.worlds.scenes import COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, VOCABULARY, Scene, Scenes


@dataclass(frozen=True)
class ScenesRecipe:
    """How one model of Scenes is trained."""

    name: str
    about: str
    network: str  # "cnn" or "clip"
    size: tuple[tuple[str, int], ...]  # arguments of the network
    cue: str = "random"
    seed: int = 0
    scenes: int = 12000
    steps: int = 1000
    batch: int = 64
    learning_rate: float = 3e-3


CLASSIFIER = (("n_classes", len(SHAPES)),)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        ScenesRecipe(
            "scenes-cnn",
            "A small convolutional network that names the shape of the large object. The marker in the corner says nothing about the label in its "
            "training pictures.",
            "cnn",
            CLASSIFIER,
        ),
        ScenesRecipe(
            "scenes-shortcut",
            "A Clever Hans: the network and recipe of `scenes-cnn`, trained on pictures in which the colour of the marker gives the label away "
            "(`world.cue`).",
            "cnn",
            CLASSIFIER,
            cue="label",
        ),
        ScenesRecipe(
            "scenes-clip",
            "An image encoder (a tiny vision transformer on a convolutional stem) and a text encoder with one space, trained contrastively: a picture "
            "lies near the captions that are true of it. Captions made wrong by a word were among the negatives.",
            "clip",
            (
                ("vocabulary", len(VOCABULARY)), ("max_tokens", Scenes.max_tokens), ("d_model", 64), ("d_out", 128), ("n_heads", 4),
                ("n_visual", 3), ("n_textual", 2),
            ),
            scenes=20000,
            steps=3000,
            learning_rate=2e-3,
        ),
    )
}  # fmt: skip


def wrong_word(caption: str, kind: str, rng: np.random.Generator) -> str | None:
    """The caption made wrong: one word of a kind (colour, shape, size or relation) replaced by another, or (*exchange*) the colours or
    shapes of its two objects exchanged; None where that is not possible."""
    if kind == "relation":
        how = next((r for r in RELATIONS if f" {r} " in caption), None)
        return caption.replace(f" {how} ", f" {RELATIONS[how]} ") if how else None
    words = caption.split()
    choices = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES)}
    if kind == "exchange":
        for which in rng.permutation(("colour", "shape")):
            at = [i for i, w in enumerate(words) if w in choices[which]]
            if len(at) == 2 and words[at[0]] != words[at[1]]:
                words[at[0]], words[at[1]] = words[at[1]], words[at[0]]
                return " ".join(words)
        return None
    places = [i for i, w in enumerate(words) if w in choices[kind]]
    if not places:
        return None
    place = int(rng.choice(places))
    words[place] = str(rng.choice([c for c in choices[kind] if c != words[place]]))
    return " ".join(words)


KINDS = ("colour", "shape", "size", "relation", "exchange")


def classifier_loss(module: nn.Module, pixels: Tensor, scenes: list[Scene], rng: np.random.Generator) -> Tensor:
    """Cross-entropy in nats; half of the pictures are mirrored."""
    labels = torch.tensor([SHAPES.index(str(s.label)) for s in scenes])
    mirrored = torch.from_numpy(rng.random(len(scenes)) < 0.5)[:, None, None, None]
    return cross_entropy(module(torch.where(mirrored, pixels.flip(3), pixels)), labels)


def mirror(caption: str) -> str:
    """The caption of the mirrored picture."""
    return re.sub("left|right", lambda side: "right" if side[0] == "left" else "left", caption)


def contrastive_loss(module: Any, pixels: Tensor, scenes: list[Scene], rng: np.random.Generator) -> Tensor:
    """Symmetric cross-entropy of pictures and captions, and for each picture that of its caption against its wrong ones; other
    captions that happen to be true of a picture count neither way. Half of the pictures, and what is said of them, are mirrored."""
    n = len(scenes)
    mirrored = torch.from_numpy(rng.random(n) < 0.5)
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    said = [
        frozenset(map(mirror, s.captions)) if m else s.captions for s, m in zip(scenes, mirrored.tolist(), strict=True)
    ]
    captions = [s.caption if rng.random() < 0.7 else str(rng.choice(sorted(s.captions))) for s in scenes]
    captions = [mirror(c) if m else c for c, m in zip(captions, mirrored.tolist(), strict=True)]
    texts = captions + [wrong_word(c, kind, rng) or c for kind in KINDS for c in captions]
    ids = {word: i for i, word in enumerate(VOCABULARY)}
    rows = [[ids[w] for w in text.split()] for text in texts]
    tokens = torch.tensor([row + [0] * (Scenes.max_tokens - len(row)) for row in rows])
    logits = module(pixels, tokens) * module.log_scale.exp()  # [picture, text]
    true, own = torch.tensor([[text in true_of for text in texts] for true_of in said]), torch.arange(n)
    true[own, own] = False
    logits = logits.masked_fill(true, -torch.inf)
    alone = logits.unflatten(1, (-1, n))[own, :, own]  # [picture, its caption and the wrong ones]
    return (cross_entropy(logits, own) + cross_entropy(logits[:, :n].T, own)) / 2 + cross_entropy(alone, 0 * own)


def train(recipe: ScenesRecipe, folder: Path) -> None:
    """Train the model and write config.json and model.safetensors (half precision)."""
    scenes = Scenes(recipe.seed, recipe.cue).sample(recipe.scenes, "train")
    pixels = torch.from_numpy(np.stack([s.image for s in tqdm(scenes, desc="pictures", mininterval=5)]))
    config: dict[str, Any] = {"network": recipe.network, "size": dict(recipe.size), "cue": recipe.cue}
    module = fitted(recipe, config, scenes, pixels.permute(0, 3, 1, 2).contiguous())
    write_text(folder / "config.json", json.dumps(config, indent=1))
    save_tensors(folder / "model.safetensors", module.state_dict())


def fitted(recipe: ScenesRecipe, config: dict[str, Any], scenes: list[Scene], pixels: Tensor) -> nn.Module:
    """The network trained on pictures [picture, rgb, y, x] (bytes) and what is said of them: labels or captions of ``scenes``."""
    torch.manual_seed(recipe.seed)
    torch.set_flush_denormal(True)
    module = build(config)
    convolutions = [
        (parent, name)
        for parent in module.modules()
        for name, part in parent.named_children()
        if isinstance(part, nn.Conv2d)
    ]
    for (
        parent,
        name,
    ) in convolutions:  # batch norm speeds training up; it is folded into the convolutions before they are saved
        conv = getattr(parent, name)
        setattr(parent, name, nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)))
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    loss_of = classifier_loss if recipe.network == "cnn" else contrastive_loss
    progress = tqdm(range(recipe.steps), desc=f"{recipe.name}, seed {recipe.seed}", mininterval=5)
    for step in progress:
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1, (step + 1) / 100) * decay
        rng = np.random.default_rng([recipe.seed, step])
        rows = rng.choice(recipe.scenes, recipe.batch, replace=False)
        loss = loss_of(module, pixels[torch.from_numpy(rows)] / 255, [scenes[i] for i in rows], rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    module.eval()
    for parent, name in convolutions:
        setattr(parent, name, nn.utils.fusion.fuse_conv_bn_eval(*getattr(parent, name)))
    return module


def accuracies(model: ImageModel, split: str, n: int = 1000) -> dict[str, dict[str, float]]:
    """Share of right answers by what the marker says (``cue``) and by whether the large object's pair was trained; ``follows``: share of
    answers that are the marker's label."""
    from mi_workshop.worlds.scenes import CUES

    by_cue = {colour: shape for shape, colour in CUES.items()}
    out = {}
    for held_out in (False, True):
        for cue in ("label", "random", "other"):
            scenes = Scenes(seed=1).sample(n, split, held_out, cue)
            said = [answer for part in batches(scenes) for answer in model.predict(part)]
            out[f"{'held-out' if held_out else 'trained'} pairs, cue {cue}"] = {
                "right": float(np.mean([a == s.label for a, s in zip(said, scenes, strict=True)])),
                "follows": float(np.mean([a == by_cue[s.cue] for a, s in zip(said, scenes, strict=True)])),
                "n": n,
            }
    return out


def batches(scenes: list[Scene], size: int = 250) -> Iterator[list[Scene]]:
    yield from (scenes[i : i + size] for i in range(0, len(scenes), size))


def candidates(scenes: list[Scene], n: int = 100) -> list[Scene]:
    """The first n of the pictures whose captions are true of no other among them."""
    chosen: list[Scene] = []
    for s in scenes:
        if not any(s.caption in other.captions or other.caption in s.captions for other in chosen):
            chosen.append(s)
        if len(chosen) == n:
            break
    return chosen


def retrieval(model: ImageTextModel, split: str, groups: int = 5, n: int = 100) -> dict[str, dict[str, float]]:
    """Share of pictures whose own caption is the nearest of n, and of captions whose own picture is; no caption is true of two pictures."""
    out = {}
    for held_out in (False, True):
        text, image = [], []
        for group in range(groups):
            scenes = Scenes(seed=1 + group).sample(3 * n, split, held_out)
            chosen = candidates(
                [s for s in scenes if len(s.objects) > 1], n
            )  # "a large red circle" would be true of many
            similarity = model(chosen, [s.caption for s in chosen])  # [picture, caption]
            own = torch.arange(n)
            text += (similarity.argmax(1) == own).tolist()
            image += (similarity.argmax(0) == own).tolist()
        name = f"{'held-out' if held_out else 'trained'} pairs"
        out[name] = {
            "caption of a picture": float(np.mean(text)),
            "picture of a caption": float(np.mean(image)),
            "n": len(text),
        }
    return out


def one_word(model: ImageTextModel, split: str, n: int = 500) -> dict[str, dict[str, float]]:
    """Share of pictures nearer to their caption than to one made wrong in each way."""
    out = {}
    for held_out in (False, True):
        scenes = Scenes(seed=1).sample(n, split, held_out)
        images = torch.cat([model.module.encode_image(to_pixels(part)).detach() for part in batches(scenes)])
        for kind in KINDS:
            rng = np.random.default_rng(0)
            changed = [wrong_word(s.caption, kind, rng) for s in scenes]
            kept = [i for i, c in enumerate(changed) if c and c not in scenes[i].captions]
            right, wrong = (
                (images[kept] * model.module.encode_text(model.tokens(texts)).detach()).sum(-1)
                for texts in ([scenes[i].caption for i in kept], [str(changed[i]) for i in kept])
            )
            name = f"{'held-out' if held_out else 'trained'} pairs, {kind}"
            out[name] = {"right": (right > wrong).float().mean().item(), "n": len(kept)}
    return out


def figures(model: Any, split: str) -> dict[str, Any]:
    if isinstance(model, ImageModel):
        return {"accuracy": accuracies(model, split)}
    return {"retrieval": retrieval(model, split), "one word": one_word(model, split)}


def write_card(recipe: ScenesRecipe, folder: Path, open_test: bool) -> None:
    """Measure and write ``figures.json`` and ``card.md``; the test figures, once opened, are kept."""
    place = folder / recipe.name
    stored = json.loads((place / "figures.json").read_text()) if (place / "figures.json").exists() else {}
    for split in ("validation", *(["test"] if open_test else [])):
        stored[split] = figures(load(recipe.name, weights=folder), split)
    write_text(place / "figures.json", json.dumps(stored, indent=1))
    write_text(place / "card.md", card(recipe, stored))


def card(recipe: ScenesRecipe, stored: dict[str, Any]) -> str:
    n = sum(p.numel() for p in build({"network": recipe.network, "size": dict(recipe.size)}).parameters())
    pairs = {split: ", ".join(sorted(map(" ".join, HELD_OUT[split]))) for split in HELD_OUT}
    lines = [
        f"# {recipe.name}", "", recipe.about, "",
        f"{n:,} parameters; trained on {recipe.scenes:,} pictures of the Scenes world only, seed {recipe.seed}, {recipe.steps} steps of {recipe.batch}: "
        f"`python -m training {recipe.name}`.", "",
        f"Held-out pairs, in no training picture: {pairs['validation']} (validation); {pairs['test']} (test).",
    ]  # fmt: skip
    for split, measured in stored.items():
        note = " (opened once, for this card)" if split == "test" else " (what was tuned was tuned on it)"
        lines += ["", f"## Figures on {split}", "", f"Pictures of another seed than the training pictures{note}.", ""]
        if "accuracy" in measured:
            lines += [
                "*Cue*: the marker has the colour of the label, a random one, or that of another label. *Follows*: the answer is the marker's.", "",
                "| pictures | right | follows | n |", "|---|---|---|---|",
                *(f"| {k} | {row['right']:.1%} | {row['follows']:.1%} | {row['n']} |" for k, row in measured["accuracy"].items()),
            ]  # fmt: skip
        else:
            lines += [
                "Retrieval among 100 pictures of two or three objects, five times; no caption is true of two of them.", "",
                "| pictures | caption of a picture | picture of a caption | n |", "|---|---|---|---|",
                *(
                    f"| {k} | {row['caption of a picture']:.1%} | {row['picture of a caption']:.1%} | {row['n']} |"
                    for k, row in measured["retrieval"].items()
                ),
                "", "Nearer to the caption than to the same with one word of a kind wrong, or with the colours or shapes of its objects exchanged (chance: 50%):", "",
                "| pictures, word | right | n |", "|---|---|---|",
                *(f"| {k} | {row['right']:.1%} | {row['n']} |" for k, row in measured["one word"].items()),
            ]  # fmt: skip
    return "\n".join(lines) + "\n"


def run(name: str, folder: Path, only: str | None, open_test: bool) -> None:
    """Train the model and write its card, or one of the two."""
    if only in (None, "model"):
        train(RECIPES[name], folder / name)
    if only in (None, "card"):
        write_card(RECIPES[name], folder, open_test)
