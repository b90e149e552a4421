"""The exercises on feature splitting and universality of notebook 05b_feature_families."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .exercises import Exercise, add, unreadable, whole


def _split(value: Any) -> Any:
    """The row of a feature in the table of families, None where it is dead or no feature. TypeError for anything but (split, feature)."""
    families, feature = value
    table = families.table.loc[512]
    return table.loc[whole(feature)] if whole(feature) in table.index else None


def _pair(value: Any) -> Any:
    """The same in the table of matches, for (pair, feature)."""
    matched, feature = value
    return matched.table.loc[whole(feature)] if whole(feature) in matched.table.index else None


def _sizes(value: Any) -> Any:
    """What a concept becomes from the smallest dictionary to the largest, for (split, concept). TypeError or ValueError for anything else."""
    families, concept = value
    return families.becomes([concept])


add(
    Exercise(
        name="a stranger in the family",
        minutes=6,
        difficulty="easy",
        statement=(
            "Two directions may be close and yet have nothing to do with each other. Find a feature of the dictionary of 512 (`split.table.loc[512]`, layer 2) whose parent by direction is "
            "**beyond chance** (`cosine` above 0.4), and yet fires at **none** of the tokens at which the feature fires. Put `(split, its index)` into `stranger`."
        ),
        expect="a line of the tree that an honest drawing would not have.",
        hints=("The column implied is the share of a child's tokens at which its parent fires.", "Keep the rows with implied == 0, and take the highest cosine."),
        right=lambda value: (row := _split(value)) is not None and row.implied == 0 and row.cosine > 0.4,
        wrong=(
            (lambda value: unreadable(value, _split), "Two things are asked for: split, and the index of a feature, a whole number."),
            (lambda value: _split(value) is None, "That feature is dead, or not one of the 512: it has no parent."),
            (lambda value: _split(value).implied > 0, "Its parent does fire at some of its tokens."),
            (lambda value: _split(value).cosine <= 0.4, "True, they never meet. But its cosine is no higher than that of shuffled directions, so nobody claimed that they are kin."),
        ),
        why="A cosine says that two features write alike, not that they mean one thing. Whoever draws a family from directions has to look at what fires.",
        solution="children = split.table.loc[512]\nstranger = (split, children[children.implied == 0].cosine.idxmax())",
    ),
    Exercise(
        name="joined, not split",
        minutes=6,
        difficulty="easy",
        statement=(
            "Find a concept that has **at least ten parts** in the largest dictionary (`split.becomes([...])`), while the best single feature for it stays **as good as it was**: an `f1` of at least 0.9 at all three "
            "sizes. Put `(split, its name)` into `joined`; the names are in `concepts(model).table.name`."
        ),
        expect="a family tree on which nobody has died.",
        hints=("Concepts that hold at many tokens have the most parts.", "Think of what has to be said next: 'the answer is ...' a kind of thing."),
        right=lambda value: (t := _sizes(value)).f1.min() >= 0.9 and t.parts.iloc[-1] >= 10,
        wrong=(
            (lambda value: unreadable(value, _sizes), "Two things are asked for: split, and the name of a concept of the world, as text."),
            (lambda value: _sizes(value).f1.min() < 0.9, "At one of the sizes no single feature stands for it with an F1 of 0.9."),
            (lambda value: _sizes(value).parts.iloc[-1] < 10, "It has fewer than ten parts in the largest dictionary."),
        ),
        why="More features in the family, and none has fallen apart: specialists have joined a generalist. Only the table tells it from splitting; the drawings look the same.",
        solution='joined = (split, "the answer is a capital")',
    ),
    Exercise(
        name="an echo of the text",
        minutes=8,
        difficulty="takes some thought",
        statement=(
            "A correlation of .7 was published as a sign of universality. In `pair.table` (layer 2, `atlas` and its twin), find a feature that is **matched at .7 or more**, and of which the two "
            "models nevertheless share **nothing beyond the word**: what is left of it after the mean of each token is taken off correlates by less than 0.1. Put `(pair, its index)` into `echo`."
        ),
        expect="a pair that any two models that can tell words apart would have shown.",
        hints=("The column within is the correlation after the means of the tokens are taken off.", "Keep the rows with correlation >= 0.7 and within < 0.1; any of them will do."),
        right=lambda value: (row := _pair(value)) is not None and row.correlation >= 0.7 and row.within < 0.1,
        wrong=(
            (lambda value: unreadable(value, _pair), "Two things are asked for: pair, and the index of a feature, a whole number."),
            (lambda value: _pair(value) is None, "That feature is dead, or not one of the 512: it was not matched."),
            (lambda value: _pair(value).correlation < 0.7, "Its best match is below .7: nobody would call that universal."),
            (lambda value: pd.isna(_pair(value).within), "The token alone explains that feature to the last digit: nothing is left that could correlate, so `within` is no number. Take one that varies."),
            (lambda value: _pair(value).within >= 0.1, "These two agree beyond the word: that is a finding."),
        ),
        why="Both models read the same words. A feature of a single word is matched in any model that tells words apart, trained or not: "
        "agreement is evidence about the models only beyond what the data alone bring about.",
        solution="pairs = pair.table\necho = (pair, pairs[(pairs.correlation >= 0.7) & (pairs.within < 0.1)].index[0])",
    ),
    notebook="05b_feature_families",
)  # fmt: skip
