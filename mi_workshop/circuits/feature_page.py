"""The page of one feature or MLP neuron: what fires it in the whole training text, how well its label fits, what it writes.

Examples come from the whole range of activations, as in Bricken et al., "Towards Monosemanticity" (2023), beside the
strongest ones: those alone make a feature look purer than it is. The world knows what each sentence speaks of, so the label is
scored: in each range of activations, at what share of the tokens does it hold?
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mi_workshop.circuits.corpus import (
    KINDS,
    Dictionary,
    FeatureError,
    Text,
    dictionary_of,
    directions,
    text_activations,
    training_text,
)
from mi_workshop.circuits.features import label_of, logit_effects
from mi_workshop.circuits.html_parts import Page
from mi_workshop.concepts import concepts
from mi_workshop.models import Model

if TYPE_CHECKING:
    from mi_workshop.dictionary import SparseDictionary

BINS = (0.8, 0.6, 0.4, 0.2, 0.0)  # lower ends of the ranges of activation, as shares of the maximum
TOP, EACH = 6, 3  # examples: the strongest, and drawn from each range
COLUMNS = 20  # of the histogram


@dataclass(frozen=True)
class Example:
    """A sentence with the activation at each of its tokens; ``at`` is the token for which it was chosen, ``group`` says why,
    and ``holds`` whether the label holds there (None where the label claims nothing: silent units, and those that fire on many tokens)."""

    words: list[str]
    activations: list[float]
    at: int
    group: str
    holds: bool | None
    answer: str


@dataclass(frozen=True, eq=False)
class FeaturePage(Page):
    """What is known of one feature or neuron. It shows itself in a notebook; ``save`` writes it to a file.

    ``bins``: one row per range of activation (shares of ``maximum``), strongest first: ``low, high, tokens``, ``share`` (of
    these tokens, those where the label holds), and for the threshold ``low``: ``precision`` (of the tokens at or above it, those where
    the label holds) and ``recall`` (of the sentences in which the label holds somewhere, those in which such a token reaches it).
    ``chance`` is the precision of firing everywhere. ``histogram``: ``[all, label holds]`` tokens in each of twenty equal steps up
    to ``maximum``. ``promotes`` and ``suppresses``: (token, direct effect on its logit per unit of activation). ``neighbours``:
    ``layer, index, cosine, label``, by the direction written. ``selectivity``: see ``circuits.features.describe``.
    """

    problem = FeatureError
    model: str
    kind: str
    layer: int
    index: int
    label: str
    label_kind: str
    concept: str  # where the label holds, in words; empty where it claims nothing
    density: float
    n_tokens: int
    maximum: float
    chance: float
    bins: pd.DataFrame
    histogram: np.ndarray
    examples: list[Example]
    promotes: list[tuple[str, float]]
    suppresses: list[tuple[str, float]]
    neighbours: pd.DataFrame
    selectivity: dict[str, dict[str, list[Any]]]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.layer}/{self.index} of {self.model}"

    def words(self) -> str:
        """One sentence: what it is, how often it fires and how well its label fits (also the picture's alt text)."""
        start = f"{self.name}, labelled {self.label}: active at {self.density:.2%} of {self.n_tokens} tokens"
        start = start[0].upper() + start[1:]
        return f"{start}; {self.purity()}" if self.concept else f"{start}."

    def purity(self) -> str:
        """How well the label fits, from the strongest activations to the weakest, in words."""
        rows = self.bins[self.bins.tokens > 0]
        ranges = [
            f"at {b.share:.0%} of the {b.tokens} tokens from {b.low:.0%} to {b.high:.0%} of the maximum"
            for b in (rows.iloc[:1] if len(rows) == 1 else rows.iloc[[0, -1]]).itertuples()
        ]
        return (
            f"the label holds ({self.concept}) {' and '.join(ranges)}, by chance at {self.chance:.1%}; "
            f"of the sentences in which it holds, {self.bins.recall.iloc[-1]:.0%} make it fire there."
        )

    def html(self, compact: bool = False) -> str:
        """The page as an HTML fragment: inline styles, no script, every text escaped."""
        from mi_workshop.circuits.feature_html import fragment

        return fragment(self, compact)

    def figure(self) -> Any:
        from mi_workshop.circuits.feature_html import draw

        return draw(self)


def feature(model: Model, layer: int, index: int, kind: str | SparseDictionary = "feature") -> FeaturePage:
    """The page of transcoder feature ``index`` of ``layer``, of an MLP neuron with ``kind="neuron"`` (after its nonlinearity), or of a feature of a
    sparse dictionary of that layer with ``kind=dictionary``; its label is then the concept that ``dictionary.feature_key`` finds.

    The first page of a model reads its whole training text; the activations are remembered. Raises FeatureError for a layer, index or kind
    that there is not, and for a model whose training text is not known.
    """
    if isinstance(kind, str) and kind not in KINDS:
        raise FeatureError(f"There is no kind {kind!r}; choose {' or '.join(map(repr, KINDS))}.")
    text, name = training_text(model), kind if isinstance(kind, str) else "dictionary feature"
    if not isinstance(kind, str) and (kind.model, kind.layer) != (model.name, layer):
        raise FeatureError(
            f"This dictionary is of layer {kind.layer} of {kind.model or 'an unnamed model'}, not of layer {layer!r} of {model.name}."
        )
    dictionary = dictionary_of(model, kind)
    width = (
        model.replacement.transcoders.d_transcoder
        if kind == "feature"
        else len(dictionary.writes(dictionary.layers[0]))
    )
    for what, value, size in (("layer", layer, model.replacement.cfg.n_layers), (name, index, width)):
        if not (isinstance(value, int | np.integer) and 0 <= value < size):
            raise FeatureError(f"{model.name} has no {what} {value!r}: choose 0 to {size - 1}.")
    all_acts = text_activations(model, kind)
    acts = all_acts[:, [dictionary.layers.index(layer) * width + index]].toarray()[:, 0].astype(float)
    label_kind, label, tokens = _label(model, dictionary, kind, layer, index)
    concept, holds = _concept(model, label_kind, label, tokens)
    if label_kind == "concept":
        from mi_workshop.dictionary import feature_key

        concept = feature_key(model, kind).label(index)
    peak = float(acts.max(initial=0))
    effect = logit_effects(model, dictionary.writes(layer)[index])
    order = effect.argsort(descending=True).tolist()
    named = [(model.tokenizer.convert_ids_to_tokens(i), float(effect[i])) for i in (*order[:8], *order[: -8 - 1 : -1])]
    places = {} if dictionary.table is None else dictionary.table.selectivity[layer, index]
    steps = np.linspace(0, peak or 1, COLUMNS + 1)
    return FeaturePage(
        model.name, name, int(layer), int(index), label, label_kind, concept, float((acts > 0).mean()), len(acts), peak,
        float(holds.mean()), _bins(text, acts, holds),
        np.stack([np.histogram(acts[chosen], steps)[0] for chosen in (acts > 0, (acts > 0) & holds)]),
        _examples(text, acts, holds if concept else None), named[:8], named[8:],
        _neighbours(model, dictionary, kind, layer, index), places,
    )  # fmt: skip


def detail_html(model: Model, layer: int, index: int) -> str:
    """The short form of a transcoder feature's page, for a panel beside a graph: an HTML fragment like ``FeaturePage.html``."""
    return feature(model, layer, index).html(compact=True)


# ------------------------------------------------------------------------ its parts
def _label(
    model: Model, dictionary: Dictionary, kind: str | SparseDictionary, layer: int, index: int
) -> tuple[str, str, list[str]]:
    """Kind of label, label, and the tokens that it names; without a table, the tokens that take most of the activation."""
    if dictionary.table is not None:
        row = dictionary.table.loc[(layer, index)]
        return row.label_kind, row.label, [token for token, _ in row.tokens]
    if not isinstance(kind, str):
        from mi_workshop.dictionary import feature_key

        if index in (table := feature_key(model, kind).table).index:
            return "concept", table.concept[index], []
    all_acts = text_activations(model, kind)
    width = all_acts.shape[1] // len(dictionary.layers)
    acts = all_acts[:, [dictionary.layers.index(layer) * width + index]].toarray()[:, 0].clip(0)
    total = np.bincount(training_text(model).ids, acts)
    top = [i for i in (-total).argsort()[:6] if total[i] > 0.005 * total.sum()]
    tokens = [[model.tokenizer.convert_ids_to_tokens(int(i)), total[i] / total.sum()] for i in top]
    row = SimpleNamespace(places=[], say_answer="", density=total.sum(), tokens=tokens, attribute=["", 0.0])
    return *label_of(row), [token for token, _ in tokens]


def _concept(model: Model, kind: str, label: str, tokens: list[str]) -> tuple[str, np.ndarray]:
    """What the label claims, in words, and at which tokens of the training text the world says that it holds."""
    text, world = training_text(model), model.world
    assert world is not None
    if kind == "concept":
        return label, concepts(model).where(label)
    places = label.split(" / ") if kind == "place" else []
    named = {"place": places, "answer": [label.removeprefix("say ")], "token": tokens[:1], "tokens": tokens[:3]}
    words = named.get(kind, [label.strip("'")])
    words = [*words, *(city for place in places for city in world.places[place].all_cities)]
    claims = {
        "place": f"{' or '.join(places)} or one of its cities has been read", "answer": f"the next token is {words[0]}",
        "token": f"the token is {label}", "attribute": f"{label} has been read", "tokens": f"the token is {' or '.join(words)}",
    }  # fmt: skip
    holds = np.isin(text.following if kind == "answer" else text.ids, [model.token_id(word) for word in words])
    if kind in ("place", "attribute"):  # from there to the end of the sentence
        so_far = np.cumsum(holds)
        holds = np.asarray(so_far - (so_far - holds)[text.start][text.sentence] > 0)
    return claims.get(kind, ""), holds if kind in claims else np.zeros_like(holds)


def _bins(text: Text, acts: np.ndarray, holds: np.ndarray) -> pd.DataFrame:
    peak, rows = acts.max(initial=0), []
    sentences = len(np.unique(text.sentence[holds]))
    for low, high in zip(BINS, (1.0, *BINS), strict=False):
        above = (acts >= low * peak) & (acts > 0)
        here = above & ((acts < high * peak) | (high == 1))
        found = len(np.unique(text.sentence[above & holds]))
        rows.append([low, high, int(here.sum()), _share(holds[here]), _share(holds[above]), found / max(sentences, 1)])
    return pd.DataFrame(rows, columns=["low", "high", "tokens", "share", "precision", "recall"])


def _share(holds: np.ndarray) -> float:
    return float(holds.mean()) if len(holds) else float("nan")


def _examples(text: Text, acts: np.ndarray, holds: np.ndarray | None) -> list[Example]:
    """The strongest, then a uniform sample from each range, one sentence where it is silent, and two that it misses."""
    peak, out = acts.max(initial=0), []
    random = np.random.default_rng(0).permutation(len(acts))
    fires, speaks = np.zeros((2, len(text.words)), bool)
    fires[text.sentence[acts > 0]] = True
    missed = np.zeros(len(acts), bool) if holds is None else holds & ~fires[text.sentence]
    speaks[text.sentence[missed]] = True
    silent = ~(fires | speaks)[text.sentence]
    strongest = np.argsort(-acts, kind="stable")
    groups = [("strongest", strongest[acts[strongest] > 0], TOP)]
    for low, high in zip(BINS, (1.0, *BINS), strict=False):
        inside = (acts > 0) & (acts >= low * peak) & ((acts < high * peak) | (high == 1))
        groups.append((f"{low:.0%} to {high:.0%}", random[inside[random]], EACH))
    groups += [("missed", random[missed[random]], 2), ("silent", random[silent[random]], 1)]
    for group, tokens, count in groups:
        _, first = np.unique(text.sentence[tokens], return_index=True)  # one token of a sentence
        for token in tokens[np.sort(first)[:count]]:
            i = text.sentence[token]
            span = slice(text.start[i], text.start[i] + len(text.words[i]))
            right = None if holds is None else bool(holds[token])
            out.append(
                Example(
                    text.words[i],
                    acts[span].tolist(),
                    int(token - text.start[i]),
                    group,
                    right,
                    text.sentences[i].answer,
                )
            )
    return out


def _neighbours(
    model: Model, dictionary: Dictionary, kind: str | SparseDictionary, layer: int, index: int
) -> pd.DataFrame:
    """The four nearest units of the same layer and of other layers, by the cosine of what they write; silent units left out."""
    written, alive = directions(model, kind), np.diff(text_activations(model, kind).indptr) > 0
    width = len(written) // len(dictionary.layers)
    here = dictionary.layers.index(layer) * width + index
    cosine = np.where(alive, written @ written[here], -np.inf)
    cosine[here] = -np.inf
    order, own = np.argsort(-cosine, kind="stable"), np.arange(len(cosine)) // width == here // width
    nearest = [int(i) for side in (own, ~own) for i in order[side[order]][:4] if cosine[i] > -np.inf]
    at = [(dictionary.layers[i // width], i % width) for i in nearest]
    rows = [(a, u, cosine[i], _label(model, dictionary, kind, a, u)[1]) for i, (a, u) in zip(nearest, at, strict=True)]
    return pd.DataFrame(rows, columns=["layer", "index", "cosine", "label"])
