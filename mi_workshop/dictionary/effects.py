"""What units do: take a unit's contribution out of the residual stream, and see whose answers change.

Decided before the tables were made:

- A unit of activation a at a token has a · its direction subtracted there, at every token of a question; everything after is computed anew. The
  effect is the drop in log-probability of the right answer, in nats. Where a unit does not fire, nothing is changed: the effect is 0.
- A question is a unit's **own** if the unit's concept (by ``feature_key``) holds at one of its tokens. Of the questions in which it fires, up to ``n`` own ones and ``n``
  others are drawn; the mean over *all* own (other) questions is theirs times the share in which it fires.
- **Specificity** = |effect| on own questions / (|effect| on own + |effect| on other ones), means of sizes: 1 if only its own are touched, .5 if it makes no difference.
  Only for units that *act*: the two sum to ``ACTS`` nats at least.
- Controls, at the same tokens and of the same size: a random direction (``random``), and the direction of another unit that fires at the token where this one is
  strongest (``neighbour``; NaN if it is alone). Both touch the same questions, so they test the *direction*; specificity tests *where* it fires.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor

from mi_workshop.circuits.corpus import Text, training_text, validation_text
from mi_workshop.concepts import concepts, holds_in
from mi_workshop.counterfactual.experiment import interval
from mi_workshop.dictionary.activations import activations
from mi_workshop.dictionary.key import FOUND, FeatureKey
from mi_workshop.models import Model, network
from mi_workshop.show import Shown

ACTS = 0.01  # nats
BATCH = 256  # questions
STRENGTH = (
    4.0  # of a boost, in strongest activations; of 1, 2 and 4 the one that turned most answers on trained questions
)
SUFFIX = " or a city of it"


@dataclass(eq=False)
class Effects(Shown):
    """``table``, a row per unit: ``concept, family, own, other`` (mean drop in log-probability of the right answer, in nats), ``specificity``,
    ``random, neighbour`` (the drop on own questions by the controls), ``loses, gains`` (the answers that lose and gain most, on own questions), ``questions``."""

    of: FeatureKey = field(repr=False)
    table: pd.DataFrame
    text: str

    @property
    def specificity(self) -> tuple[float, float, float]:
        """Mean over the units that act, and its 95 % interval."""
        return interval(self.table.specificity.dropna().to_numpy())

    def words(self) -> str:
        mean, low, high = self.specificity
        t, spread = self.table, "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        acting = (
            f"their specificity is {mean:.2f}{spread}" if t.specificity.notna().any() else "so none has a specificity"
        )
        return (
            f"{len(t)} units ({self.of.of.kind}, layer {self.of.of.layer}) taken out one at a time, {self.text}: the right answer loses {t.own.mean():.2f} nats in "
            f"questions in which the unit's concept holds and {t.other.mean():.3f} in others; a random direction of the same size costs {t.random.mean():.2f}, "
            f"another active unit's {t.neighbour.mean():.2f}. {t.specificity.notna().mean():.0%} act; {acting}."
        )

    def figure(self) -> Any:
        from mi_workshop.dictionary.key_plots import draw_effects

        return draw_effects(self)


@torch.no_grad()
def ablations(
    key: FeatureKey,
    sample: int | list[int] = 64,
    n: int = 8,
    text: Callable[[Model], Text] = training_text,
    seed: int = 0,
) -> Effects:
    """Take units out one at a time: a random ``sample`` of the live ones, or these. ``text``: the questions, ``training_text`` or ``validation_text``
    (two-hop questions kept out of training; units whose concept holds in none of them are left out)."""
    of, rng, g = key.of, np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    asked = text(of.model)
    acts = (of.acts if text is training_text else of.fire(text)).tocsr()
    held = concepts(of.model).holds if text is training_text else holds_in(of.model, asked)
    sentences = csr_array((np.ones(len(asked.ids), np.float32), (asked.sentence, np.arange(len(asked.ids)))))
    fires, about = (sentences @ acts).tocsc() > 0, (sentences @ held).tocsc() > 0
    column = {name: i for i, name in enumerate(concepts(of.model).table.name)}
    live = key.table.index.to_numpy()
    chosen = sample if isinstance(sample, list) else rng.permutation(live)[:sample].tolist()
    groups: list[tuple[int, int, float, np.ndarray]] = []  # unit, own?, share in which it fires, questions
    for unit in chosen:
        own = about[:, [column[key.table.concept[unit]]]].toarray()[:, 0]
        on = fires[:, [unit]].toarray()[:, 0]
        if own.any() and not own.all():
            for side, group in enumerate((~own, own)):
                drawn = rng.permutation(np.flatnonzero(group & on))[:n]
                groups.append((unit, side, float(on[group].mean()), drawn))
    rows = [(unit, s) for unit, _, _, drawn in groups for s in drawn]
    directions = of.writes
    noise = torch.randn(directions.shape, generator=g)
    noise *= directions.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    size = [acts[asked.start[s] : asked.start[s] + len(asked.words[s]), [u]].toarray()[:, 0] for u, s in rows]
    near = [_neighbour(acts, int(asked.start[s] + a.argmax()), u, rng) for (u, s), a in zip(rows, size, strict=True)]
    base = log_probs(of.model, of.hook, text, sorted({s for _, s in rows}))
    changed = {
        name: log_probs(of.model, of.hook, text, [s for _, s in rows], [-torch.from_numpy(a).float()[:, None] * w for a, w in zip(size, written, strict=True)])
        for name, written in (
            ("ablated", [directions[u] for u, _ in rows]), ("random", [noise[u] for u, _ in rows]),
            ("neighbour", [directions[max(v, 0)] * (directions[u].norm() / directions[v].norm() if v >= 0 else 0) for (u, _), v in zip(rows, near, strict=True)]),
        )
    }  # fmt: skip
    which = {s: i for i, s in enumerate(sorted({s for _, s in rows}))}
    before = base[[which[s] for _, s in rows]]
    answer = torch.tensor([asked.following[asked.start[s] + len(asked.words[s]) - 1] for _, s in rows])
    drop = {k: (before - v).gather(1, answer[:, None])[:, 0].numpy() for k, v in changed.items()}
    shift = changed["ablated"].exp() - before.exp()
    table, at = [], 0
    for i in range(0, len(groups), 2):
        unit, found = groups[i][0], {}
        for _, own, share, drawn in groups[i : i + 2]:
            part = slice(at, at := at + len(drawn))
            name = "own" if own else "other"
            found[name] = share * drop["ablated"][part].mean() if len(drawn) else 0.0
            found[f"|{name}|"] = share * np.abs(drop["ablated"][part]).mean() if len(drawn) else 0.0
            if own:
                found["random"] = share * drop["random"][part].mean() if len(drawn) else 0.0
                alone = [v < 0 for v in near[part]]
                found["neighbour"] = np.nan if all(alone) else share * drop["neighbour"][part][~np.array(alone)].mean()
                mean = shift[part].mean(0) if len(drawn) else torch.zeros(shift.shape[1])
                moved = {"loses": int(mean.argmin()), "gains": int(mean.argmax())}
                found |= {k: of.model.words([j])[0] if mean[j].abs() >= 0.01 else "" for k, j in moved.items()}
                found["questions"] = len(drawn)
        total = found["|own|"] + found["|other|"]
        found["specificity"] = found["|own|"] / total if total >= ACTS else np.nan
        table.append({"unit": unit, "concept": key.table.concept[unit], "family": key.table.family[unit], **found})
    columns = ["concept", "family", "own", "other", "specificity", "random", "neighbour", "loses", "gains", "questions"]
    frame = pd.DataFrame(table, columns=["unit", *columns]).set_index("unit")
    return Effects(key, frame, "trained questions" if text is training_text else "validation questions")


def _neighbour(acts: csr_array, token: int, unit: int, rng: np.random.Generator) -> int:
    """Another unit that fires at a token, or -1."""
    there = acts.indices[acts.indptr[token] : acts.indptr[token + 1]]
    others = there[there != unit]
    return int(rng.choice(others)) if len(others) else -1


@torch.no_grad()
def boosts(
    key: FeatureKey,
    n: int = 8,
    strength: float = STRENGTH,
    text: Callable[[Model], Text] = validation_text,
    seed: int = 0,
) -> pd.DataFrame:
    """Add a place's unit where another place is meant: does the model answer for the unit's place? A row per unit that stands for a place (family
    ``place``, F1 at least ``FOUND``).

    At the city of ``n`` two-hop questions about other places of the same kind, ``strength`` times the unit's strongest activation is added along its
    direction. Columns: ``place, gain`` (of the log-probability of the answer that the question would have if it were about the unit's place, in nats),
    ``top`` (share of questions in which that becomes the likeliest answer; 0 before), and as controls a random direction of the same size
    (``random, random_top``) and the unit of another place (``other, other_top``).
    """
    of, world, rng, g = key.of, key.of.model.world, np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    assert world is not None
    asked = text(of.model)
    t = key.table[(key.table.family == "place") & (key.table.f1 >= FOUND)].sort_values("f1", kind="stable")
    unit_of = {name.removesuffix(SUFFIX): int(u) for u, name in t.concept.items()}  # the best unit of each place
    rows: list[tuple[str, int, int, Tensor]] = []
    for name, unit in unit_of.items():
        place = world.places[name]
        expected = {a: of.model.token_id(v) for a, v in place.attributes.items()}
        fit = [s for s, q in enumerate(asked.sentences) if q.kind == "two_hop" and (home := world.home[q.slots["city"]]).kind == place.kind
               and home.attributes[q.slots["attribute"]] != place.attributes[q.slots["attribute"]]]  # fmt: skip
        for s in rng.permutation(fit)[:n]:
            q = asked.sentences[s]
            at = torch.zeros(len(asked.words[s]), 1)
            at[asked.words[s].index(q.slots["city"])] = strength * float(of.acts[:, [unit]].max())
            rows.append((name, int(s), expected[q.slots["attribute"]], at))
    if not rows:
        return pd.DataFrame(columns=["place", "gain", "top", "random", "random_top", "other", "other_top"])
    units, names = [unit_of[name] for name, *_ in rows], list(unit_of)
    own = of.writes[units]
    noise = torch.randn(own.shape, generator=g)
    others = of.writes[[unit_of[names[(names.index(name) + len(names) // 2) % len(names)]] for name, *_ in rows]]
    wanted = torch.tensor([[w] for _, _, w, _ in rows])
    sentences = [s for _, s, _, _ in rows]
    before = log_probs(of.model, of.hook, text, sentences).gather(1, wanted)[:, 0]
    found = {"unit": units, "place": [name for name, *_ in rows]}
    for name, written in (("gain", own), ("random", noise), ("other", others)):
        written = written * (own.norm(dim=1) / written.norm(dim=1))[:, None]
        after = log_probs(
            of.model, of.hook, text, sentences, [at * w for (*_, at), w in zip(rows, written, strict=True)]
        )
        found[name] = (after.gather(1, wanted)[:, 0] - before).tolist()
        found["top" if name == "gain" else f"{name}_top"] = (after.argmax(1) == wanted[:, 0]).float().tolist()
    return pd.DataFrame(found).groupby(["unit", "place"], sort=False).mean().reset_index("place")


@torch.no_grad()
def log_probs(
    model: Model, hook: str, text: Callable[[Model], Text], rows: list[int], change: list[Tensor] | None = None
) -> Tensor:
    """Log-probabilities of the word after each of the sentences ``rows`` [row, d_vocab]; ``change`` [token, d_model] of each is added at ``hook``."""
    net, asked, x = network(model), text(model), activations(model, hook, text)
    layer = int(hook.split(".")[1])
    bos = net(torch.tensor([[model.tokenizer.bos_token_id]], device=model.device), stop_at_layer=layer + 1)[0]
    out = torch.zeros(len(rows), net.cfg.d_vocab_out)
    lengths = np.array([len(asked.words[s]) for s in rows], int)
    order = np.argsort(lengths, kind="stable")
    for batch in np.split(order, range(BATCH, len(order), BATCH)):
        here = torch.zeros(len(batch), int(lengths[batch].max(initial=0)) + 1, x.shape[1])
        here[:, 0] = bos.cpu()
        for row, i in enumerate(batch):
            start, length = asked.start[rows[i]], lengths[i]
            here[row, 1 : length + 1] = x[start : start + length] + (0 if change is None else change[i])
        end = here.to(model.device)
        if layer + 1 < net.cfg.n_layers:
            end = net(end, start_at_layer=layer + 1, stop_at_layer=net.cfg.n_layers)
        last = end[torch.arange(len(batch)), torch.from_numpy(lengths[batch]).to(end.device)][:, None]
        out[batch] = net.unembed(net.ln_final(last))[:, 0].log_softmax(-1).float().cpu()
    return out
