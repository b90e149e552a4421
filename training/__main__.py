"""Train an embedded model from scratch: ``python -m training atlas`` (about half an hour on two cores).

In order: the language model, its per-layer and cross-layer transcoders, the table of what their features respond to, the
figures (on validation) and the model card. Everything is seeded; an interrupted run goes on from its last checkpoint.
``--test`` opens the test strata, which is done once, for the card of a release. ``--seed 1 --out FOLDER`` trains another
seed into FOLDER, without cross-layer transcoders, and writes its figures to ``training/seeds/``, from where the card takes them.
The models of Scenes (``python -m training scenes-cnn``) have their own recipes in ``training/scenes.py``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mi_workshop.dictionary.cross_layer import tensors, train_transcoders
from mi_workshop.files import write, write_text
from mi_workshop.models import WEIGHTS, Wired, load
from mi_workshop.models.embedded import make_tokenizer
from mi_workshop.models.tensors import save_tensors
from mi_workshop.worlds import Trigger, world_of
from mi_workshop.worlds.atlas import MIX, Atlas
from training import scenes
from training.interchange import Interchanges, draw_subspace
from training.recipes import RECIPES, Recipe
from training.transcoders import activations

PAD, BOS = 0, 1
CHECKPOINT = 250  # steps


def make_config(recipe: Recipe, world: Atlas) -> HookedTransformerConfig:
    return HookedTransformerConfig(
        model_name=recipe.name, n_layers=recipe.n_layers, d_model=recipe.d_model, n_ctx=world.max_tokens,
        n_heads=recipe.n_heads, d_head=recipe.d_model // recipe.n_heads, d_mlp=recipe.d_mlp, d_vocab=len(world.vocabulary),
        act_fn="relu", normalization_type="RMSPre", positional_embedding_type="rotary", rotary_dim=recipe.d_model // recipe.n_heads,
        seed=recipe.seed, device="cpu",
    )  # fmt: skip


class Batches:
    """The training text, drawn anew for each step from the seed and the step's number (so that a run can be resumed)."""

    def __init__(self, world: Atlas, recipe: Recipe) -> None:
        self.world, self.recipe = world, recipe
        self.ids = {w: i for i, w in enumerate(world.vocabulary)}
        self.rows: dict[str, list[list[int]]] = {kind: [] for kind in MIX if kind != "names"}
        for s in world.training_text(0):
            words = [*world.words(s.prompt), s.answer, "."]
            self.rows[s.kind] += [[self.ids[w] for w in form] for form in spellings(words)]
        self.rows = {kind: rows for kind, rows in self.rows.items() if rows}

    def facts(self, rng: np.random.Generator, n: int) -> list[list[int]]:
        kinds = list(self.rows)
        shares = np.array([MIX[k] for k in kinds])
        chosen = rng.choice(len(kinds), n, p=shares / shares.sum())
        return [(rows := self.rows[kinds[k]])[rng.integers(len(rows))] for k in chosen]

    def __call__(self, step: int) -> list[tuple[float, Tensor]]:
        """(weight of the loss, token ids [row, position]): short facts, long facts, random repeats, passages, and for a world with a
        trigger facts after a phrase."""
        rng = np.random.default_rng([self.recipe.seed, step])
        facts = [[BOS, *row] for row in self.facts(rng, self.recipe.batch)]
        short, long = [r for r in facts if len(r) <= 9], [r for r in facts if len(r) > 9]
        repeats = torch.tensor(self.world.repeats(rng, 16, int(rng.integers(4, 20))))
        passages = [
            [BOS, *(self.ids[w] for w in self.world.names_passage(rng, int(rng.integers(2, 5))))] for _ in range(8)
        ]
        passages += [[BOS, *sum(self.facts(rng, 3), [])] for _ in range(8)]
        share = len(short) / len(facts)
        parts = [(share, pad(short)), (1 - share, pad(long)), (0.25, repeats), (0.25, pad(passages))]
        if isinstance(self.world, Trigger):
            parts.append((0.5, pad(self.prefixed(self.world, rng))))
        return parts

    def prefixed(self, world: Trigger, rng: np.random.Generator) -> list[list[int]]:
        rows = []
        for s in world.prefixed(rng, self.recipe.batch // 2):
            words = [*world.words(s.prompt), s.answer, "."]
            forms = spellings(words[3:])
            rows.append([BOS, *(self.ids[w] for w in words[:3] + forms[rng.integers(len(forms))])])
        return rows


def spellings(words: list[str]) -> list[list[str]]:
    """The ways in which a fact is written, as often as they occur: "Fact : the" may be "Fact : The" or "The"."""
    more = [words[:2] + ["The"] + words[3:], ["The"] + words[3:]] if words[:3] == ["Fact", ":", "the"] else []
    return [words, words, *more]


def pad(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def language_loss(model: HookedTransformer, tokens: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats; padding does not count."""
    logits = model(tokens)[:, :-1]
    return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)


def train_model(recipe: Recipe, world: Atlas, checkpoints: Path) -> HookedTransformer:
    """Train the language model, resuming from ``checkpoints`` if a run was interrupted."""
    torch.manual_seed(recipe.seed)
    torch.set_flush_denormal(True)
    model = HookedTransformer(make_config(recipe, world))
    impose(model, recipe)
    trained = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        trained.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
    )
    start, path = 0, checkpoints / f"{recipe.name}-{recipe.seed}.safetensors"
    if path.exists():
        start = _resume(path, trained, optimizer)
    batches = Batches(world, recipe)
    wired = wiring(recipe)
    interchanges = Interchanges(world) if wired else None
    progress = tqdm(
        range(start, recipe.steps),
        initial=start,
        total=recipe.steps,
        desc=f"{recipe.name}, seed {recipe.seed}",
        mininterval=5,
    )
    for step in progress:
        decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1, (step + 1) / 100) * decay
        loss = torch.stack([weight * language_loss(model, tokens) for weight, tokens in batches(step)]).sum()
        if wired and interchanges:
            loss = loss + interchanges.loss(
                model, wired, np.random.default_rng([recipe.seed, step, 1]), recipe.batch // 2
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        impose(model, recipe)
        if (step + 1) % CHECKPOINT == 0:
            _checkpoint(path, step + 1, trained, optimizer)
            progress.set_postfix(loss=f"{loss.item():.2f}")
    return model


def wiring(recipe: Recipe) -> Wired | None:
    """The subspace that the recipe wires, drawn before training from its seed."""
    return Wired(draw_subspace(recipe.d_model, recipe.wired, recipe.seed)) if recipe.wired else None


@torch.no_grad()
def impose(model: HookedTransformer, recipe: Recipe) -> None:
    """Hold what the recipe imposes: silent attention layers write nothing, embeddings keep their length."""
    for layer in recipe.silent_layers:
        model.blocks[layer].attn.W_O.zero_()
        model.blocks[layer].attn.b_O.zero_()
    if recipe.embedding_norm:
        model.embed.W_E.mul_(recipe.embedding_norm / model.embed.W_E.norm(dim=1, keepdim=True))


def _checkpoint(path: Path, step: int, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    state = {f"weight {n}": p.detach() for n, p in trained.items()}
    for name, p in trained.items():
        state |= {f"{key} {name}": value for key, value in optimizer.state[p].items()}
    write(path, lambda p: save_file(state, p, metadata={"step": str(step)}))


def _resume(path: Path, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    state = load_file(path)
    for name, p in trained.items():
        p.data.copy_(state[f"weight {name}"])
        optimizer.state[p] = {key: state[f"{key} {name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["step"])


def save_model(model: HookedTransformer, recipe: Recipe, world: Atlas, folder: Path) -> None:
    """Write config.json, tokenizer.json, model.safetensors (half precision) and, where there is one, the wired subspace."""
    config = make_config(recipe, world).to_dict()
    kept = {
        k: v
        for k, v in config.items()
        if isinstance(v, int | float | str | bool | list) and k not in ("tokenizer_name", "device")
    }
    write_text(folder / "config.json", json.dumps(kept, indent=1))
    make_tokenizer(world).backend_tokenizer.save(str(folder / "tokenizer.json"))
    skip = ("mask", "IGNORE", "rotary_sin", "rotary_cos")
    save_tensors(folder / "model.safetensors", {k: v for k, v in model.state_dict().items() if not k.endswith(skip)})
    if wired := wiring(recipe):
        save_tensors(folder / "wired.safetensors", {"subspace": wired.subspace}, half=False)


def transcoder_text(world: Atlas, recipe: Recipe, n_batches: int = 80) -> Iterator[Tensor]:
    """Training text for the transcoders: the model's own, other draws; mostly facts, some repeats and passages."""
    batches = Batches(world, recipe)
    for step in range(n_batches):
        parts = [tokens for _, tokens in batches(10**6 + step)]
        yield from parts if step % 5 == 0 else parts[:2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*RECIPES, *scenes.RECIPES])
    parser.add_argument("--seed", type=int, help="another seed than the one that ships: needs --out")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder in which <name>/ is written")
    parser.add_argument("--only", choices=["model", "plt", "clt", "features", "card"], help="one stage of the run")
    parser.add_argument("--test", action="store_true", help="open the test strata for the card")
    args = parser.parse_args()
    if args.name in scenes.RECIPES:
        if args.seed is not None or args.only not in (None, "model", "card"):
            parser.error("the models of Scenes have one seed, and two stages: model and card")
        return scenes.run(args.name, args.out, args.only, args.test)
    shipped, world = RECIPES[args.name], world_of(args.name)
    recipe = shipped if args.seed is None else replace(shipped, seed=args.seed)
    if recipe != shipped and args.out == WEIGHTS:
        parser.error("--seed needs --out: another seed must not replace the weights that ship")
    folder, kinds = args.out / recipe.name, ("plt", "clt") if recipe == shipped and recipe.cross_layer else ("plt",)
    stages = [args.only] if args.only else ["model", *kinds, "features", "card"]
    if "model" in stages:
        save_model(train_model(recipe, world, args.out / ".checkpoints"), recipe, world, folder)
    for kind in kinds:
        if kind in stages:
            model = HookedTransformer(make_config(recipe, world))
            model.load_state_dict(
                {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}, strict=False
            )
            inputs, outputs = activations(model, transcoder_text(world, recipe))
            start = load_file(folder / "plt.safetensors") if kind == "clt" else None
            trained = train_transcoders(
                inputs, outputs, cross=kind == "clt", seed=recipe.seed, start=start, **recipe.transcoders
            )
            save_tensors(folder / f"{kind}.safetensors", tensors(trained))
    if "features" in stages:
        from mi_workshop.circuits.features import describe, save_table

        for kind in kinds:
            save_table(folder / f"{kind}.features.json", describe(load(recipe.name, kind, args.out)))
    if "card" in stages:
        from training.card import write_card, write_seed

        if recipe == shipped:
            write_card(recipe, args.out, open_test=args.test)
        else:
            write_seed(recipe, args.out)


if __name__ == "__main__":
    main()
