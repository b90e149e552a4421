"""The full table of saliency: every method, every score, every model, on test inputs. ``python -m training.saliency`` writes
``mi_workshop/results/saliency.json`` (about half an hour of one core; an interrupted run goes on where it was).

What was decided before the test split was opened stands here and in ``mi_workshop.saliency.verdicts``: inputs, seeds, draws, and when a
method counts as exposing the Clever Hans. Every map explains the model's own answer, for CLIP the likeness to a true phrase.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter, sobel

from mi_workshop import results
from mi_workshop.files import write_text
from mi_workshop.models import load
from mi_workshop.models.attention_rnn import train
from mi_workshop.models.small import ImageModel
from mi_workshop.saliency.attribution import Attribution, attribute
from mi_workshop.saliency.checks import label_check, permuted, sanity_check
from mi_workshop.saliency.inputs import Problem, SaliencyError, problem
from mi_workshop.saliency.keys import Key, answer_keys
from mi_workshop.saliency.methods import METHODS
from mi_workshop.saliency.scores import scored, sensitivity, summary
from mi_workshop.saliency.verdicts import named
from mi_workshop.worlds import Anemia, Diabetes, Reviews, Rooms, Scenes
from mi_workshop.worlds.scenes import CUES, Scene
from training.scenes import RECIPES, fitted

SPLIT, SEED = "test", 1  # of the inputs; methods draw with seed 0, passage models are trained with seed 0
N = 32  # inputs of each kind
MOVED = 8  # of them, the first, whose maps are made again from noisy copies (sensitivity): that is what costs
DRAWS = {"infidelity": 64, "sensitivity": 3}
OPTIONS = {"kernel_shap": {"samples": 512}}  # its default is 1,024, too slow here
CHECKED = 6  # pictures and stories of the sanity checks
PARTIAL = Path(__file__).parent / ".checkpoints" / "saliency"
WORLDS = {"Rooms": Rooms, "Reviews": Reviews, "Anemia": Anemia, "Diabetes": Diabetes}


@dataclass(frozen=True)
class Unit:
    """One part of the table: a model and a kind of inputs."""

    model: str
    inputs: str
    pairs: Callable[[Any], list[tuple[Any, Any]]]  # of the model: (input, target)


def scenes(marker: str) -> list[Scene]:
    """The same pictures whatever the marker says: the label ("agreeing"), another label ("lying") or nothing ("silent")."""
    drawn = Scenes(SEED).sample(N, SPLIT)
    rng = np.random.default_rng(SEED)
    others = [[c for shape, c in CUES.items() if shape != s.label] for s in drawn]
    lies = [colours[int(rng.integers(3))] for colours in others]
    said = {"agreeing": [CUES[str(s.label)] for s in drawn], "lying": lies, "silent": [s.cue for s in drawn]}
    return [s.with_cue(c) for s, c in zip(drawn, said[marker], strict=True)]


def classified(marker: str) -> Callable[[Any], list[tuple[Any, Any]]]:
    return lambda model: [(s, model.predict(s)[0]) for s in scenes(marker)]


def passages(model: Any) -> list[tuple[Any, Any]]:
    drawn = model.world.sample(N, SPLIT, SEED)
    return [(p, model.world.classes[int(model.predict([p])[0][0].argmax())]) for p in drawn]


def prompts(model: Any) -> list[tuple[Any, Any]]:
    """Two-hop questions about cities held out of them, the attributes in turn."""
    places = list(model.world.places.values())
    chosen = [places[i] for i in np.random.default_rng(SEED).permutation(len(places))[:N]]
    asked = [model.world.two_hop(p.cities[1], list(p.attributes)[i % len(p.attributes)]) for i, p in enumerate(chosen)]
    assert all(s.stratum in ("city:test", "place:test", "place:validation") for s in asked)
    return [(s.prompt, model.top(s.prompt, 1)[0][0]) for s in asked]


def queries(model: Any) -> list[tuple[Any, Any]]:
    return [(s, s.objects[0].phrases()[0]) for s in scenes("silent")]


def captions(model: Any) -> list[tuple[Any, Any]]:
    return [(s.caption, s) for s in scenes("silent")]


UNITS = (
    Unit("scenes-cnn", "agreeing marker", classified("agreeing")),
    *(Unit("scenes-shortcut", f"{marker} marker", classified(marker)) for marker in ("agreeing", "silent", "lying")),
    Unit("scenes-clip", "pixels", queries), Unit("scenes-clip", "words", captions),
    *(Unit(name, "words", passages) for name in WORLDS), Unit("atlas", "tokens", prompts),
)  # fmt: skip


def model_of(name: str) -> Any:
    return train(WORLDS[name](), progress=False) if name in WORLDS else load(name)


def controls(p: Problem, i: int) -> Iterator[Attribution]:
    """Maps that know nothing of the model: smooth noise (noise, for words), and a picture's edges (Sobel)."""
    noise = np.random.default_rng([SEED, i]).standard_normal(np.shape(p.shown)[:2])
    blank = Attribution(gaussian_filter(noise, 4) if p.picture else noise, p.shown, p.target, "(noise)", "", 0.0)
    yield blank
    if p.picture:
        grey = np.asarray(p.shown) @ [0.299, 0.587, 0.114]
        yield replace(blank, scores=np.hypot(sobel(grey, 0), sobel(grey, 1)), method="(edges)")


def rows_of(p: Problem, key: Key, i: int) -> dict[str, dict[str, float]]:
    """{method: its scores} for one input."""

    def row(a: Attribution) -> dict[str, float]:
        found = scored(a, p, key, draws=DRAWS["infidelity"])
        if p.picture:
            for column, rule in (("", "mean"), ("_by_absolute_mean", "absolute mean"), ("_by_sum", "sum")):
                found[f"names_marker{column}"] = float(named(a, key, rule) == "marker")
            found["marker_decides"] = float(key.strongest == "marker")
        return found

    out = {a.method: row(a) for a in controls(p, i)}
    for method in METHODS:
        options = OPTIONS.get(method, {})
        try:
            a = attribute(p, None, method=method, **options)
        except SaliencyError:
            continue
        moved = sensitivity(p, method, draws=DRAWS["sensitivity"], **options) if i < MOVED else np.nan
        out[method] = row(a) | {"sensitivity": moved, "seconds": a.seconds}
    return out


def measured(unit: Unit) -> pd.DataFrame:
    """The rows of one unit, (method, input) × score; what is there already is read, not measured again."""
    path = PARTIAL / f"{unit.model}-{unit.inputs.replace(' ', '-')}.json"
    done: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    model, start = model_of(unit.model), time.perf_counter()
    for i, (given, target) in list(enumerate(unit.pairs(model)))[len(done) :]:
        done.append(rows_of(problem(model, given, target), answer_keys(model, given, target), i))
        write_text(path, json.dumps(done))
        print(f"{unit.model}, {unit.inputs}: {i + 1} of {N}, {time.perf_counter() - start:.0f} s", flush=True)
    rows = {(method, i): row for i, each in enumerate(done) for method, row in each.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["method", "input"])


def long(unit: Unit, rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, interval and median of every score, indexed (model, inputs, method, score); scores that a method does not have are left out.

    The median is for ``insertion``, ``deletion`` and ``infidelity``: they are relative to the number's range, output minus output at the baseline, and where that is
    near zero (some notes) one input decides their mean."""
    found = summary(rows).stack(0, future_stack=True).dropna()
    middle = rows.groupby(level="method").median().stack()
    found["median"] = [float(middle[i]) for i in found.index]
    counted = rows.groupby(level="method").count().stack()
    found["n"] = [int(counted[i]) for i in found.index]
    return pd.concat({(unit.model, unit.inputs): found}, names=["model", "inputs", "method", "score"])


# -------------------------------------------------------------- sanity checks
LABELS = replace(RECIPES["scenes-cnn"], scenes=128, steps=300)  # small enough to be learned by heart


def relabelled() -> dict[str, ImageModel]:
    """The network of scenes-cnn trained on the same 128 pictures with the labels permuted among them, and (the control) with their own."""
    drawn = Scenes(LABELS.seed).sample(LABELS.scenes, "train")
    pixels = torch.from_numpy(np.stack([s.image for s in drawn])).permute(0, 3, 1, 2).contiguous()
    order = np.random.default_rng(SEED).permutation(len(drawn))
    said = {"random labels": [drawn[i] for i in order], "true labels": drawn}
    config = {"network": LABELS.network, "size": dict(LABELS.size)}
    out = {}
    for name, labels in said.items():
        module = fitted(LABELS, config, labels, pixels).eval()
        out[name] = ImageModel(name, module, Scenes(), Scenes.classes)
        right = np.mean([a == s.label for a, s in zip(out[name].predict(drawn), labels, strict=True)])
        print(f"{name}: {right:.0%} of its {len(drawn)} pictures learned", flush=True)
    return out


def twins(name: str) -> dict[str, Any]:
    """Models trained on random labels, and on true ones (the control), to be compared with ``name``."""
    if name == "scenes-cnn":
        return relabelled()
    out = {}
    for label, world in {"random labels": permuted(Rooms()), "true labels": Rooms()}.items():
        out[label] = train(world, n=300, epochs=30, progress=False)
        print(f"{label}: {out[label].accuracy(world.sample(300)):.0%} of its 300 stories learned", flush=True)
    return out


def sanity() -> pd.DataFrame:
    """How like maps stay to themselves: mean over inputs and its interval, indexed (model, check, method, layer)."""
    path = PARTIAL / "sanity.json"
    done: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    for name in ("scenes-cnn", "Rooms"):
        if any(row["model"] == name for row in done):
            continue
        model, others, rows = model_of(name), twins(name), []
        pairs = (
            passages(model)[:CHECKED] if name == "Rooms" else [(s, str(s.label)) for s in scenes("silent")[:CHECKED]]
        )
        for method in METHODS:
            options = {"samples": 128} if method == "kernel_shap" else {}
            try:
                found = {order: sanity_check(model, pairs, method, order, **options) for order in ("cascading", "independent")}  # fmt: skip
            except SaliencyError:
                continue
            found["labels"] = label_check(model, others, pairs, method, **options)
            for check, table in found.items():
                for layer, values in table.iterrows():
                    rows.append({"model": name, "check": check, "method": method, "layer": layer, "values": values.tolist()})  # fmt: skip
            print(f"sanity checks of {name}: {method}", flush=True)
        write_text(path, json.dumps(done := done + rows))
    each = pd.DataFrame([row["values"] for row in done])
    each.index = pd.MultiIndex.from_frame(pd.DataFrame(done)[["model", "check", "method", "layer"]])
    return interval(each)


def interval(rows: pd.DataFrame, resamples: int = 1000) -> pd.DataFrame:
    """Mean over the columns and its 95 % interval (percentile bootstrap)."""
    values = rows.to_numpy()
    drawn = np.random.default_rng(0).integers(values.shape[1], size=(resamples, values.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means of nothing but NaN: constant maps
        low, high = np.nanpercentile(np.nanmean(values[:, drawn], -1), [2.5, 97.5], axis=1)
        means = np.nanmean(values, 1)
    return pd.DataFrame({"mean": means, "low": low, "high": high, "n": (~np.isnan(values)).sum(1)}, rows.index)


def main() -> None:
    torch.set_num_threads(1)
    started = PARTIAL / "seconds.json"  # of earlier, interrupted runs
    before, start = json.loads(started.read_text()) if started.is_file() else 0.0, time.perf_counter()
    try:
        found = pd.concat([long(unit, measured(unit)) for unit in UNITS])
        checked = sanity()
    finally:
        seconds = before + time.perf_counter() - start
        write_text(started, json.dumps(seconds))
    said = {
        "split": SPLIT, "seed": SEED, "inputs": N, "sensitivity": f"the first {MOVED} inputs, {DRAWS['sensitivity']} draws",
        "infidelity": f"{DRAWS['infidelity']} draws", "kernel_shap": f"{OPTIONS['kernel_shap']['samples']} samples (sanity checks: 128)",
        "intervals": "95 %, bootstrap over inputs",
    }  # fmt: skip
    path = results.store("saliency", {"scores": found, "sanity": checked}, "python -m training.saliency", seconds, **said)  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
