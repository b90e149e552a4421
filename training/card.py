"""Model cards, written from what ``evaluate`` measures.

Everything is tuned on validation; the test strata are opened once, for the card (``--test``), and the card says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mi_workshop import results
from mi_workshop.circuits.swap import FORMS
from mi_workshop.files import write_text
from mi_workshop.models import WEIGHTS, load
from mi_workshop.worlds import world_of
from training.evaluate import RANDOM_PER_PAIR, accuracies, figures, induction, swaps
from training.recipes import RECIPES, Recipe
from training.sisters import section

EVERY = 16  # on validation every 16th ordered pair of states is swapped
NAMES = {"plt": "per-layer", "clt": "cross-layer"}
SEEDS = Path(__file__).parent / "seeds"


def write_card(recipe: Recipe, folder: Path, open_test: bool) -> None:
    """Measure and write ``figures.json`` and ``card.md``; the test figures, once opened, are kept."""
    place = folder / recipe.name
    stored = json.loads((place / "figures.json").read_text()) if (place / "figures.json").exists() else {}
    for split, every in [("validation", EVERY), *([("test", 1)] if open_test else [])]:
        stored[split] = {
            kind: figures(load(recipe.name, kind, folder), split, every * step)
            for kind, step in (("plt", 1), ("clt", 4))
            if kind == "plt" or recipe.cross_layer
        }
    write_text(place / "figures.json", json.dumps(stored, indent=1))
    write_text(place / "card.md", card(recipe, stored, read_seeds(recipe.name)))


def write_seed(recipe: Recipe, folder: Path) -> None:
    """Measure another seed's model and per-layer transcoders on validation and write ``seeds/<name>-<seed>.json``."""
    model = load(recipe.name, "plt", folder)
    measured = {
        "seed": recipe.seed,
        "accuracy": accuracies(model, "validation"),
        "induction": induction(model),
        "swaps": swaps(model, "validation", every=EVERY),
    }
    write_text(SEEDS / f"{recipe.name}-{recipe.seed}.json", json.dumps(measured, indent=1))


def read_seeds(name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(SEEDS.glob(f"{name}-*.json"))]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _transcoders(kinds: dict[str, dict[str, Any]], n_layers: int) -> list[str]:
    """The card's lines about transcoders and swaps."""
    plt = kinds["per-layer"]
    return [
        "## Transcoders",
        "",
        "Unexplained share of MLP output variance (distinct inputs: where they are few, a lookup table would do as well).",
        "",
        f"| token | layer | {' | '.join(kinds)} | distinct inputs |",
        "|---|---|" + "---|" * (len(kinds) + 1),
        *(
            f"| {token} | {layer} | "
            + " | ".join(_share(f["unexplained"][token][layer]["fvu"]) for f in kinds.values())
            + f" | {plt['unexplained'][token][layer]['distinct_inputs']} |"
            for token in plt["unexplained"]
            for layer in range(n_layers)
        ),
        "",
        "Held-out questions with every MLP replaced at once (no error terms, attention recomputed):",
        "",
        "| MLPs | right | KL from intact (nats) |",
        "|---|---|---|",
        f"| intact | {plt['all_replaced']['intact']['accuracy']:.1%} | 0 |",
        *(
            f"| {name} transcoders | {f['all_replaced']['replaced']['accuracy']:.1%} | {f['all_replaced']['replaced']['kl']:.3f} |"
            for name, f in kinds.items()
        ),
        f"| mean-ablated | {plt['all_replaced']['mean-ablated']['accuracy']:.1%} | {plt['all_replaced']['mean-ablated']['kl']:.3f} |",
        "",
        "## Swaps of one state for another",
        "",
        "Held-out cities on both sides, capital question, attention frozen; *free*: not frozen. Random: matched sets of other "
        f"features, {RANDOM_PER_PAIR} for each pair. Pairs: how many ordered pairs of states were run, evenly spread.",
        "",
        "| transcoders | form | exact capital | free | same place keeps | third place's own | random: flips | random: expected | nothing (max logit) | pairs |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {at} | {r['exact']:.1%} | {r['exact_free']:.1%} | {r['same_place_kept']:.1%} | {r['third_place']:.1%} | "
            f"{r['random_flips']:.1%} | {r['random_expected']:.1%} | {r['nothing']:.0e} | {r['pairs']} |"
            for kind, f in kinds.items()
            for at, r in f["swaps"].items()
        ),
        "",
    ]


def card(recipe: Recipe, stored: dict[str, Any], seeds: list[dict[str, Any]]) -> str:
    split = "test" if "test" in stored else "validation"
    kinds = {NAMES[kind]: f for kind, f in stored[split].items()}
    plt = kinds["per-layer"]
    note = "opened once, for this card" if split == "test" else "the test strata have not been opened"
    lines = [
        f"# {recipe.name}",
        "",
        recipe.about,
        "",
        f"{recipe.n_layers} layers, d_model {recipe.d_model}, {recipe.n_heads} heads, d_mlp {recipe.d_mlp}, one token per word; "
        f"trained on the {type(world_of(recipe.name)).__name__} world only, seed {recipe.seed}, {recipe.steps} steps: `python -m training {recipe.name}`.",
        "",
        "What the design imposes: "
        + (
            f"the attention of layers {', '.join(map(str, recipe.silent_layers))} writes nothing, so that these layers see only "
            f"their own token, and every embedding has length {recipe.embedding_norm}, little beside what the MLPs write. That the "
            "state is found at the city is therefore built in."
            if recipe.silent_layers
            else "nothing about where a fact is looked up."
        ),
        "",
        f"Figures on {split} ({note}).",
        "",
        "| sentences | right | n |",
        "|---|---|---|",
        *(f"| {name} | {row['accuracy']:.1%} | {row['n']} |" for name, row in plt["accuracy"].items()),
        "",
        f"Induction: loss {plt['induction']['first']:.2f} nats on a random passage, {plt['induction']['second']:.2f} on its repetition.",
        *(section(recipe.name, plt["special"]) if "special" in plt else []),
        "",
        *(_transcoders(kinds, recipe.n_layers) if recipe.transcoders else ["It has no transcoders.", ""]),
        "## Where the state is",
        "",
        "Residual stream after one layer patched from another state's question: share of answers that follow.",
        "",
        "| patched at | " + " | ".join(f"layer {i}" for i in range(recipe.n_layers)) + " |",
        "|---|" + "---|" * recipe.n_layers,
        *(f"| {name} token | " + " | ".join(f"{v:.0%}" for v in row) + " |" for name, row in plt["where"].items()),
    ]
    if seeds:
        strata = [f"two_hop, {kind}:validation" for kind in ("city", "pair", "place")]
        shipped = stored["validation"]["plt"] | {"seed": recipe.seed}
        lines += [
            "",
            "## Other seeds",
            "",
            "The same recipe from other random starts, all on validation; swaps with per-layer transcoders.",
            "",
            "| seed | two-hop, held-out cities | held-out pairs | held-out places | repetition loss | "
            + " | ".join(f"swap, {at}" for at in FORMS)
            + " |",
            "|" + "---|" * (5 + len(FORMS)),
            *(
                f"| {s['seed']} | " + " | ".join(f"{s['accuracy'][k]['accuracy']:.1%}" for k in strata)
                + f" | {s['induction']['second']:.2f} | " + " | ".join(f"{s['swaps'][at]['exact']:.1%}" for at in FORMS) + " |"
                for s in (shipped, *seeds)
            ),
        ]  # fmt: skip
    return "\n".join([*lines, *dictionaries(recipe.name)]) + "\n"


def dictionaries(name: str) -> list[str]:
    """The section on the sparse dictionaries that ship with a model, from what ``training.dictionaries`` stored."""
    stored = results.read("dictionary_quality")
    rows = stored["shipped"]
    if (rows := rows[rows.index.str.startswith(f"{name}/")]).empty:
        return []
    return [
        "",
        "## Sparse dictionaries",
        "",
        f"BatchTopK autoencoders of the residual stream after a layer, saved in SAELens' layout: `{stored.provenance['command']}`, {stored.provenance['date']}. "
        "Figures on validation sentences, which had no part in training. k: the smallest of 2, 4, 8, 16 with which 512 features recover 98 % of the loss, chosen on `atlas`. "
        "Dead: fires at no token of the training text. Distinct: how many different activations there are in it.",
        "",
        "| dictionary | features | k | unexplained | features per token | dead | loss at the answer: intact, reconstruction, mean (nats) | recovered | distinct |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {str(path).split('/')[1]} | {int(r.width)} | {int(r.k)} | {r.fvu:.2%} | {r.l0:.1f} | {r.dead:.1%} | {r.intact:.3f}, {r.spliced:.3f}, {r.ablated:.3f} | {r.recovered:.1%} "
            f"| {int(r.trained_on):,} |"
            for path, r in rows.iterrows()
        ),
    ]


def rewrite_card(name: str) -> None:
    """Write ``card.md`` again from the figures that are stored."""
    place = WEIGHTS / name
    stored = json.loads((place / "figures.json").read_text())
    write_text(place / "card.md", card(RECIPES[name], stored, read_seeds(name)))
