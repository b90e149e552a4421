"""The two answer keys of saliency: what changes *this* model's number (the model key) and what should matter (the world key).

The model key is found without looking inside, by substitution: each object, marker or token is replaced by every other one that the world
would put there, all else the same. A method is faithful where it agrees with the model key, plausible where it agrees with the world
key; where the keys part, the model takes a shortcut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mi_workshop.models import Model
from mi_workshop.models.attention_rnn import PassageModel
from mi_workshop.models.small import ImageTextModel
from mi_workshop.show import Shown
from mi_workshop.worlds.passages import Passage
from mi_workshop.worlds.scenes import COLOURS, CUE_COLOURS, SHAPES, SIZES, Object, Scene

from .attribution import Attribution
from .inputs import Problem, SaliencyError, problem
from .methods import TOGETHER

BACKGROUNDS = 12  # others that a picture's background is replaced by: not all that there are
WORDS = (
    tuple(SIZES),
    tuple(COLOURS),
    SHAPES,
    ("above", "below"),
    ("left", "right"),
)  # of queries, that stand in for each other


@dataclass(eq=False)
class Key(Shown):
    """``table``, by part (an object, "marker", "background"; a token): ``effect``, the mean absolute change of the ``target`` under all
    ``substitutions`` (their number); ``signed``, the mean of what the number loses; ``matters``, the world key. ``masks``: where each part is."""

    table: pd.DataFrame
    masks: dict[str, np.ndarray] = field(repr=False)
    target: str
    model: str

    @property
    def strongest(self) -> str:
        """The part whose substitution changes the number most."""
        return str(self.table.effect.idxmax())

    def true_mask(self, key: str = "model") -> np.ndarray:
        """Pixels or tokens of the model key's strongest part, or of all parts that should matter (``"world"``)."""
        names = [self.strongest] if key == "model" else list(self.table.index[self.table.matters])
        return np.any([self.masks[name] for name in names], axis=0)

    def words(self) -> str:
        top = self.table.sort_values("effect", ascending=False).head(4)
        said = ", ".join(f"{name} {row.effect:.3g}{' (should)' if row.matters else ''}" for name, row in top.iterrows())
        return f"What changes the {self.target} in {self.model}, mean over all substitutions: {said}."

    def figure(self) -> Any:
        from .plots import draw_key

        return draw_key(self)


@torch.no_grad()
def answer_keys(model: Any, input: Any, target: Any = None) -> Key:
    """Both keys for what ``attribute(model, input, target)`` explains.

    Pictures of Scenes: objects take every other shape and colour that training shows, the marker every other colour, the background
    ``BACKGROUNDS`` others (there are too many for all). Passages: ``world.substitutions``. Prompts of Atlas: every other attribute of the place,
    every other city of the same kind, state or country. Queries: every other size, colour, shape or opposite relation. Where no
    other word could stand nothing is known: the effect is NaN. Raises SaliencyError where there is no world to ask.
    """
    p = problem(model, input, target)
    own = float(p.forward(p.x))
    if p.picture:
        if not isinstance(input, Scene):
            raise SaliencyError("Only a Scene knows its objects: the keys need one, not an array.")
        parts = list(_scene_parts(input, target if isinstance(model, ImageTextModel) else None))
        others = [(name, mask, matters, model.pixels(scenes)) for name, mask, matters, scenes in parts]
    else:
        n = len(p.shown)
        others = [
            (f"{p.shown[i]} [{i}]", np.arange(n) == i, matters, x) for i, (matters, x) in enumerate(_tokens(model, p, input, target))
        ]  # fmt: skip
    rows, masks = {}, {}
    for name, mask, matters, x in others:
        numbers = _numbers(p, x)
        change = own - numbers if len(numbers) else np.full(1, np.nan)
        rows[name] = {
            "effect": abs(change).mean(), "signed": change.mean(), "matters": matters, "substitutions": len(numbers)
        }  # fmt: skip
        masks[name] = mask
    return Key(pd.DataFrame(rows).T.astype({"effect": float, "signed": float, "matters": bool, "substitutions": int}), masks, p.target, p.model)  # fmt: skip


def _numbers(p: Problem, x: Tensor | np.ndarray) -> np.ndarray:
    """The number for each row of pixels or embeddings; numbers are passed on."""
    if isinstance(x, np.ndarray):
        return x
    return np.concatenate([p.forward(rows).cpu().numpy() for rows in x.split(TOGETHER)] or [np.zeros(0)])


def _scene_parts(scene: Scene, query: str | None) -> Iterator[tuple[str, np.ndarray, bool, list[Scene]]]:
    """Name, mask, whether it should matter, and all substitutions of each part of a picture."""
    seen: list[str] = []
    for o in scene.objects:
        name = o.phrases()[0][2:]
        seen.append(name)
        again = f" ({seen.count(name)})" if seen.count(name) > 1 else ""
        yield name + again, scene.mask(o), _matters(scene, o, query), list(scene.substitutions(o))
    yield "marker", scene.cue_mask, False, [scene.with_cue(c) for c in CUE_COLOURS if c != scene.cue]
    covered = np.any([scene.cue_mask, *map(scene.mask, scene.objects)], axis=0)
    yield "background", ~covered, False, [dataclasses.replace(scene, seed=i) for i in range(BACKGROUNDS)]


def _matters(scene: Scene, o: Object, query: str | None) -> bool:
    """For classifiers the large object, for a query the objects that it speaks of."""
    return o == scene.target if query is None else any(phrase in query.lower() for phrase in o.phrases())


def _tokens(model: Any, p: Problem, input: Any, target: Any) -> Iterator[tuple[bool, Tensor | np.ndarray]]:
    """For each token whether it should matter, and what the model reads (or the number itself) for each substitution."""
    words = list(p.shown)
    if isinstance(model, PassageModel):
        passage = input if isinstance(input, Passage) else model.world.parse(input)
        for i in range(len(words)):
            others = list(model.world.substitutions(passage, i))
            if model.guide:  # its weights change with the passage
                each = [problem(model, q, target) for q in others]
                yield i in passage.evidence, np.array([float(q.forward(q.x)) for q in each])
            else:
                yield i in passage.evidence, model.module.embed(model.tokens(others)[0]) if others else np.zeros(0)
    elif isinstance(model, ImageTextModel):
        for i, word in enumerate(words):
            queries = [" ".join([*words[:i], w, *words[i + 1 :]]) for group in WORDS if word in group for w in group if w != word]  # fmt: skip
            said = isinstance(target, Scene) and any(q not in target.captions for q in queries)
            yield said, model.module.words(model.tokens(queries)) if queries else np.zeros(0)
    elif isinstance(model, Model) and model.world is not None:
        yield from _atlas_tokens(model, words, input)
    else:
        raise SaliencyError(f"There is no world that knows what else {p.model} could have been told: no keys.")


def _atlas_tokens(model: Model, words: list[str], prompt: str) -> Iterator[tuple[bool, Tensor | np.ndarray]]:
    world: Any = model.world
    slots, needed = world.parse(prompt).slots, world.depends_on(prompt)
    place = world.home[slots["city"]] if "city" in slots else world.places.get(slots.get("place"))
    if place is None:
        raise SaliencyError("The keys are known for questions about the attribute of a place or a city's place.")
    for i, word in enumerate(words):
        slot = next((s for s, w in slots.items() if w == word), None)
        if slot == "attribute":
            others = list(place.attributes)
        elif slot == "city":
            others = [c for c, home in world.home.items() if home.kind == place.kind]
        elif slot == "place":
            others = [name for name, p in world.places.items() if p.kind == place.kind]
        else:
            others = ["state", "country"] if slot == "kind" else []
        rows = [model.tokens(prompt.replace(word, w)) for w in others if w != word]
        yield i in needed, model.replacement.embed(torch.stack(rows)) if rows else np.zeros(0)


def by_part(a: Attribution, key: Key, per_pixel: bool = False) -> pd.Series:
    """The absolute sum of the scores over each part of a key, or (``per_pixel``) the absolute mean."""
    return pd.Series({name: abs(float(a.scores[mask].sum())) / (mask.sum() if per_pixel else 1) for name, mask in key.masks.items()})  # fmt: skip
