"""A class activity: highlighted tokens of an unknown neuron or feature, everybody says what it is, then sees weak activations, then the score.

``game = guess_the_concept(model, dictionary)``; as the last line of a cell ``game`` shows its buttons, and each of them can be had from Python:
``game.guess("Texas or a city of it", "table 3")``, ``game.next()``, ``game.score()``. A round has three steps: *strong* (the strongest examples), *weak* (examples
of weak activation, and of silence: everybody may revise) and *answer*. Examples come from one half of the sentences; every guess, and the rule that a search found, is
scored on the other half (``dictionary.judge``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mi_workshop.circuits import html_parts as parts
from mi_workshop.concepts import Concepts, concepts
from mi_workshop.dictionary.core import SparseDictionary
from mi_workshop.dictionary.judge import Units, score, units
from mi_workshop.dictionary.judge_all import interpret_all, misleading_top
from mi_workshop.dictionary.rules import Rule, halves
from mi_workshop.models import Model
from mi_workshop.show import Shown, counted

STEPS = ("strong", "weak", "answer")
ALONE, SEARCH = "you", "rule search"
SAID = {
    "strong": "The strongest examples. What does this unit stand for?",
    "weak": "Now weak activations, and silence. Does your rule survive? Guess again, or keep it.",
    "answer": "The answer: how well each rule says where it fires, in sentences that nobody saw.",
}
BEFORE, AFTER = 12, 5  # words shown on each side of the one that an example was chosen for
LONGEST = 200  # characters of a guess, 40 of a player's name


@dataclass(frozen=True)
class Guess:
    """What ``player`` said at a step of a round; ``rule`` is None for free text, which is kept and not scored (``why``)."""

    player: str
    round: int
    step: str
    said: str
    rule: Rule | None
    why: str = ""


@dataclass(frozen=True)
class Unknown:
    """A unit to guess: ``sort`` says why it was chosen, ``rule`` is what the search found."""

    units: Units
    index: int
    sort: str
    rule: Rule


@dataclass(eq=False)
class Game(Shown):
    """The state of the activity. ``unknown``: the units, easy ones first; ``round`` and ``step``: where the game is; ``guesses``: all of them."""

    found: Concepts
    unknown: list[Unknown]
    players: list[str]
    round: int = 0
    step: str = STEPS[0]
    guesses: list[Guess] = field(default_factory=list)

    @property
    def now(self) -> Unknown:
        return self.unknown[self.round]

    @property
    def over(self) -> bool:
        return self.round == len(self.unknown) - 1 and self.step == STEPS[-1]

    def guess(self, said: str, player: str = ALONE) -> Guess:
        """Put down what ``player`` says: concepts joined by *and*, *or* and *not* are a rule and get a score; anything else is kept as words, and the
        guess's ``why`` names concepts that are alike. Raises ValueError for nothing said, and once the answer is shown."""
        said, player = " ".join(str(said).split())[:LONGEST], " ".join(str(player).split())[:40] or ALONE
        if self.step == STEPS[-1]:
            raise ValueError("The answer is shown already: the next unit can be guessed after game.next().")
        if not said:
            raise ValueError("Say what you think the unit stands for, or a rule of concepts.")
        if player == SEARCH:
            raise ValueError(f"{SEARCH!r} is the name of the search: choose another.")
        rule, why = None, ""
        try:
            rule = Rule.parse(said, self.found)
        except ValueError as error:
            why = str(error)
        if player not in self.players:
            self.players.append(player)
        out = Guess(player, self.round, self.step, str(rule) if rule else said, rule, why)
        self.guesses.append(out)
        return out

    def next(self) -> str:
        """Go on: weak examples, the answer, the next unit. Returns the step; at the end of the game it stays."""
        if self.step != STEPS[-1]:
            self.step = STEPS[STEPS.index(self.step) + 1]
        elif not self.over:
            self.round, self.step = self.round + 1, STEPS[0]
        return self.step

    # ------------------------------------------------------------------ scores
    def rate(self, rule: Rule, unknown: Unknown) -> dict[str, float]:
        """Precision, recall, F1, detection and simulation score on the held-out half; a guess has one level only."""
        held = ~halves(self.found)
        return score(rule.holds(self.found)[held].astype(float), unknown.units.column(unknown.index)[held])

    def score(self) -> pd.DataFrame:
        """One row for each player and round whose answer has been shown, ``first`` (F1 of the last guess before the weak examples) beside the scores of the
        last guess; the player ``rule search`` is the search. Rounds in which a player put no rule down have no scores."""
        rows = []
        shown = self.round + (self.step == STEPS[-1])
        for i, unknown in enumerate(self.unknown[:shown]):
            for player in self.players:
                own = [g for g in self.guesses if g.player == player and g.round == i]
                if not own:
                    continue
                rated = [g for g in own if g.rule]
                first = [g for g in rated if g.step == STEPS[0]]
                before = self.rate(first[-1].rule, unknown)["f1"] if first and first[-1].rule else float("nan")
                last = self.rate(rated[-1].rule, unknown) if rated and rated[-1].rule else {}
                rows.append({"round": i + 1, "player": player, "guess": (rated or own)[-1].said, "first": before, **last})  # fmt: skip
            best = self.rate(unknown.rule, unknown)
            rows.append({"round": i + 1, "player": SEARCH, "guess": str(unknown.rule), "first": float("nan"), **best})  # fmt: skip
        columns = ["round", "player", "guess", "first", "f1", "precision", "recall", "detection", "simulation"]
        table = pd.DataFrame(rows).reindex(columns=columns)
        return table.sort_values(["round", "f1"], ascending=[True, False], kind="stable").reset_index(drop=True)

    def board(self) -> pd.DataFrame:
        """Mean F1 over the rounds shown, best first; a round without a rule counts 0."""
        table, shown = self.score(), self.round + (self.step == STEPS[-1])
        table = table.assign(f1=table.f1.fillna(0)).groupby("player").f1.sum() / max(shown, 1)
        return table.sort_values(ascending=False).rename("mean F1").to_frame()

    # ------------------------------------------------------------------ what is seen
    def examples(self) -> list[tuple[str, list[str], list[float]]]:
        """(group, words, activations as shares of the maximum) of this step, one sentence each."""
        text, looked = self.found.text, halves(self.found)
        acts = self.now.units.column(self.now.index)
        share = acts / max(acts[looked].max(), 1e-8)
        mixed = np.random.default_rng(self.round).permutation(np.flatnonzero(looked))
        order = mixed[np.argsort(-share[mixed], kind="stable")]
        fires = np.unique(text.sentence[acts > 0])
        pools = {"strongest": (order[share[order] > 0.6], 7)}
        if self.step != STEPS[0]:
            pools = {
                "strongest": (order[share[order] > 0.6], 2), "middling": (mixed[(share[mixed] > 0.3) & (share[mixed] <= 0.7)], 3),
                "weak": (mixed[(share[mixed] > 0) & (share[mixed] <= 0.3)], 4), "silent": (mixed[~np.isin(text.sentence[mixed], fires)], 2),
            }  # fmt: skip
        out, seen = [], set()
        for group, (tokens, count) in pools.items():
            said: set[str] = set()  # a word that was shown is shown again only where there is no other
            for same in (False, True):
                for t in tokens.tolist():
                    s, word = int(text.sentence[t]), text.words[text.sentence[t]][t - text.start[text.sentence[t]]]
                    if count and s not in seen and (same or word not in said):
                        seen.add(s)
                        said.add(word)
                        count -= 1
                        at, end = int(text.start[s]), int(text.start[s]) + len(text.words[s])
                        low, high = max(at, t - BEFORE), min(end, t + AFTER + 1)
                        words = ["…"] * (low > at) + text.words[s][low - at : high - at] + ["…"] * (high < end)
                        out.append((group, words, [0.0] * (low > at) + share[low:high].tolist() + [0.0] * (high < end)))
        return out

    def html(self) -> str:
        """This step for a projector: sentences, what is asked, and the scores once the answer is shown. Every text is escaped."""
        title = f"Unit {self.round + 1} of {len(self.unknown)}"
        name = f": {self.now.units.one} {self.now.index} ({self.now.sort})" if self.step == STEPS[-1] else ""
        rows = [f'<div style="font-size:24px;font-weight:bold">{parts.text(title + name)}</div><div>{parts.text(SAID[self.step])}</div>']  # fmt: skip
        if self.step == STEPS[-1]:
            rows.append(_table(self.score().query("round == @self.round + 1").drop(columns="round")))
            rows.append(parts.title("Scoreboard", "mean F1") + _table(self.board().reset_index()))
        else:
            rows += [_sentence(*example) for example in self.examples()]
            here = [g for g in self.guesses if g.round == self.round]
            rows += [f'<div style="{parts.QUIET}">{parts.text(g.player)}: {parts.text(g.said)}{" (kept as words)" * (not g.rule)}</div>' for g in here[-12:]]  # fmt: skip
        return f'<div style="font-size:19px;line-height:1.75;text-align:left;overflow-x:auto">{"".join(rows)}</div>'

    def words(self) -> str:
        """Where the game is, in a sentence or two; never the answer before it is shown."""
        start = f"Guess the concept, unit {self.round + 1} of {len(self.unknown)}, step {self.step}: {SAID[self.step]}"
        if self.step == STEPS[-1]:
            return f"{start} The search says: {self.now.rule}."
        first = self.examples()[0]
        loudest = first[1][int(np.argmax(first[2]))]
        return f"{start} The first sentence is “{' '.join(first[1])}”, strongest at {loudest!r}; {counted(len(self.players), 'player')}."

    def figure(self) -> Any:
        from mi_workshop.dictionary.judge_plots import draw_sentences, draw_table

        if self.step == STEPS[-1]:
            return draw_table(self.words(), self.score().query("round == @self.round + 1").drop(columns="round"))
        return draw_sentences(f"Unit {self.round + 1} of {len(self.unknown)}: {SAID[self.step]}", self.examples())

    def view(self) -> Any:
        """The buttons, made anew: a view that is shown follows the game."""
        from mi_workshop.widgets.guess_controls import GuessControls

        return GuessControls(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        found: tuple[dict[str, Any], dict[str, Any]] = self.view()._repr_mimebundle_()
        return found


def _sentence(group: str, words: list[str], share: list[float]) -> str:
    """Shade, weight and underline all grow with the activation, so that it reads without colour too."""
    out = []
    for word, s in zip(words, share, strict=True):
        style = ""
        if s > 0:
            style = f"background-color:rgba({parts.FIRE},{0.08 + 0.5 * min(s, 1):.2f});border-bottom:{1 + round(4 * min(s, 1))}px solid rgba({parts.FIRE},1);"  # fmt: skip
            style += "padding:0 3px;" + "font-weight:bold;" * (s > 0.5)
        out.append(f'<span title="{s:.2f}" style="{style}">{parts.text(word)}</span>')
    return f'<div><span style="display:inline-block;width:110px;{parts.QUIET}">{parts.text(group)}</span>{" ".join(out)}</div>'  # fmt: skip


def _table(table: pd.DataFrame) -> str:
    def cell(value: Any) -> str:
        if not isinstance(value, float):
            return parts.text(value)
        return "–" if np.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")

    rows = [[cell(v) for v in row] for row in table.itertuples(index=False)]
    sides = "".join("l" if c in ("player", "guess") else "r" for c in table)
    return parts.table([parts.text(c) for c in table.columns], rows, sides)


def guess_the_concept(
    model: Model, dictionary: SparseDictionary | None = None, rounds: int = 3, players: tuple[str, ...] = (), seed: int = 0, layer: int = 1
) -> Game:  # fmt: skip
    """A game of ``rounds`` units that get harder: pure ones, mixed ones (whose best rule misses much), and ones whose strongest examples mislead.

    Without a ``dictionary`` all are neurons of ``layer``; with one, the mixed unit is a neuron and the others are features. ``seed`` draws among the units of each sort;
    with the same seed every table has the same units. Raises ValueError for fewer rounds than one and for a ``dictionary`` that is none.
    """
    if not (isinstance(rounds, int) and 1 <= rounds <= 12):
        raise ValueError(f"A game has 1 to 12 rounds, not {rounds!r}.")
    if dictionary is not None and not isinstance(dictionary, SparseDictionary):
        raise ValueError(
            f"The dictionary of a game is one that was trained or loaded, not a {type(dictionary).__name__}: without it all units are neurons."
        )
    source: Any = dictionary if dictionary is not None else "neuron"
    where = dictionary.layer if dictionary is not None else layer
    rng = np.random.default_rng(seed)
    sorts = ["pure", "mixed", "misleading top"]
    pools: dict[str, list[Unknown]] = {}
    for sort in sorts[: min(rounds, 3)]:
        one: Any = "neuron" if sort == "mixed" else source
        given, all_ = units(model, one, where), interpret_all(model, one, where, controls=False)
        t = all_.table.join(misleading_top(model, one, where).table[["top", "range"]])
        chosen = {
            "pure": t[(t.f1 >= 0.9) & (t["range"] >= 0.9) & ~t.rule.str.startswith("the token")],
            "mixed": t[(t.f1 > 0.35) & (t.f1 < 0.8) & (t.literals == 3)],
            "misleading top": t[(t.top >= 0.9) & (t["range"] <= 0.4) & (t.f1 >= 0.4)],
        }[sort]
        if not len(chosen):
            order = t.f1 if sort == "pure" else -t.f1 if sort == "mixed" else t.top - t["range"]
            chosen = t.loc[order.sort_values(ascending=False).index[:5]]
        drawn = rng.permutation(chosen.index.to_numpy())
        pools[sort] = [Unknown(given, int(i), sort, all_.rules[int(i)]) for i in drawn]
    each = [sorts[i * len(pools) // rounds] for i in range(rounds)]
    taken = [pools[sort][each[:i].count(sort) % len(pools[sort])] for i, sort in enumerate(each)]
    return Game(concepts(model), taken, list(dict.fromkeys(str(p)[:40] for p in players)))
