"""Feature splitting: what one feature becomes in a larger dictionary.

After Bricken et al. 2023, "Towards Monosemanticity" (A/0, A/1, A/2 with 512, 4,096 and 16,384 features). What is counted, fixed before it was measured:

- *live*: fires (activation above 0) at ``FEW`` tokens or more of each half of the training text, as in ``key``. All others are left out everywhere.
- *label*: the concept of the world with the highest F1 on the one half; its score is from the other. A weak label is no finding.
- *parent*: the live feature of the next smaller dictionary with the highest cosine of decoder directions. Beside it stands the one with
  the highest correlation of activations over all tokens; where the two are not the same feature, ``agree`` is false.
- *implied*: share of a child's firing tokens at which its parent fires too.
- *same start*: share of children whose parent has their own index, among those for which there is such an elder. Dictionaries of different widths drawn from one seed begin with the
  same first directions, and this share is then far above chance: kin by birth, not by what was learned. Give each width a seed of its own.
- *part of a concept*: a feature with a precision of ``PART`` or more for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, hstack

from mi_workshop.concepts import concepts
from mi_workshop.dictionary.activations import firings
from mi_workshop.dictionary.alike import both_fire, correlation, labels, shuffled, unit_directions
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.dictionary.key import FEW
from mi_workshop.lens import Result
from mi_workshop.models import Model
from mi_workshop.show import Shown, counted

PART = 0.8
LINKS = {"cosine": "parent", "correlation": "partner"}


@dataclass(frozen=True, eq=False)
class Families(Shown):
    """``table``, by (width, feature): label (``concept, family, f1, precision, recall, tokens``) and, but for the smallest dictionary, ``parent,
    cosine, implied``, and by activations ``partner, correlation, implied_partner``; ``agree``: both are one feature. ``controls``, by width: see ``families``."""

    model: Model = field(repr=False)
    dictionaries: list[SparseDictionary] = field(repr=False)
    table: pd.DataFrame
    controls: pd.DataFrame

    def tree(self, which: int | str, width: int | None = None, by: str = "cosine") -> Tree:
        """The family of one feature (of the smallest dictionary, or of ``width``): its index, or the concept that it comes nearest to;
        ``by`` cosine or correlation. Raises DictionaryError for a feature that is not live and a concept that there is not.
        """
        widths = [d.width for d in self.dictionaries]
        width = width or widths[0]
        if width not in widths or by not in LINKS:
            raise DictionaryError(f"A tree begins at one of the widths {widths} by cosine or correlation, not at {width} by {by!r}.")  # fmt: skip
        if isinstance(which, str):
            which = self.becomes([which]).xs(width, level=1).feature.iloc[0]
        root = int(which)
        if (width, root) not in self.table.index:
            raise DictionaryError(
                f"Feature {root} of {width} fires at fewer than {FEW} tokens of one half of the text, or there is none."
            )
        members = [(width, root)]
        for above, below in zip(widths, widths[1:], strict=False):
            parents = [f for w, f in members if w == above]
            kin = self.table.loc[below]
            members += [(below, int(f)) for f in kin.index[kin[LINKS[by]].isin(parents)]]
        return Tree(str(self.model.name), by, self.table.loc[members])

    def becomes(self, names: Sequence[str]) -> pd.DataFrame:
        """Which features stand for a concept at each size, by (concept, width): the best ``feature`` with its ``f1``; how many ``parts`` there are
        (precision of ``PART`` or more), at which share of the concept's tokens one of them fires (``covered``), their ``labels``."""
        rows = []
        for name in (_name(self.model, n) for n in names):
            where = concepts(self.model).where(name)
            for d in self.dictionaries:
                live = self.table.loc[d.width]
                fires = firings(self.model, d)[:, live.index.to_numpy()]
                hit = both_fire(fires, csc_array(where[:, None].astype(np.float32)))[:, 0]
                f1 = 2 * hit / (live.tokens.to_numpy() + where.sum())
                parts = np.flatnonzero(hit >= PART * live.tokens.to_numpy())
                covered = float((np.asarray(fires[:, parts].sum(1)).ravel()[where] > 0).mean()) if len(parts) else 0.0
                told = live.concept.iloc[parts[np.argsort(-hit[parts], kind="stable")]].drop_duplicates().tolist()
                rows.append([name, d.width, int(live.index[f1.argmax()]), f1.max(), len(parts), covered, "; ".join(told[:4]) + ("; …" if told[4:] else "")])  # fmt: skip
        columns = ["concept", "width", "feature", "f1", "parts", "covered", "labels"]
        return pd.DataFrame(rows, columns=columns).set_index(["concept", "width"])

    def words(self) -> str:
        c = self.controls.iloc[-1]
        sizes = ", ".join(f"{w}: {n}" for w, n in self.table.groupby(level=0).size().items())
        return (
            f"Live features of {self.model.name} by size of the dictionary: {sizes}. In the largest the median cosine to the parent is {c.cosine:.2f} (dealt anew: "
            f"{c.shuffled:.2f}), the parent fires at {c.implied:.0%} of a child's tokens (another child's parent: {c.implied_shuffled:.0%}), and for {c.agree:.0%} "
            f"the activations name the same parent. Of the children that have an elder of their own index, {c.same_start:.0%} have it as a parent."
        )

    def figure(self) -> Any:
        return self.map().figure()

    def map(self, by: str = "correlation", layout: str = "tsne") -> Map:
        """All live features in the plane, near where their activations (``by="cosine"``: decoder directions) are alike. ``layout``: ``"tsne"`` keeps neighbours together and
        nothing else (van der Maaten and Hinton 2008; seconds); ``"pca"`` keeps the two directions in which they differ most."""
        from mi_workshop.dictionary.families_plots import plane

        if by not in LINKS or layout not in ("tsne", "pca"):
            raise DictionaryError(
                f"A map is made by cosine or correlation, as tsne or pca, not by {by!r} as {layout!r}."
            )
        rows = [(d, self.table.loc[d.width].index.to_numpy()) for d in self.dictionaries]
        if by == "cosine":
            near = (written := np.concatenate([unit_directions(d, i) for d, i in rows])) @ written.T
        else:
            near = correlation(*[hstack([firings(self.model, d)[:, i] for d, i in rows], format="csc")] * 2)
        return Map(self, by, layout, *plane(near, layout))


@dataclass(frozen=True, eq=False)
class Map(Result):
    """``places`` of the live features [feature, 2], in the order of ``families.table``. What it hides: ``kept`` is the share of features whose nearest other is among the
    ten nearest in the plane; ``variance``, for PCA, the share that the plane holds."""

    families: Families = field(repr=False)
    by: str
    layout: str
    places: np.ndarray
    kept: float
    variance: float

    @property
    def name(self) -> str:
        return f"features of {self.families.model.name}"

    def words(self) -> str:
        hides = f"the plane holds {self.variance:.0%} of the variance"
        hides = "distances between groups mean nothing" if self.layout == "tsne" else hides
        return f"{len(self.places)} live features of {self.families.model.name} by {self.by}, {self.layout}: {hides}; {1 - self.kept:.0%} have their nearest neighbour elsewhere."

    def figure(self) -> Any:
        from mi_workshop.dictionary.families_plots import draw_map

        return draw_map(self)

    def interactive(self) -> dict[str, Any]:
        from mi_workshop.dictionary.families_plots import plotly_map

        return plotly_map(self)


@dataclass(frozen=True, eq=False)
class Tree(Shown):
    """One family, linked ``by`` cosine or correlation: rows of ``Families.table``, the eldest first."""

    model: str
    by: str
    table: pd.DataFrame

    def words(self) -> str:
        return "\n".join(self._lines(*self.table.index[0]))

    def children(self, width: int, feature: int) -> list[tuple[int, int]]:
        """The members of the next larger dictionary that hang on this one, most tokens first."""
        next_width = min((w for w, _ in self.table.index if w > width), default=0)
        kin = self.table[(self.table.index.get_level_values(0) == next_width) & (self.table[LINKS[self.by]] == feature)]
        return list(kin.sort_values("tokens", ascending=False, kind="stable").index)

    def told(self, width: int, feature: int) -> str:
        """The link to the parent in words."""
        row = self.table.loc[(width, feature)]
        implied = row.implied if self.by == "cosine" else row.implied_partner
        return f"{self.by} {row[self.by]:.2f}, implied {implied:.0%}" + ("" if row.agree else ", disputed")

    def _lines(self, width: int, feature: int, depth: int = 0) -> list[str]:
        row = self.table.loc[(width, feature)]
        link = f", {self.told(width, feature)}" if depth else ""
        line = f"{'  ' * depth}{width}/{feature}: {row.concept} (F1 {row.f1:.2f}, {counted(int(row.tokens), 'token')}{link})"
        return [line, *(more for child in self.children(width, feature) for more in self._lines(*child, depth + 1))]

    def figure(self) -> Any:
        from mi_workshop.dictionary.families_plots import draw_tree

        return draw_tree(self)


def families(model: Model, dictionaries: Sequence[SparseDictionary]) -> Families:
    """Features of each dictionary linked to their parents in the next smaller one; all read the same hook of ``model``.

    ``controls``, by width: medians over the live features of ``cosine`` to the parent and of that to the nearest ``shuffled`` direction (principal coordinates
    of the smaller dictionary dealt anew), share ``beyond`` the 95th percentile of those; ``correlation``, median; means of ``implied``, ``implied_partner`` and
    ``implied_shuffled`` (the parents dealt anew among the children); ``agree``: share whose parent is the same by activations; ``same_start``.
    Raises DictionaryError for fewer than two sizes and for other hooks.
    """
    ordered = sorted(dictionaries, key=lambda d: d.width)
    if len({d.width for d in ordered}) < max(2, len(ordered)) or len({d.reads for d in ordered}) > 1:
        raise DictionaryError("A family needs two or more dictionaries of one hook, each of another width.")
    tables, controls = [labels(model, ordered[0])], []
    rng = np.random.default_rng(0)
    for small, large in zip(ordered, ordered[1:], strict=False):
        above, table = tables[-1], labels(model, large)
        fires = [firings(model, d)[:, t.index.to_numpy()] for d, t in ((large, table), (small, above))]
        down, up = unit_directions(large, table.index), unit_directions(small, above.index)
        cosines, correlations = down @ up.T, correlation(*fires)
        parent, partner, row = cosines.argmax(1), correlations.argmax(1), np.arange(len(table))
        both = both_fire(*fires) / table.tokens.to_numpy()[:, None]
        table = table.assign(
            parent=above.index[parent], cosine=cosines.max(1), partner=above.index[partner], correlation=correlations.max(1),
            agree=parent == partner, implied=both[row, parent], implied_partner=both[row, partner],
        )  # fmt: skip
        chance = (down @ shuffled(up).T).max(1)
        controls.append({
            "width": large.width, "cosine": np.median(table.cosine), "shuffled": np.median(chance), "beyond": np.mean(table.cosine > np.quantile(chance, 0.95)),
            "correlation": np.median(table.correlation), "implied": table.implied.mean(), "implied_partner": table.implied_partner.mean(),
            "implied_shuffled": both[row, rng.permutation(parent)].mean(), "agree": table.agree.mean(),
            "same_start": (table.parent == table.index)[table.index.isin(above.index)].mean(),
        })  # fmt: skip
        tables.append(table)
    whole = pd.concat(tables, keys=[d.width for d in ordered], names=["width"])
    return Families(model, ordered, whole, pd.DataFrame(controls).set_index("width"))


def _name(model: Model, concept: str) -> str:
    """A concept's name, from the name or the word that it is about."""
    for name in (concept, f"{concept} or a city of it", f"the token {concept!r}"):
        try:
            concepts(model).where(name)
            return name
        except ValueError as error:
            reason = str(error)
    raise DictionaryError(reason)
