"""Swap one place for another inside the model, beside the controls that could have shown that it means nothing.

The old place's features are set to zero and the new one's to their values in the counterfactual prompt (after Lindsey et
al., "On the Biology of a Large Language Model", 2025, and circuit-tracer's tutorial). Which features stand for a place is
decided beforehand, on the training text (``circuits.features``). Three forms, from strict to lenient:

- ``city``: only at the token that names the city (or place): what these features do *there* decides the answer;
- ``state``: wherever the place's features are active;
- ``all``: also the features that say the answer. This partly copies the answer and is labelled so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mi_workshop.circuits.features import places_of
from mi_workshop.circuits.intervene import decoders, feature_activations, frozen_attention, intervene, settings
from mi_workshop.models import Model, ModelError
from mi_workshop.show import Shown, counted, listed
from mi_workshop.worlds import WorldError
from mi_workshop.worlds.atlas import Place, Sentence

FORMS = ("city", "state", "all")
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
N_RANDOM = 100
NOTHING, LUCK = 1e-4, 0.05  # what the controls may show for a swap to count as supported


@dataclass
class SwapResult(Shown):
    """What a swap did, and what its controls did. ``before`` and ``after`` list ``{token, prob}``, likeliest first."""

    problem = WorldError
    prompt: str
    old: str
    new: str
    at: str
    attention: str
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    expected: str
    controls: dict[str, dict[str, Any]]
    dose: list[dict[str, float]]
    edited: list[str] = field(repr=False)

    @property
    def verdicts(self) -> dict[str, bool]:
        """Each condition of ``supported`` by name."""
        c = self.controls
        return {
            "the new answer is the expected one": self.after[0]["token"] == self.expected != self.before[0]["token"],
            f"changing nothing changes nothing (≤ {NOTHING})": c["nothing"]["max_abs_logit_change"] <= NOTHING,
            f"random features give the expected answer in ≤ {LUCK:.0%}": c["random"]["expected_rate"] <= LUCK,
            "a donor from the same place leaves the answer": c["same_state"]["kept"],
            "a donor from a third place gives that place's answer": c["third_state"]["right"],
        }

    @property
    def supported(self) -> bool:
        """True if the swap gave the expected answer and every control came out as it must.

        Random sets may break the answer (``flip_rate`` says how often a push of this size at this place does); what they must
        not do is give the expected one.
        """
        return all(self.verdicts.values())

    def words(self) -> str:
        """What the numbers support, in plain words."""
        c, expected = self.controls, self.expected
        where = {
            "city": "at the city's token alone",
            "state": "wherever they are active",
            "all": "wherever they are active, features that say the answer included (so this partly copies the answer)",
        }[self.at]
        lines = [
            f"{self.old} → {self.new}, {counted(len(self.edited), 'feature')} changed {where}, attention {self.attention}.",
            f"before: {listed(self.before)}",
            f"after:  {listed(self.after)}   (expected {expected})",
            f"controls: nothing changed {c['nothing']['max_abs_logit_change']:.1e} in any logit; "
            f"{c['random']['n']} random sets of equal size give {expected} in {c['random']['expected_rate']:.0%} "
            f"and some other answer in {c['random']['flip_rate'] - c['random']['expected_rate']:.0%};",
            f"  same-place donor {c['same_state']['city']}: {c['same_state']['token']} {c['same_state']['prob']:.2f}; "
            f"third place {c['third_state']['place']}: {c['third_state']['token']} {c['third_state']['prob']:.2f} "
            f"(expected {c['third_state']['expected']}); whole residual patched: {c['ceiling']['token']} {c['ceiling']['prob']:.2f}",
        ]
        if transfer := c["transfer"]["attributes"]:
            lines.append(
                f"transfer (features found on {c['transfer']['found_on']} questions): "
                + "; ".join(
                    f"{a} {r['token']} {r['prob']:.2f} ({'right' if r['right'] else 'expected ' + r['expected']})"
                    for a, r in transfer.items()
                )
            )
        if self.supported:
            site = "at this token " if self.at == "city" else ""
            lines.append(f"Supported: in this model these features {site}carry which place it is.")
        else:
            lines.append(
                "Not supported: " + "; ".join(f"it fails that {k}" for k, ok in self.verdicts.items() if not ok) + "."
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        keys = ("prompt", "old", "new", "at", "attention", "before", "after", "expected", "controls", "dose", "edited")
        return {k: getattr(self, k) for k in keys} | {"supported": self.supported}

    def figure(self) -> Any:
        """The answers before and after, the controls and the dose curve, as a matplotlib Figure."""
        from mi_workshop.plots import draw_swap

        return draw_swap(self)


@dataclass
class Edit:
    """Features to set: ``values`` where ``mask``, both [layer, position, feature]; ``now`` are their unedited values."""

    tokens: Tensor
    values: Tensor
    mask: Tensor
    now: Tensor
    donor: Tensor

    def sets(self, values: Tensor | None = None) -> Tensor:
        """What is set (others than its own ``values`` where given), sparse [layer, position, feature]."""
        return settings(self.values if values is None else values, self.mask)


@lru_cache(maxsize=64)
def activations(model: Model, prompt: str) -> Tensor:
    """Feature activations [layer, position, feature] of one prompt, remembered: an experiment asks for them many times."""
    return feature_activations(model, model.tokens(prompt)[None])[0]


@lru_cache(maxsize=1024)
def feature_sets(model: Model, place: str, answer: str | None = None, only: str | None = None) -> Tensor:
    """Boolean [layer, feature]: the features of a place, and of saying ``answer`` if given.

    ``only``: judge a feature by its selectivity on questions about this attribute alone (transfer control).
    """
    table = model.features
    mine = torch.tensor(
        [
            place in (places_of(s, only=only) if only else places)
            for s, places in zip(table.selectivity, table.places, strict=True)
        ]
    )
    if answer is not None:
        mine |= torch.tensor((table.say_answer == answer).to_numpy())
    shape = (model.replacement.cfg.n_layers, model.replacement.transcoders.d_transcoder)
    return mine.reshape(shape)


def make_edit(model: Model, asked: Sentence, donor: Sentence, at: str, only: str | None = None) -> Edit:
    """The edit that turns the place of ``asked`` into the place of ``donor`` (both of the same form)."""
    assert model.world is not None
    a, b = place_of(model, asked), place_of(model, donor)
    answers = (asked.answer, donor.answer) if at == "all" else (None, None)
    old, new = feature_sets(model, a.name, answers[0], only), feature_sets(model, b.name, answers[1], only)
    tokens = model.tokens(asked.prompt)
    now, other = activations(model, asked.prompt), activations(model, donor.prompt)
    mask = ((now > 0) & old[:, None]) | ((other > 0) & new[:, None])
    if at == "city":
        here = mention(model, asked)
        mask[:, :here] = False
        mask[:, here + 1 :] = False
    return Edit(tokens, torch.where(new[:, None], other, 0.0) * mask, mask, now, other)


def mention(model: Model, sentence: Sentence) -> int:
    """Position of the token that names the city (or place)."""
    assert model.world is not None
    name = sentence.slots.get("city") or sentence.slots["place"]
    return model.world.words(sentence.prompt).index(name) + 1


def place_of(model: Model, sentence: Sentence) -> Place:
    assert model.world is not None
    name = sentence.slots.get("city") or sentence.slots.get("place", "")
    return model.world.home.get(name) or model.world.places[name]


def decoded(model: Model, layer: int, features: Tensor) -> Tensor:
    """Decoder vectors [feature, everything the feature writes to], flattened over target layers."""
    return decoders(model, layer, features).flatten(1).float().cpu()


def random_edits(model: Model, edit: Edit, barred: Tensor, n: int, seed: int = 0) -> Tensor:
    """Up to ``n`` random edits that match ``edit``, fewer where so few differ: what they set, sparse [n, layer, position, feature].

    At each layer and position as many features, none of them ``barred`` [layer, feature], are drawn from those active in that
    layer in the two prompts; one that is active here goes to zero or to its donor's value, another to its value elsewhere.
    Of the different ones among ``20 n`` such sets those are kept whose change of the residual stream is nearest in length to the
    true edit's, and they are scaled to exactly that length: same number, layer, position and size.
    """
    g = torch.Generator().manual_seed(seed)
    where, value, which = [torch.empty(4, 0, dtype=torch.long)], [torch.empty(0)], [torch.zeros(n)]
    for layer, pos in edit.mask.any(-1).nonzero().tolist():
        true = edit.mask[layer, pos].nonzero()[:, 0]
        size = ((edit.values - edit.now)[layer, pos, true] @ decoded(model, layer, true)).norm()
        elsewhere = torch.maximum(edit.now[layer].amax(0), edit.donor[layer].amax(0))  # [feature]
        pool = ((elsewhere > 0) & ~barred[layer]).nonzero()[:, 0]
        if not len(pool):
            continue
        pick = torch.rand(20 * n, len(pool), generator=g).topk(min(len(true), len(pool)), dim=1).indices
        chosen = pool[pick]  # [set, feature]
        start, donor = edit.now[layer, pos][chosen], edit.donor[layer, pos][chosen]
        off = (torch.rand(chosen.shape, generator=g) < 0.5) | (donor == start)
        target = torch.where(start > 0, torch.where(off, 0.0, donor), torch.where(donor > 0, donor, elsewhere[chosen]))
        change = target - start
        different = distinct(torch.zeros(pick.shape[0], len(pool)).scatter(1, pick, change))
        vectors = decoded(model, layer, pool)
        gram = (vectors @ vectors.T)[pick[:, :, None], pick[:, None]]  # [set, feature, feature]
        length = torch.einsum("si,sij,sj->s", change, gram, change).clamp(min=0).sqrt()
        far = (length / size.clamp(min=1e-8)).log().abs().nan_to_num(torch.inf)[different]
        nearest = different[far.topk(min(n, len(far)), largest=False).indices]
        nearest = nearest[torch.arange(n) % len(nearest)]
        scaled = start + change * (size / length.clamp(min=1e-8))[:, None]
        rows = torch.randperm(n, generator=g)
        fixed = torch.tensor([layer, pos])[:, None].expand(2, n * chosen.shape[1])
        where.append(torch.cat([rows.repeat_interleave(chosen.shape[1])[None], fixed, chosen[nearest].reshape(1, -1)]))
        value.append(scaled[nearest].flatten())
        which.append(nearest[rows.argsort()].float())
    shape = (n, *edit.values.shape)
    sets = torch.sparse_coo_tensor(torch.cat(where, 1), torch.cat(value), shape, check_invariants=False).coalesce()
    kept = distinct(torch.stack(which, 1))
    return sets if len(kept) == n or len(value) == 1 else sets.index_select(0, kept).coalesce()


def distinct(rows: Tensor) -> Tensor:
    """The first of each kind of row, in their order."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(rows.numpy()):
        first.setdefault(row.tobytes(), i)
    return torch.tensor(list(first.values()))


def best(model: Model, logits: Tensor, k: int = 5) -> list[dict[str, Any]]:
    p, i = logits.softmax(-1).topk(k)
    return [{"token": t, "prob": x} for t, x in zip(model.words(i.tolist()), p.tolist(), strict=True)]


@torch.no_grad()
def patch_residual(model: Model, edit: Edit, donor_tokens: Tensor, freeze_attention: bool) -> Tensor:
    """Logits with the whole residual stream after each edited layer and position taken from the donor prompt."""
    m = model.replacement
    names = [f"blocks.{i}.hook_resid_post" for i in range(m.cfg.n_layers)]
    _, cache = m.run_with_cache(donor_tokens[None], names_filter=names)
    sites = edit.mask.any(-1).to(m.cfg.device)

    def patch(x: Tensor, hook: Any) -> Tensor:
        return torch.where(sites[hook.layer()][None, :, None], cache[hook.name], x)

    hooks: list[tuple[str, Any]] = [(name, patch) for name in names]
    if freeze_attention:
        hooks += frozen_attention(model, edit.tokens[None])
    return m.run_with_hooks(edit.tokens[None], fwd_hooks=hooks)[0, -1].float().cpu()


def third_place(model: Model, asked: Sentence, taken: set[str]) -> Sentence:
    """The same question about the next place in the list that was trained on, of the same kind."""
    assert model.world is not None
    places = [p for p in model.world.places.values() if p.kind == place_of(model, asked).kind]
    start = [p.name for p in places].index(place_of(model, asked).name)
    for place in places[start + 1 :] + places[:start]:
        question = model.world.parse(model.world.swap(asked.prompt, place_of(model, asked).name, place.name)[0])
        if place.name not in taken and not (question.stratum or "").startswith("place"):
            return question
    raise WorldError("There is no third place to compare with.")


def same_place(model: Model, asked: Sentence) -> Sentence:
    """The same question about a trained city of the same place (for a place's own name: the same question)."""
    assert model.world is not None
    if "city" not in asked.slots:
        return asked
    place = place_of(model, asked)
    city = next(c for c in place.cities[4:] + place.cities if c != asked.slots["city"])
    return model.world.parse(asked.prompt.replace(asked.slots["city"], city))


def swap(
    model: Model,
    prompt: str,
    old: str,
    new: str,
    at: str = "state",
    freeze_attention: bool = True,
    n_random: int = N_RANDOM,
) -> SwapResult:
    """Swap place ``old`` for ``new`` in the features of ``prompt`` and report the new answers beside the controls.

    Controls: *nothing* (every edited feature set to its own value), *random* (up to ``n_random`` >= 1 different matched sets, see
    ``random_edits``), *same_state* and *third_state* donors, *ceiling* (``patch_residual``), *transfer* (features chosen on this
    attribute's questions alone, tried on the others), and a dose curve (0 = no edit, 1 = the swap, 2 = twice the change).
    Raises WorldError where the world has no such place, prompt or counterfactual; ModelError for a model without a world.
    """
    if at not in FORMS:
        raise WorldError(f"at={at!r} is not a form of the swap: choose {', '.join(FORMS)}.")
    world = model.world
    if world is None:
        raise ModelError(
            f"{model.name} has no world with an answer key: swap its features with circuit-tracer's feature_intervention."
        )
    asked, donor = world.parse(prompt), world.parse(world.swap(prompt, old, new)[0])
    edit = make_edit(model, asked, donor, at)
    same, third = same_place(model, asked), third_place(model, asked, {old, new})
    edits = [edit, make_edit(model, asked, same, at), make_edit(model, asked, third, at)]
    barred = feature_sets(model, old, asked.answer) | feature_sets(model, new, donor.answer)
    noise = random_edits(model, edit, barred, n_random)
    dosed = [edit.now + d * (edit.values - edit.now) for d in DOSES]
    sets = torch.stack([*(e.sets() for e in edits), edit.sets(edit.now), *(edit.sets(values) for values in dosed)])
    logits = intervene(model, edit.tokens, torch.cat([sets, noise]), freeze_attention)
    plain = model.logits(edit.tokens)
    before, expected = best(model, plain), donor.answer
    want, was = model.token_id(expected), int(plain.argmax())
    probs = logits.softmax(-1)
    random = probs[len(edits) + 1 + len(DOSES) :]
    doses = probs[len(edits) + 1 : len(edits) + 1 + len(DOSES)]
    ceiling = best(model, patch_residual(model, edit, model.tokens(donor.prompt), freeze_attention), 1)[0]
    controls: dict[str, dict[str, Any]] = {
        "nothing": {"max_abs_logit_change": float((logits[len(edits)] - plain).abs().max())},
        "random": {
            "n": len(noise),
            "mean_prob": float(random[:, want].mean()),
            "flip_rate": float((random.argmax(-1) != was).float().mean()),
            "expected_rate": float((random.argmax(-1) == want).float().mean()),
            "mean_prob_kept": float(random[:, was].mean()),
        },
        "same_state": {"city": same.slots.get("city", old)}
        | best(model, logits[1], 1)[0]
        | {"kept": int(logits[1].argmax()) == was},
        "third_state": {"place": place_of(model, third).name, "expected": third.answer} | best(model, logits[2], 1)[0],
        "ceiling": ceiling | {"right": ceiling["token"] == expected},
        "transfer": _transfer(model, asked, donor, at, freeze_attention),
    }
    controls["third_state"]["right"] = controls["third_state"]["token"] == third.answer
    table = model.features.label
    return SwapResult(
        prompt, old, new, at, "frozen" if freeze_attention else "free", before, best(model, logits[0]), expected, controls,
        [{"dose": d, "old": float(p[was]), "new": float(p[want])} for d, p in zip(DOSES, doses, strict=True)],
        [f"{a}_{f}_{p}  {table[a, f]}" for a, p, f in edit.mask.nonzero().tolist()],
    )  # fmt: skip


def _transfer(model: Model, asked: Sentence, donor: Sentence, at: str, freeze_attention: bool) -> dict[str, Any]:
    """Do features chosen on this attribute's questions alone also move the place's other attributes?"""
    assert model.world is not None
    found_on, results = asked.slots.get("attribute"), {}
    shared = set(place_of(model, asked).attributes) & set(place_of(model, donor).attributes)
    for attribute in sorted(shared - {found_on}) if found_on else ():
        question, answer = (model.world.parse(s.prompt.replace(str(found_on), attribute)) for s in (asked, donor))
        edit = make_edit(model, question, answer, "state" if at == "all" else at, only=found_on)
        winner = best(model, intervene(model, edit.tokens, edit.sets()[None], freeze_attention)[0], 1)[0]
        results[attribute] = winner | {"expected": answer.answer, "right": winner["token"] == answer.answer}
    return {"found_on": found_on, "attributes": results}
