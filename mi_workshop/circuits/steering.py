"""Steer a hosted model: change features of a graph, read its new answers, beside the controls.

The host sets each feature to its activation plus ``delta``, or to zero, attention frozen, as circuit-tracer's ``feature_intervention`` does. It
gives the ten likeliest tokens with their probabilities and nothing else. Every control is a request of its own, so there are few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_workshop.circuits.graph import FEATURE, AttributionGraph, GraphError
from mi_workshop.circuits.repairs import UNSEEN, number
from mi_workshop.show import Shown, counted, listed
from mi_workshop.web import HostedError

if TYPE_CHECKING:
    from mi_workshop.neuronpedia import HostedModel

N_RANDOM, TOP = 3, 10  # random sets; tokens in an answer
NEAREST = 6  # how many of the nearest features a random one is drawn from
IN_A_VIEW = 30.0  # seconds for an answer that somebody waits for
Site = tuple[int, int, int]  # layer, feature, position
Edits = dict[Site, float | None]  # what is added to the feature's activation there; None: it is set to zero
Answers = list[dict[str, Any]]


@dataclass
class SteerResult(Shown):
    """What steering did. ``before`` and ``after`` list ``{token, prob}``, the ten likeliest; ``controls`` list ``{name, token, prob, note}``,
    ``prob`` of the first answer before; ``random`` holds the answers under each random set. ``note`` says how old the answer is."""

    problem = GraphError
    model: str
    prompt: str
    edited: list[str]
    attention: str
    before: Answers
    after: Answers
    controls: list[dict[str, Any]]
    random: list[Answers] = field(repr=False)
    note: str = ""

    @property
    def prob(self) -> float:
        """What is left of the first answer's probability."""
        return probability(self.after, self.before[0]["token"])

    @property
    def random_probs(self) -> list[float]:
        """What each random set leaves of it."""
        return [probability(answers, self.before[0]["token"]) for answers in self.random]

    def words(self) -> str:
        """What was changed, the answers before and after, the controls and what they allow to say."""
        lines = [
            f"{counted(len(self.edited), 'feature')} of {self.model} changed, attention {self.attention}.",
            f"before: {listed(self.before)}", f"after:  {listed(self.after)}",
            *(f"{c['name']}: {c['token']} {c['prob']:.2f} ({c['note']})" for c in self.controls),
        ]  # fmt: skip
        if self.random:
            same = sum(r[0]["token"] == self.after[0]["token"] for r in self.random)
            lines.append(
                f"{same} of {len(self.random)} random sets give the same first answer; few sets, so read it with care."
            )
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def figure(self) -> Any:
        """The answers before and after, and what each control leaves of the first answer, as a matplotlib Figure."""
        from mi_workshop.plots import BLUE, GREY, INK, _before_after, new_figure, open_frames

        figure = new_figure(11, 4)
        bars, table = figure.subplots(1, 2)
        answer = self.before[0]["token"]
        _before_after(bars, self.before, self.after, [answer])
        bars.set_title(f"{counted(len(self.edited), 'feature')} changed", fontsize=14)
        rows = [
            ("these features", probability(self.after, answer), BLUE),
            *((c["name"], c["prob"], GREY) for c in self.controls),
        ][::-1]
        table.barh(range(len(rows)), [r[1] for r in rows], color=[r[2] for r in rows], edgecolor=INK, height=0.6)
        table.set_yticks(range(len(rows)), [r[0] for r in rows], fontsize=12, parse_math=False)
        table.set_xlim(0, 1)
        table.set_xlabel(f"probability of {answer}", fontsize=12, parse_math=False)
        table.set_title("what the controls leave", fontsize=14)
        open_frames(bars, table)
        return figure


def steer(
    model: HostedModel,
    prompt: str,
    edits: list[dict[str, Any]],
    graph: AttributionGraph | None = None,
    n_random: int = N_RANDOM,
    freeze_attention: bool = True,
    refresh: bool = False,
) -> SteerResult:
    """Change features while the hosted model reads ``prompt``.

    ``edits``: ``{"nodes": [ids L_F_P], "kind": "zero" | "scale" | "add", "factor": float, "delta": float}``: set to zero, to ``factor`` times
    their activation (which ``graph`` must know), or ``delta`` added to it (for features that are silent here too). Controls: *values put
    back* (every changed feature set to what it is), and ``n_random`` sets of other features of ``graph`` (none without one), see
    ``random_sets``. Raises GraphError for what is no edit, HostedError where the host does not answer.
    """
    wanted = resolve(graph, edits)
    run = _Run(model, prompt, freeze_attention, refresh)
    before, after = run(wanted)
    note = run.note
    *_, controls = run.controls(wanted, before, graph, n_random)
    edited = [f"{a}_{f}_{p}" + (" set to zero" if d is None else f" {d:+.3g}") for (a, f, p), d in wanted.items()]
    attention = "frozen" if freeze_attention else "free"
    return SteerResult(model.name, prompt, edited, attention, before, after, controls, run.random, note)


def begin(graph: AttributionGraph, interventions: list[dict[str, Any]]) -> tuple[Answers, Answers, None, Iterator[Any]]:
    """What ``circuits.live.begin`` asks for, of a hosted model."""
    wanted = resolve(graph, interventions)
    run = _Run(graph.model, graph.prompt, True, False, IN_A_VIEW)
    before, after = run(wanted)
    portions = run.controls(wanted, before, graph, N_RANDOM)
    sides = []
    for side, other in ((before, after), (after, before)):  # what is not among the ten likeliest is drawn as 0
        more = [t["token"] for t in other[:5] if t["token"] not in {s["token"] for s in side[:5]}]
        sides.append(side[:5] + [{"token": w, "prob": probability(side, w)} for w in more])
    return sides[0], sides[1], None, portions


@dataclass
class _Run:
    """Requests about one prompt."""

    model: HostedModel
    prompt: str
    freeze_attention: bool
    refresh: bool
    patience: float = 60.0
    note: str = ""
    random: list[Answers] = field(default_factory=list)

    def __call__(self, edits: Edits) -> tuple[Answers, Answers]:
        """The answers without and with these edits."""
        features = [
            {"layer": layer, "index": index, "token_active_position": position, "steer_position": position, "steer_generated_tokens": False,
             "delta": delta, "ablate": delta is None}
            for (layer, index, position), delta in edits.items()
        ]  # fmt: skip
        body = {
            "modelId": self.model.name, "prompt": self.prompt, "features": features, "nTokens": 1, "topK": TOP,
            "freezeAttention": self.freeze_attention, "temperature": 0, "freqPenalty": 0, "seed": 16,
            **({"sourceSetName": self.model.source_set} if self.model.source_set else {}),
        }  # fmt: skip
        answer, self.note = self.model.client.steer_logits(body, self.refresh, self.patience)
        raw = [_first(answer.get(f"{side}_LOGITS_BY_TOKEN")) for side in ("DEFAULT", "STEERED")]
        both = {t for side in raw for t, _ in side}
        short = {t: s if (s := t.strip()) and sum(o.strip() == s for o in both) == 1 else t for t in both}
        before, after = ([{"token": short[t], "prob": p} for t, p in side] for side in raw)
        return before, after

    def controls(
        self, edits: Edits, before: Answers, graph: AttributionGraph | None, n: int
    ) -> Iterator[list[dict[str, Any]]]:
        """The controls so far, again and again while more of them are done."""
        first = before[0]["token"]
        _, back = self(dict.fromkeys(edits, 0.0))
        moved = max(abs(b["prob"] - probability(before, b["token"])) for b in back[:5])
        note = f"no probability moves by more than {moved:.3f}; a token that is not among the {TOP} likeliest is drawn as 0"
        done = [{"name": "values put back", "token": back[0]["token"], "prob": probability(back, first), "note": note}]
        yield done
        sets, apart = random_sets(graph, edits, n) if graph is not None else ([], 0.0)
        if not sets:
            return
        kept = changed = 0.0
        for i, chosen in enumerate(sets, 1):
            _, after = self(chosen)
            self.random.append(after)
            kept, changed = kept + probability(after, first), changed + (after[0]["token"] != first)
            note = (
                f"mean of {i} of {len(sets)}, few because each is a request; the answer changes in {changed / i:.0%}; features of the same "
                f"positions, layers {apart:.1f} apart on average, nearest in activation"
            )
            yield [*done, {"name": "random sets", "token": first, "prob": kept / i, "note": note}]


def probability(side: Answers, token: str) -> float:
    return next((t["prob"] for t in side if t["token"] == token), 0.0)


def _first(rows: Any) -> list[tuple[str, float]]:
    """(token, probability) after the prompt: the first list of logits that is not empty."""
    for row in rows if isinstance(rows, list) else []:
        top = row.get("top_logits") if isinstance(row, dict) else None
        if isinstance(top, list) and top:
            pairs = [
                (UNSEEN.sub("", str(t.get("token")))[:100], number(t.get("prob"))) for t in top if isinstance(t, dict)
            ]
            if pairs and all(0 <= p <= 1.001 for _, p in pairs):
                return sorted(pairs, key=lambda pair: -pair[1])
    raise HostedError("Neuronpedia's answer holds no probabilities.")


def resolve(graph: AttributionGraph | None, edits: list[dict[str, Any]]) -> Edits:
    """What to do to each feature; a later edit wins where two touch the same one. Raises GraphError for what is no edit."""
    known = {} if graph is None else _features(graph)
    out: Edits = {}
    for one in edits:
        try:
            kind, ids = one["kind"], list(one["nodes"])
            factor, delta = float(one.get("factor") or 0), float(one.get("delta") or 0)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise GraphError(f"This is no intervention: {str(one)[:80]}.") from None
        if kind not in ("zero", "scale", "add"):
            raise GraphError(
                f"There is no intervention {str(kind)[:40]!r} on a hosted model: choose zero, scale or add."
            )
        if not ids:
            raise GraphError("Nothing is selected that could be changed.")
        if not (math.isfinite(factor) and math.isfinite(delta)):
            raise GraphError("A factor or delta is a finite number.")
        for node_id in ids:
            site, activation = known.get(str(node_id), (None, math.nan))
            if site is None and (graph is None or kind == "add"):
                site = _site(node_id)
            if site is None:
                raise GraphError(
                    f"{str(node_id)[:40]!r} is no active feature of this prompt, and only features can be changed; see graph.nodes.node_id (L_F_P)."
                )
            if kind == "scale" and math.isnan(activation):
                raise GraphError(
                    f"The activation of {node_id} is not known, so it cannot be scaled: pass the graph, or use zero or add."
                )
            out[site] = None if kind == "zero" else delta if kind == "add" else (factor - 1) * activation
    if not out:
        raise GraphError("Nothing is selected that could be changed.")
    return out


def _site(node_id: Any) -> Site | None:
    try:
        layer, index, position = map(int, str(node_id).split("_"))
    except ValueError:
        return None
    return (layer, index, position) if min(layer, index, position) >= 0 else None


def _features(graph: AttributionGraph) -> dict[str, tuple[Site, float]]:
    nodes = graph.nodes[(graph.nodes.feature_type == FEATURE) & (graph.nodes.feature >= 0)]
    sites = zip(nodes.layer.tolist(), nodes.feature.tolist(), nodes.ctx_idx.tolist(), strict=True)
    return dict(zip(nodes.node_id, zip(sites, nodes.activation.tolist(), strict=True), strict=True))


def random_sets(graph: AttributionGraph, edits: Edits, n: int, seed: int = 0) -> tuple[list[Edits], float]:
    """``n`` edits of other features of the graph, and how many layers theirs are apart from those of the true ones on average.

    For each changed feature one is drawn, at the same position, from the ``NEAREST`` in layer and then in activation that the graph has; it
    is set to zero, or gets the same delta. Features that are changed themselves, at whatever position, are left out.
    """
    g, known = np.random.default_rng(seed), _features(graph)
    size = dict(known.values())
    barred = {site[:2] for site in edits}
    sets: list[Edits] = []
    apart = []
    for _ in range(n):
        chosen: Edits = {}
        for (layer, index, position), delta in edits.items():
            pool = [s for s in size if s[2] == position and s[:2] not in barred and s not in chosen]
            true = size.get((layer, index, position), math.nan)

            def far(site: Site, layer: int = layer, true: float = true) -> tuple[int, float]:
                return abs(site[0] - layer), float(
                    np.nan_to_num(abs(math.log(max(size[site], 1e-6) / max(true, 1e-6))))
                )

            if pool:
                site = sorted(pool, key=far)[:NEAREST][g.integers(min(NEAREST, len(pool)))]
                chosen[site] = delta
                apart.append(abs(site[0] - layer))
        if chosen:
            sets.append(chosen)
    return sets, float(np.mean(apart)) if apart else 0.0
