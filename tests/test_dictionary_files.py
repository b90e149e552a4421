"""Dictionaries as files: what SAELens writes is read, what is written SAELens reads, and a wrong file gets a sentence."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mi_workshop as mi
from mi_workshop.dictionary import DictionaryError, SparseDictionary, load, read, save
from mi_workshop.models import WEIGHTS

D, WIDTH, HOOK, OUT = 12, 40, "blocks.1.hook_resid_post", "blocks.2.hook_mlp_out"
SHAPES = {"W_enc": (D, WIDTH), "b_enc": (WIDTH,), "W_dec": (WIDTH, D), "b_dec": (D,)}
ARCHITECTURES = ("standard", "topk", "jumprelu", "transcoder", "jumprelu_transcoder")


def theirs(architecture: str, folder: Path, /, **settings: object) -> dict[str, torch.Tensor]:
    """A folder in SAELens' layout (6.54), with random weights."""
    torch.manual_seed(0)
    transcoder = architecture.endswith("transcoder")
    tensors = {name: torch.randn(shape) * 0.3 for name, shape in SHAPES.items()}
    if "jumprelu" in architecture:
        tensors["threshold"] = torch.rand(WIDTH)
    config = {
        "d_in": D, "d_sae": WIDTH, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": not transcoder, "normalize_activations": "none",
        "reshape_activations": "none", "architecture": architecture,
        "metadata": {"sae_lens_version": "6.54.12", "sae_lens_training_version": "6.54.12", "model_name": "atlas", "hook_name": HOOK}
        | ({"hook_name_out": OUT} if transcoder else {}),
    }  # fmt: skip
    config |= {"d_out": D} if transcoder else {}
    config |= {"k": 4, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config | settings), "utf-8")
    save_file(tensors, folder / "sae_weights.safetensors")
    return tensors


def formula(architecture: str, t: dict[str, torch.Tensor], x: torch.Tensor, tied: bool) -> torch.Tensor:
    """Activations as SAELens defines them."""
    pre = (x - t["b_dec"] if tied else x) @ t["W_enc"] + t["b_enc"]
    if architecture == "topk":
        top = pre.topk(4, dim=-1)
        return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    return pre.relu() * (pre > t.get("threshold", torch.zeros(())))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_of_saelens_gives_its_activations(architecture: str, tied: bool, tmp_path: Path) -> None:
    """Somebody's published dictionary would show other features than it has."""
    if tied and "transcoder" in architecture:
        pytest.skip("SAELens' transcoders have no tied bias")
    tensors, x = theirs(architecture, tmp_path, apply_b_dec_to_input=tied), torch.randn(50, D)
    dictionary = read(tmp_path)
    expected = formula(architecture, tensors, x, tied)
    torch.testing.assert_close(dictionary.encode(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary(x), expected @ tensors["W_dec"] + tensors["b_dec"], atol=1e-5, rtol=1e-5)
    assert (dictionary.reads, dictionary.writes) == (HOOK, OUT if "transcoder" in architecture else HOOK)


def ours(kind: str, transcoder: bool) -> SparseDictionary:
    torch.manual_seed(1)
    made = SparseDictionary(D, WIDTH, kind, reads=HOOK, writes=OUT if transcoder else HOOK, model="atlas", k=3)
    for tensor in (made.b_enc, made.b_dec):
        tensor.data.normal_()
    made.threshold.fill_(0.4 if kind in ("batchtopk", "jumprelu") else 0.0)
    return made.requires_grad_(False)


@pytest.mark.parametrize(("kind", "transcoder"), [(k, t) for k in ("l1", "topk", "batchtopk", "jumprelu") for t in (False, True) if (k, t) != ("topk", True)])  # fmt: skip
def test_written_and_read_again_nothing_changes(kind: str, transcoder: bool, tmp_path: Path) -> None:
    """A trained dictionary would be lost with the notebook's kernel."""
    made, x = ours(kind, transcoder), torch.randn(50, D)
    back = read(save(made, tmp_path / "sae"))
    assert (back.kind, back.reads, back.writes, back.model, back.k) == (kind, made.reads, made.writes, "atlas", 3)
    torch.testing.assert_close(back(x), made(x))
    sae_lens = pytest.importorskip("sae_lens", reason="needs SAELens, pip install sae-lens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    torch.testing.assert_close(theirs.encode(x), made.encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(theirs(x), made(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_itself_agrees(architecture: str, tmp_path: Path) -> None:
    """The layout that the other tests write would not be SAELens' any more."""
    sae_lens = pytest.importorskip("sae_lens", reason="needs SAELens, pip install sae-lens")
    theirs(architecture, tmp_path / "a")
    sae, x = sae_lens.SAE.load_from_disk(tmp_path / "a"), torch.randn(50, D)
    sae.save_model(tmp_path / "b")
    for folder in "ab":
        dictionary = read(tmp_path / folder)
        torch.testing.assert_close(dictionary.encode(x), sae.encode(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dictionary(x), sae(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["standard", "topk", "batchtopk", "jumprelu"])
def test_what_saelens_trained_is_read(kind: str, tmp_path: Path) -> None:
    """A learner who trained with SAELens could not go on here."""
    sae_lens = pytest.importorskip("sae_lens", reason="needs SAELens, pip install sae-lens")
    names = {"standard": "Standard", "topk": "TopK", "batchtopk": "BatchTopK", "jumprelu": "JumpReLU"}
    config = getattr(sae_lens, f"{names[kind]}TrainingSAEConfig")(d_in=D, d_sae=WIDTH, **({"k": 4} if "topk" in kind else {}))  # fmt: skip
    config.metadata.hook_name, config.metadata.model_name = HOOK, "atlas"
    trained = getattr(sae_lens, f"{names[kind]}TrainingSAE")(config)
    with torch.no_grad():
        trained.W_dec.mul_(torch.rand(WIDTH, 1) + 0.5)
    if kind == "batchtopk":
        trained.topk_threshold.fill_(0.1)
    trained.save_inference_model(tmp_path)
    sae, dictionary, x = sae_lens.SAE.load_from_disk(tmp_path), read(tmp_path), torch.randn(50, D)
    torch.testing.assert_close(dictionary(x), sae(x), atol=1e-5, rtol=1e-5)


def cut(folder: Path, name: str, keep: float = 0.5) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("standard", {"architecture": "gated"}, "of the architecture 'gated'; standard, transcoder, topk, jumprelu or jumprelu_transcoder"),
        ("standard", {"normalize_activations": "layer_norm"}, "normalises its inputs \\(layer_norm\\)"),
        ("standard", {"d_sae": 41}, "W_enc has the shape \\[12, 40\\], and \\[12, 41\\] is expected"),
        ("standard", {"d_sae": None}, "how large it is"),
        ("standard", {"metadata": {}}, "at which hook it reads"),
        ("jumprelu", {"architecture": "standard"}, "holds threshold, which an architecture 'standard' does not have"),
        ("standard", {"architecture": "jumprelu"}, "has no tensor threshold"),
        ("topk", {"k": 41}, "from 1 to 40 of 40 features, not 41"),
    ],
)  # fmt: skip
def test_a_foreign_file_gets_a_sentence(architecture: str, settings: dict[str, object], message: str, tmp_path: Path) -> None:  # fmt: skip
    """The user would get a traceback of another library, or, worse, a dictionary that is none."""
    theirs(architecture, tmp_path, **settings)
    with pytest.raises(DictionaryError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_file_that_is_cut_off_gets_a_sentence(name: str, tmp_path: Path) -> None:
    """A broken download would end in a traceback."""
    theirs("jumprelu", tmp_path)
    cut(tmp_path, name)
    with pytest.raises(DictionaryError, match=f"{name} is no .*, or cut off"):
        read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DictionaryError, match=f"has no {name}"):
        read(tmp_path)


def test_values_that_are_no_number_are_refused(tmp_path: Path) -> None:
    """Every reconstruction would be NaN, and the user would look for the fault elsewhere."""
    tensors = theirs("standard", tmp_path)
    tensors["b_enc"][3] = torch.nan
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    with pytest.raises(DictionaryError, match="b_enc holds values"):
        read(tmp_path)


def test_topk_by_decoder_norm_is_folded(tmp_path: Path) -> None:
    """The k features would be chosen by another rule than in training."""
    tensors, x = theirs("topk", tmp_path, rescale_acts_by_decoder_norm=True), torch.randn(30, D)
    norms = tensors["W_dec"].norm(dim=1)
    pre = ((x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]) * norms
    top = pre.topk(4, dim=-1)
    acts = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    torch.testing.assert_close(read(tmp_path)(x), acts / norms @ tensors["W_dec"] + tensors["b_dec"], atol=1e-5, rtol=1e-5)  # fmt: skip


def test_a_dictionary_of_another_model_or_size_is_refused(atlas: mi.Model, tmp_path: Path) -> None:
    """Its features would be read off activations that it was never meant for."""
    theirs("standard", tmp_path)
    with pytest.raises(DictionaryError, match=r"for 12 dimensions at blocks\.1\.hook_resid_post, and atlas has 128"):
        read(tmp_path, model=atlas)
    config = json.loads((tmp_path / "cfg.json").read_text("utf-8"))
    config["metadata"]["model_name"] = "gpt2-small"
    (tmp_path / "cfg.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(DictionaryError, match="trained on gpt2-small, and the model is atlas"):
        read(tmp_path, model=atlas)


def test_a_failed_write_leaves_the_good_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk would cost the dictionary that was there."""
    save(ours("l1", False), tmp_path)
    before = load_file(tmp_path / "sae_weights.safetensors")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("mi_workshop.models.tensors.save_file", full)
    with pytest.raises(OSError):
        save(ours("batchtopk", False), tmp_path)
    assert load_file(tmp_path / "sae_weights.safetensors").keys() == before.keys() and read(tmp_path).kind == "l1"


def test_a_topk_transcoder_is_not_written(tmp_path: Path) -> None:
    """SAELens would read it as something else."""
    with pytest.raises(DictionaryError, match="no TopK transcoders"):
        save(ours("topk", True), tmp_path)


SHIPPED = sorted(path.parent for path in WEIGHTS.glob("*/sae_*/cfg.json"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_every_dictionary_that_ships_can_be_loaded_by_its_name(folder: Path) -> None:
    """A notebook's line would end in an error, or get another dictionary than it names."""
    model, (_, layer, width) = folder.parent.name, folder.name.split("_")
    found = load(model, int(layer), int(width))
    assert (found.model, found.layer, found.width) == (model, int(layer), int(width))
    torch.testing.assert_close(found.W_dec.norm(dim=1), torch.ones(found.width), atol=2e-3, rtol=0)
    assert found.provenance["k"] == found.k


def test_the_two_layers_and_three_sizes_of_the_course_are_there() -> None:
    """Splitting needs three sizes of one layer, universality the same layer of two models."""
    names = {f"{folder.parent.name}/{folder.name}" for folder in SHIPPED}
    assert names == set(importlib.import_module("training.dictionaries").NAMES)


def test_what_does_not_ship_gets_a_sentence_or_the_next_best(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook with one changed line would stop where there is no network."""
    for asked, message in {
        ("atlas", 1, 99): r"no dictionary of layer 1 with 99 features; there are layer 1 with 128, 512, 1024; layer 2",
        ("atlas-bug",): r"No dictionaries ship for atlas-bug; there are those of atlas, atlas-twin",
        ("nope",): r"no folder and no dictionary 'nope'",
    }.items():
        with pytest.raises(DictionaryError, match=message):
            load(*asked)
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    assert load("gpt2", layer=8, otherwise="atlas").model == "atlas"
    assert "pip install sae-lens. Going on with atlas." in capsys.readouterr().out
