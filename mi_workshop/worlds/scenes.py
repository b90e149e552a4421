"""Scenes: 64×64 pictures of coloured shapes that know their captions, masks and counterfactuals.

A picture has one large object and up to two small ones on a textured, noisy background, and a marker in one corner. Its label is the
shape of the large object (``target``); nothing else in the picture matters for it. The colour of the marker is the *cue*: it is
independent of the label, or (``cue="label"``) gives it away: the spurious cue that a Clever Hans learns.

Pairs of a colour and a shape are held out of training (``HELD_OUT``): no object of a training picture, large or small, has such a pair.
With ``held_out=True`` the large object of every picture has a pair held out for that split.

Everything is drawn with numpy from a seed; a picture's background depends on the picture's seed only, so that a counterfactual
differs from its original inside the masks of what was changed, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mi_workshop.show import Shown
from mi_workshop.worlds.atlas import WorldError

SIDE = 64  # pixels
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (208, 52, 44), "green": (52, 160, 70), "blue": (48, 86, 200), "yellow": (226, 202, 56),
    "purple": (142, 62, 170), "orange": (232, 134, 40),
}  # fmt: skip
SIZES = {"small": 5.5, "large": 10.5}  # radius in pixels of the circle; the other shapes have about its area
CUES = dict(
    zip(SHAPES, ("white", "black", "pink", "cyan"), strict=True)
)  # the marker's colour that belongs to each label
CUE_COLOURS = {"white": (250, 250, 250), "black": (10, 10, 10), "pink": (250, 150, 200), "cyan": (80, 225, 225)}
RELATIONS = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
SPLITS = ("train", "validation", "test")
HELD_OUT = {  # pairs of a colour and a shape that no training picture shows; one for each shape, none shares its colour
    "validation": frozenset({("red", "circle"), ("blue", "triangle")}),
    "test": frozenset({("green", "square"), ("yellow", "cross")}),
}
UNSEEN = HELD_OUT["validation"] | HELD_OUT["test"]
VOCABULARY = ("<pad>", "a", *SIZES, *COLOURS, *SHAPES, "above", "below", "left", "right", "of")
_MARKER, _INSET, _REACH = 6, 2, 1.4  # px, px, and how far a shape reaches in units of its radius


def _stretch(n: int) -> Float[np.ndarray, "pixel knot"]:
    """Linear interpolation from n knots to ``SIDE`` pixels, as a matrix."""
    at = np.linspace(0, n - 1, SIDE)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(n)))


_COARSE, _FINE = _stretch(5), _stretch(17)
_Y, _X = np.mgrid[:SIDE, :SIDE].astype(float)


@dataclass(frozen=True)
class Object:
    """One shape: centre (``x``, ``y``) in pixels from the top left, ``angle`` in radians, ``scale`` of its radius and ``shade`` (added to its
    colour) as drawn."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    angle: float = 0.0
    scale: float = 1.0
    shade: int = 0

    @property
    def radius(self) -> float:
        return SIZES[self.size] * self.scale

    @property
    def coverage(self) -> Float[np.ndarray, "y x"]:
        """Share of each pixel that the object covers (its edge is anti-aliased)."""
        c, s, r = np.cos(self.angle), np.sin(self.angle), self.radius
        u, v = c * (_X - self.x) + s * (_Y - self.y), c * (_Y - self.y) - s * (_X - self.x)
        if self.shape == "circle":
            distance = np.sqrt(u * u + v * v) - r
        elif self.shape == "square":
            distance = np.maximum(abs(u), abs(v)) - 0.89 * r
        elif self.shape == "triangle":  # three half-planes at the inradius, half of the reach
            slope = np.sqrt(3) / 2
            distance = np.maximum(v, np.maximum(slope * u - v / 2, -slope * u - v / 2)) - _REACH / 2 * r
        else:
            bars = [np.maximum(abs(a) - 1.15 * r, abs(b) - 0.42 * r) for a, b in ((u, v), (v, u))]
            distance = np.minimum(*bars)
        return np.clip(0.5 - distance, 0, 1)

    def phrases(self) -> list[str]:
        """The noun phrases that fit it, the fullest first: "a small red circle", "a red circle", "a small circle", "a circle"."""
        return [f"a {size}{colour}{self.shape}" for colour in (f"{self.colour} ", "") for size in (f"{self.size} ", "")]


def relation(a: Object, b: Object) -> str | None:
    """Where ``a`` is, seen from ``b``: a key of ``RELATIONS``, or None where two would do (neither distance is 1.5 times the other)."""
    dx, dy = a.x - b.x, a.y - b.y
    if max(abs(dx), abs(dy)) < 1.5 * min(abs(dx), abs(dy)):
        return None
    if abs(dy) > abs(dx):
        return "above" if dy < 0 else "below"
    return "left of" if dx < 0 else "right of"


@dataclass(frozen=True)
class Scene(Shown):
    """One picture, which shows itself in a notebook.

    ``objects``: as drawn, the large one first; ``cue``: the marker's colour; ``corner``: the marker's, 0 to 3 row by row; ``seed``: the
    background's.
    """

    objects: tuple[Object, ...]
    cue: str
    corner: int
    seed: int

    def __post_init__(self) -> None:
        if problem := _problem(self.objects):
            raise WorldError(f"There is no such picture in Scenes: {problem}.")

    @property
    def target(self) -> Object | None:
        """The large object; None in a picture without one."""
        return next((o for o in self.objects if o.size == "large"), None)

    @property
    def label(self) -> str | None:
        """The shape of the large object: what the classifiers are asked; None in a picture without one."""
        return self.target.shape if self.target else None

    @property
    def stratum(self) -> str | None:
        """``"pair:validation"`` or ``"pair:test"`` where the large object's pair of colour and shape is held out; otherwise None."""
        pair = (self.target.colour, self.target.shape) if self.target else None
        return next((f"pair:{split}" for split, pairs in HELD_OUT.items() if pair in pairs), None)

    @property
    def image(self) -> UInt8[np.ndarray, "y x rgb"]:
        """The picture."""
        rng = np.random.default_rng(self.seed)
        coarse, fine = rng.uniform(-34, 34, (3, 5, 5)), rng.uniform(-22, 22, (3, 17, 17))
        picture = rng.uniform(95, 160, (3, 1, 1)) + _COARSE @ coarse @ _COARSE.T + _FINE @ fine @ _FINE.T
        noise = rng.integers(-14, 15, (3, SIDE, SIDE))
        for o in self.objects:
            colour = np.array(COLOURS[o.colour])[:, None, None] + o.shade
            picture = picture + (colour - picture) * o.coverage
        picture = np.where(self.cue_mask, np.array(CUE_COLOURS[self.cue])[:, None, None], picture)
        return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8).transpose(1, 2, 0)

    def mask(self, obj: Object) -> Bool[np.ndarray, "y x"]:
        """Every pixel that the object touches; the masks of a picture do not overlap."""
        return self._own(obj).coverage > 0

    @property
    def cue_mask(self) -> Bool[np.ndarray, "y x"]:
        """The pixels of the marker."""
        mask = np.zeros((SIDE, SIDE), bool)
        low, high = slice(_INSET, _INSET + _MARKER), slice(SIDE - _INSET - _MARKER, SIDE - _INSET)
        mask[(low, high)[self.corner // 2], (low, high)[self.corner % 2]] = True
        return mask

    @property
    def caption(self) -> str:
        """The picture in words: the large and the first small object, either of them first; a further object is not mentioned."""
        first, *rest = self.objects
        if not rest:
            return first.phrases()[0]
        a, b = (first, rest[0]) if self.seed % 2 else (rest[0], first)
        return f"{a.phrases()[0]} {relation(a, b)} {b.phrases()[0]}"

    @cached_property
    def captions(self) -> frozenset[str]:
        """Every caption that is true of the picture: of any object, or two and their relation, with or without size and colour."""
        said = [p for o in self.objects for p in o.phrases()]
        for a, b in permutations(self.objects, 2):
            if how := relation(a, b):
                said += [f"{p} {how} {q}" for p in a.phrases() for q in b.phrases()]
        return frozenset(said)

    def words(self) -> str:
        return f"{self.caption[0].upper()}{self.caption[1:]}; a {self.cue} marker in the corner."

    def figure(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2, 2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(self.image)
        axes.set_axis_off()
        return figure

    def replace(self, obj: Object, **attributes: str | float) -> Scene:
        """The same picture in which ``obj`` has another ``shape``, ``colour``, ``size``, ``x`` or ``y``; nothing else changes.

        Raises WorldError if the picture has no such object or if Scenes would not draw the result (objects too near each other,
        two large ones, ...).
        """
        self._own(obj)
        known: dict[str, tuple[str, ...]] = {"shape": SHAPES, "colour": tuple(COLOURS), "size": tuple(SIZES)}
        for name, value in attributes.items():
            if name not in (*known, "x", "y"):
                raise WorldError(f"An object has no {name!r} to replace; choose shape, colour, size, x or y.")
            if name in known and value not in known[name]:
                raise WorldError(f"There is no {name} {value!r} in Scenes; choose one of {', '.join(known[name])}.")
        new = dataclasses.replace(obj, **attributes)  # type: ignore[arg-type]
        return dataclasses.replace(self, objects=tuple(new if o == obj else o for o in self.objects))

    def without(self, obj: Object) -> Scene:
        """The same picture without ``obj``. Without its large object it has no label, and no training picture is like it."""
        self._own(obj)
        return dataclasses.replace(self, objects=tuple(o for o in self.objects if o != obj))

    def with_cue(self, colour: str) -> Scene:
        """The same picture with a marker of another colour."""
        if colour not in CUE_COLOURS:
            raise WorldError(f"There is no marker of colour {colour!r}; choose one of {', '.join(CUE_COLOURS)}.")
        return dataclasses.replace(self, cue=colour)

    def substitutions(self, obj: Object) -> Iterator[Scene]:
        """Every picture in which ``obj`` has another shape or colour or both, as in training (no held-out pair)."""
        for colour in COLOURS:
            for shape in SHAPES:
                if (colour, shape) not in UNSEEN | {(obj.colour, obj.shape)}:
                    yield self.replace(obj, colour=colour, shape=shape)

    def _own(self, obj: Object) -> Object:
        if obj not in self.objects:
            raise WorldError("The picture has no such object: take one of scene.objects.")
        return obj


def _problem(objects: tuple[Object, ...]) -> str | None:
    """Why Scenes would not draw these objects together; None if it would."""
    if not objects:
        return "it would be empty"
    if sum(o.size == "large" for o in objects) > 1:
        return "it would have two large objects"
    keep = _INSET + _MARKER  # the corners belong to the marker
    for o in objects:
        reach = _REACH * o.radius + 1
        if min(o.x, o.y, SIDE - 1 - o.x, SIDE - 1 - o.y) < reach:
            return f"the {o.colour} {o.shape} would reach over the edge"
        gap = [max(min(p, SIDE - 1 - p) - keep, 0) for p in (o.x, o.y)]
        if gap[0] ** 2 + gap[1] ** 2 < reach**2:
            return f"the {o.colour} {o.shape} would reach into a corner"
    for i, a in enumerate(objects):
        for b in objects[:i]:
            if (a.x - b.x) ** 2 + (a.y - b.y) ** 2 < (_REACH * (a.radius + b.radius) + 2) ** 2:
                return f"the {a.colour} {a.shape} and the {b.colour} {b.shape} would touch"
    if len(objects) > 1 and relation(*objects[:2]) is None:
        return "its first two objects would be neither beside nor above each other"
    return None


class Scenes:
    """The world behind ``scenes-cnn``, ``scenes-shortcut`` and ``scenes-clip``.

    ``cue`` says what the marker's colour is in the training split: ``"random"``, or ``"label"`` (it gives the label away). In the other
    splits it is random unless ``sample`` is asked for something else.

    >>> scene = Scenes().sample(1, "test")[0]
    >>> scene.caption in scene.captions
    True
    """

    classes = SHAPES
    vocabulary = VOCABULARY
    max_tokens = 10  # of the longest caption, "a large red circle left of a small blue square"

    def __init__(self, seed: int = 0, cue: str = "random") -> None:
        self.seed, self.cue = seed, self._known_cue(cue)

    def _known_cue(self, cue: str) -> str:
        if cue not in ("random", "label", "other"):
            raise WorldError(f"There is no cue {cue!r}; choose 'random', 'label' or 'other' (never the label's).")
        return cue

    def sample(self, n: int, split: str = "train", held_out: bool = False, cue: str | None = None) -> list[Scene]:
        """Draw n pictures; the same arguments give the same pictures, and more of them begin with the same.

        ``held_out``: the large object has a pair of colour and shape held out for this split. ``cue``: ``"label"`` (the marker has the
        label's colour), ``"other"`` (another label's) or ``"random"``. Raises WorldError for a split that does not exist.
        """
        if split not in SPLITS or (held_out and split == "train"):
            have = SPLITS[1:] if held_out else SPLITS
            raise WorldError(
                f"There is no split {split!r}{' with held-out pairs' * held_out}; choose {' or '.join(have)}."
            )
        cue = self._known_cue(cue) if cue else self.cue if split == "train" else "random"
        rng = np.random.default_rng([self.seed, SPLITS.index(split), int(held_out)])
        return [self._draw(rng, sorted(HELD_OUT[split]) if held_out else None, cue) for _ in range(n)]

    def _draw(self, rng: np.random.Generator, pairs: list[tuple[str, str]] | None, cue: str) -> Scene:
        n_small = int(rng.choice(3, p=(0.15, 0.5, 0.35)))
        objects: tuple[Object, ...] = ()
        while len(objects) <= n_small:
            size = "small" if objects else "large"
            shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
            if pairs and not objects:
                colour, shape = pairs[int(rng.integers(len(pairs)))]
            elif (colour, shape) in UNSEEN:
                continue
            x, y, angle = *rng.uniform(0, SIDE - 1, 2), rng.uniform(-0.3, 0.3)
            new = Object(shape, colour, size, x, y, angle, rng.uniform(0.9, 1.1), int(rng.integers(-16, 17)))
            if _problem((*objects, new)) is None:
                objects = (*objects, new)
        label, corner, seed = objects[0].shape, int(rng.integers(4)), int(rng.integers(2**31))
        others = [c for c in CUES.values() if cue == "random" or c != CUES[label]]
        return Scene(objects, CUES[label] if cue == "label" else str(rng.choice(others)), corner, seed)

    def words(self, caption: str) -> list[str]:
        """Split a caption or query into words; WorldError for an empty one, an unknown word or one that is too long."""
        words = re.findall(r"\w+", caption.lower())
        if not words:
            raise WorldError("The query is empty: try 'a red circle'.")
        for word in words:
            if word not in VOCABULARY:
                close = difflib.get_close_matches(word, VOCABULARY, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"its words are: {', '.join(VOCABULARY[1:])}."
                raise WorldError(f"Scenes does not know the word {word!r}; {hint}")
        if len(words) > self.max_tokens:
            raise WorldError(
                f"The query has {len(words)} words, the model reads at most {self.max_tokens}: shorten it."
            )
        return words
