"""Training of sparse dictionaries against SAELens: ``python tools/bench_dictionary.py`` (needs ``pip install sae-lens``). For a person to read; no test depends on it.

Same activations in memory, batches of the same size drawn in the same way, width, steps, learning rate and schedule's length, in turns in one process, each on the threads that
OMP_NUM_THREADS says. SAELens' trainer as its own runner calls it, without logging; inputs scaled to its convention (mean square 1 in each direction). What
comes out is judged alike: FVU and L0 on all tokens.
"""

import sys
import time
from collections.abc import Iterator

import sae_lens
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig

import mi_workshop as mi
from mi_workshop.dictionary import SparseDictionary, activations
from mi_workshop.dictionary.training import fit

HOOK, WIDTH, BATCH, K, L1, RATE = "blocks.2.hook_resid_post", 512, 1024, 8, 0.05, 4e-3


def judged(x: torch.Tensor, rebuilt: torch.Tensor, acts: torch.Tensor) -> str:
    fvu = float((x - rebuilt).square().sum() / (x - x.mean(0)).square().sum())
    return f"FVU {fvu:.4f}, L0 {float((acts > 0).sum(1).float().mean()):.1f}"


def ours(x: torch.Tensor, kind: str, steps: int) -> tuple[float, str]:
    torch.manual_seed(0)
    made = SparseDictionary(x.shape[1], WIDTH, kind, reads=HOOK, k=K)
    start = time.perf_counter()
    fit(made, x, x, k=K, l1=L1, steps=steps, batch=BATCH, learning_rate=RATE, progress=False)
    seconds = time.perf_counter() - start
    return seconds, judged(x, made(x), made.encode(x))


@torch.no_grad()
def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * (x.shape[1] ** 0.5 / x.norm(dim=1).mean())


def theirs(x: torch.Tensor, kind: str, steps: int) -> tuple[float, str]:
    torch.manual_seed(0)
    x = scaled(x)
    d = x.shape[1]
    if kind == "l1":  # our penalty is in units of the mean length of the centred activations, theirs of the activations
        unit = float((x - x.mean(0)).norm(dim=1).mean())
        made = sae_lens.StandardTrainingSAE(
            sae_lens.StandardTrainingSAEConfig(d_in=d, d_sae=WIDTH, l1_coefficient=L1 * unit)
        )
    else:
        name = {"topk": "TopK", "batchtopk": "BatchTopK"}[kind]
        made = getattr(sae_lens, f"{name}TrainingSAE")(
            getattr(sae_lens, f"{name}TrainingSAEConfig")(d_in=d, d_sae=WIDTH, k=K)
        )
    made.b_dec.data.copy_(x.mean(0))
    config = SAETrainerConfig(
        total_training_samples=steps * BATCH, train_batch_size_samples=BATCH, lr=RATE, lr_end=0.0, lr_warm_up_steps=50, lr_decay_steps=steps // 5,
        adam_beta1=0.9, adam_beta2=0.99, dead_feature_window=100, logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield x[torch.randint(len(x), (BATCH,))]

    trainer = sae_lens.SAETrainer(config, made, batches())
    start = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - start
    made.eval()
    with torch.no_grad():
        if kind == "batchtopk":  # what it saves: JumpReLU at the threshold that it learned
            weights = made.state_dict()
            made.process_state_dict_for_saving_inference(weights)
            acts = ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).relu()
            acts = acts * (acts > weights["threshold"])
            return seconds, judged(x, acts @ weights["W_dec"] + weights["b_dec"], acts)
        acts = made.encode(x)
        return seconds, judged(x, made.decode(acts), acts.to_dense() if acts.is_sparse else acts)


def main(steps: int = 300, runs: int = 3) -> None:
    x = activations(mi.load("atlas"), HOOK)
    print(
        f"{len(x):,} activations at {HOOK} of atlas, {WIDTH} features, batches of {BATCH}, {steps} steps, {torch.get_num_threads()} threads, the best of {runs}"
    )
    for kind in ("l1", "topk", "batchtopk"):
        found = {"ours": [], "SAELens": []}
        for _ in range(runs):
            for name, run in (("SAELens", theirs), ("ours", ours)):
                found[name].append(run(x, kind, steps))
        speeds = {name: steps * BATCH / min(seconds for seconds, _ in rows) for name, rows in found.items()}
        said = "; ".join(f"{name} {speeds[name]:,.0f} tokens/s ({rows[0][1]})" for name, rows in found.items())
        print(f"{kind:10} {said}: {speeds['ours'] / speeds['SAELens']:.1f}×", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
