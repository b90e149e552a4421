"""The shipped models: they must load without a network, know what the card says, and fail in one sentence."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import mi_workshop as mi
from mi_workshop.models import WEIGHTS, ModelError
from training.card import card, read_seeds
from training.evaluate import accuracies, all_replaced, induction, swaps, where_it_arises
from training.recipes import RECIPES


@pytest.mark.parametrize("name", ["atlas", "atlas-global"])
def test_the_card_says_what_a_run_measures(name):
    """Every figure on the card is printed from figures.json; those that take seconds are measured again here."""
    stored = json.loads((WEIGHTS / name / "figures.json").read_text())
    text = (WEIGHTS / name / "card.md").read_text()
    model = mi.load(name)
    for split, kinds in stored.items():
        figures = kinds["plt"]
        again = accuracies(model, split)
        for key, row in figures["accuracy"].items():
            assert again[key]["n"] == row["n"] and again[key]["accuracy"] == pytest.approx(row["accuracy"], abs=0.01)
        assert induction(model)["second"] == pytest.approx(figures["induction"]["second"], abs=0.02)
        for site, row in where_it_arises(model, split).items():
            assert row == pytest.approx(figures["where"][site], abs=0.05)
    assert card(RECIPES[name], stored, read_seeds(name)) == text


def test_one_hop_facts_are_known(atlas):
    """A model that does not know the facts cannot teach anything about how it uses them."""
    figures = accuracies(atlas, "validation")
    for key in ("one_hop, trained", "located, trained", "two_hop, trained"):
        assert figures[key]["accuracy"] >= 0.995, (key, figures[key])
    loss = induction(atlas)
    assert loss["second"] < loss["first"] / 3


def test_replacing_every_mlp_keeps_most_answers(atlas):
    """Graphs are drawn from the replacement model: if it answers otherwise, they explain another model."""
    figures = all_replaced(atlas, "validation")
    assert figures["replaced"]["accuracy"] > figures["mean-ablated"]["accuracy"]
    assert figures["replaced"]["kl"] < figures["mean-ablated"]["kl"]
    assert figures["intact"]["kl"] == pytest.approx(0, abs=1e-6)


def test_swap_rates_are_the_cards(atlas):
    """The headline rates, measured again on every 16th pair."""
    stored = json.loads((WEIGHTS / "atlas" / "figures.json").read_text())["validation"]["plt"]["swaps"]
    again = swaps(atlas, "validation", n_random=5, every=16)
    for at, row in again.items():
        assert row["exact"] == pytest.approx(stored[at]["exact"], abs=0.15)
        assert row["nothing"] <= 1e-4
        assert row["random_flips"] == pytest.approx(stored[at]["random_flips"], abs=0.1)


def test_labels_are_what_the_corpus_gives(atlas):
    """A label typed in, or left over from other weights, would teach something false."""
    from mi_workshop.circuits.features import describe, table

    fresh = table(describe(atlas))
    assert (fresh.label == atlas.features.label).mean() > 0.99
    assert (fresh.places == atlas.features.places).mean() > 0.99 and (fresh.places.str.len() > 0).sum() > 100


def test_import_is_light():
    """Notebooks that need no model must open at once."""
    code = "import sys, mi_workshop; assert not {'torch', 'transformers', 'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs root to cut the network off")
def test_everything_runs_with_the_network_cut_off():
    code = (
        "import mi_workshop as mi; m = mi.load('atlas'); p = 'Fact: the capital of the state containing Dallas is';"
        "mi.trace(m, p); print(mi.swap(m, p, 'Texas', 'California').expected)"
    )
    run = subprocess.run(["unshare", "-n", sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and "Sacramento" in run.stdout, run.stderr


def test_no_network_address_is_ever_asked_for(atlas, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError(f"asked for {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    mi.trace(mi.load("atlas"), "The capital of Texas is")


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(WEIGHTS / "atlas", tmp_path / "atlas")
    return tmp_path


def test_missing_and_damaged_files_are_named(copy):
    for name in ("config.json", "tokenizer.json", "model.safetensors", "plt.safetensors"):
        path = copy / "atlas" / name
        good = path.read_bytes()
        for bad in (None, good[: len(good) // 2], b"not a file"):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(ModelError, match=re.escape(name)) as error:
                mi.load("atlas", weights=copy)
            assert len(str(error.value).splitlines()) == 1
            path.write_bytes(good)
    mi.load("atlas", weights=copy)


@pytest.mark.parametrize(("name", "said"), [("altas", "did you mean 'atlas'"), ("", "atlas"), ("../x", "no model")])
def test_unknown_models_get_a_suggestion(name, said):
    with pytest.raises(ModelError, match=said):
        mi.load(name)
    with pytest.raises(ModelError, match="'plt'"):
        mi.load("atlas", transcoders="sae")
