"""Training of sparse dictionaries: the written-out gradients are right, faults are named, what is measured means what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mi_workshop as mi
from mi_workshop import dictionary as dictionaries
from mi_workshop.dictionary import KINDS, DictionaryError, SparseDictionary, activations, quality, train
from mi_workshop.dictionary.history import History, Live
from mi_workshop.dictionary.quality import Quality
from mi_workshop.dictionary.training import BANDWIDTH, Trainer, fit

HOOK = "blocks.1.hook_resid_post"


def planted(n: int = 4000, d: int = 16, features: int = 24, on: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations that are sums of a few of ``features`` known directions, and the directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(features, d, generator=generator), dim=1)
    acts = torch.zeros(n, features)
    acts.scatter_(1, torch.rand(n, features, generator=generator).topk(on).indices, 1 + torch.rand(n, on, generator=generator))  # fmt: skip
    return acts @ directions, directions


@pytest.mark.parametrize("transcoder", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_written_out_gradients_are_those_of_autograd(kind: str, transcoder: bool) -> None:
    """Training would go somewhere else than down the loss, and only look like training."""
    torch.manual_seed(0)
    x = torch.randn(64, 10) + 1
    y = x @ torch.randn(10, 7) if transcoder else x
    made = SparseDictionary(10, 30, kind, reads=HOOK, writes="blocks.1.hook_mlp_out" if transcoder else HOOK, k=3, d_out=y.shape[1])  # fmt: skip
    trainer = Trainer(made, x, y, k=3, l1=0.1, l0=0.1)
    trainer.b_enc += 0.1 * torch.randn(30)
    with torch.no_grad():
        gradients, said = trainer.step(x, y, revive=False)
    E, W, b_enc, b_out, log_threshold = (w.clone().requires_grad_() for w in trainer.weights)
    pre = (x if transcoder else x - b_out) @ E.T + b_enc
    acts = pre.relu()
    threshold = log_threshold.exp()
    if kind == "topk":
        acts = acts * (acts >= acts.topk(3).values[:, -1:])
    elif kind == "batchtopk":
        acts = acts * (acts >= acts.flatten().topk(3 * 64).values[-1])
    elif kind == "jumprelu":
        acts = acts * (pre > threshold)
    loss = (y - acts @ (W / W.norm(dim=1, keepdim=True)) - b_out).square().sum(1).mean()
    assert said["error"] == pytest.approx(loss.item(), rel=1e-4)
    assert said["l0"] == pytest.approx(float((acts > 0).sum(1).float().mean()))
    loss = loss + (0.1 * acts.sum(1).mean() if kind == "l1" else 0)
    expected = torch.autograd.grad(loss, [E, W, b_enc, b_out])
    for ours, theirs in zip(gradients[:4], expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    if kind == "jumprelu":  # the estimator, by its definition
        free = acts.detach().requires_grad_()
        (by_acts,) = torch.autograd.grad((y - free @ W.detach() - b_out.detach()).square().sum(1).mean(), free)
        near = ((pre - threshold).abs() < BANDWIDTH / 2).float() / BANDWIDTH
        by_threshold = -(near * (threshold * by_acts + 0.1 / 64)).sum(0)
        torch.testing.assert_close(gradients[4], (by_threshold * threshold).detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_directions_are_found(kind: str) -> None:
    """A learner would judge dictionaries that never had a chance."""
    x, directions = planted()
    torch.manual_seed(0)
    made = SparseDictionary(16, 48, kind, reads=HOOK, k=2)
    fit(made, x, x, k=2, l1=0.1, l0=0.01, steps=500, batch=256, learning_rate=5e-3, progress=False)
    found = (made.W_dec @ directions.T).max(0).values
    assert (found > 0.95).float().mean() > 0.8, f"{kind} found {int((found > 0.95).sum())} of 24 planted directions"
    assert torch.allclose(made.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)
    assert made.history.table.fvu.iloc[-1] < 0.1


def test_batchtopk_after_training_has_k_features_per_token_and_needs_no_batch() -> None:
    """One threshold for all: a token's features must not hang on which others stand beside it."""
    x, _ = planted()
    torch.manual_seed(0)
    made = fit(SparseDictionary(16, 48, "batchtopk", reads=HOOK, k=2), x, x, k=2, steps=300, batch=256, progress=False)
    acts = made.encode(x)
    assert float((acts > 0).sum(1).float().mean()) == pytest.approx(2, abs=0.5)
    torch.testing.assert_close(made.encode(x[:5]), acts[:5])


def test_scale_and_offset_of_activations_do_not_matter() -> None:
    """Residual streams of different length would need different settings."""
    x, _ = planted(1000)
    fvus = []
    for scale, offset in ((1.0, 0.0), (50.0, 300.0)):
        torch.manual_seed(0)
        z = x * scale + offset
        made = fit(SparseDictionary(16, 32, "batchtopk", reads=HOOK, k=3), z, z, k=3, steps=150, batch=128, progress=False)  # fmt: skip
        fvus.append(float((z - made(z)).square().sum() / (z - z.mean(0)).square().sum()))
    assert fvus[1] == pytest.approx(fvus[0], rel=0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gated"}, "no dictionary of the kind 'gated': choose l1, topk, batchtopk, jumprelu"),
        ({"k": 0}, "k is a number of at least 1, not 0"),
        ({"k": 65}, "from 1 to 64 of 64 features, not k=65"),
        ({"kind": "l1", "l1": -1}, "l1 is a finite number"),
        ({"learning_rate": float("nan")}, "learning_rate is a finite number above 0, not nan"),
        ({"width": 10**9}, r"1,000,000,000 features need about .* GB of memory .* take at most"),
        ({"layer": 9}, r"atlas has no hook 'blocks\.9\.hook_resid_post'; there are blocks\.0"),
        ({"site": "hook_nothing"}, "no hook 'blocks.1.hook_nothing'"),
        ({"learning_rate": 1e30}, r"at step 1: the learning rate is too high \(learning_rate=1e\+30"),
        ({"kind": "l1", "l1": 1e12}, r"at step 0: the penalty is too large \(l1=1e\+12\)"),
    ],
)
def test_bad_settings_get_a_sentence(atlas: mi.Model, settings: dict[str, object], message: str) -> None:
    """The user would get a traceback, NaN weights, or a machine that swaps."""
    with pytest.raises(DictionaryError, match=message):
        train(atlas, **{"layer": 1, "width": 64, "steps": 5, "batch": 64, "progress": False} | settings)  # type: ignore[arg-type]


def test_after_a_fault_the_last_good_weights_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of training would end in NaN."""
    x, _ = planted(1000)
    step, steps = Trainer.step, iter(range(100))

    def faulty(self: Trainer, *args: object, **kwargs: object) -> object:
        gradients, said = step(self, *args, **kwargs)  # type: ignore[arg-type]
        return ([g * torch.nan for g in gradients] if next(steps) == 30 else gradients), said

    monkeypatch.setattr(Trainer, "step", faulty)
    made = SparseDictionary(16, 32, "batchtopk", reads=HOOK, k=3)
    with pytest.warns(UserWarning, match=r"at step 31: the learning rate .* these are the weights of step 30"):
        fit(made, x, x, k=3, steps=60, batch=128, progress=False)
    assert torch.isfinite(made(x)).all() and "step 31" in made.history.words()


def test_quality_of_a_perfect_and_of_an_empty_dictionary(atlas: mi.Model) -> None:
    """Loss recovered must mean: 1 for what changes nothing, 0 for what says nothing."""
    d = activations(atlas, HOOK).shape[1]
    perfect = SparseDictionary(d, 2 * d, "l1", reads=HOOK, model="atlas")
    with torch.no_grad():
        perfect.W_dec.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        perfect.W_enc.copy_(perfect.W_dec.T)
    found = quality(atlas, perfect)
    assert found.recovered == pytest.approx(1, abs=1e-3) and found.fvu < 1e-6 and found.l0 == pytest.approx(d, rel=0.05)
    empty = SparseDictionary(d, 8, "l1", reads=HOOK, model="atlas")
    with torch.no_grad():
        empty.b_enc.fill_(-1e6)
        empty.b_dec.copy_(activations(atlas, HOOK).mean(0))
    found = quality(atlas, empty)
    assert found.recovered == pytest.approx(0, abs=1e-4) and found.dead == 1 and found.l0 == 0
    assert "held-out" in found.words() and "not trained on" in found.words()
    with pytest.raises(DictionaryError, match="no split 'train'"):
        quality(atlas, empty, "train")


def test_a_transcoder_rebuilds_what_it_does_not_read(atlas: mi.Model) -> None:
    """The MLP would be explained by itself."""
    made = train(atlas, 1, 64, site="ln2.hook_normalized", writes="hook_mlp_out", steps=60, batch=256, progress=False)
    assert (made.reads, made.writes) == ("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out")
    read, written = (activations(atlas, hook) for hook in (made.reads, made.writes))
    assert float((written - made(read)).square().sum() / (written - written.mean(0)).square().sum()) < 0.5
    assert isinstance(quality(atlas, made), Quality)


def test_a_cross_layer_transcoder_is_trained_live(atlas: mi.Model) -> None:
    """The last kind of the lesson would exist as a file only."""
    made = dictionaries.train_cross_layer(atlas, 16, k=2, steps=6, batch=64, progress=False)
    assert [tuple(w.shape) for w in made.W_dec] == [(16, 4 - layer, 128) for layer in range(4)]
    assert made.history.rows and "features per token" in made.history.words()
    with pytest.raises(DictionaryError, match="from 1 to 16 of 16"):
        dictionaries.train_cross_layer(atlas, 16, k=17)


def test_curves_show_what_was_measured_and_live_is_silent_without_a_notebook() -> None:
    history = History("a dictionary", 100)
    live = Live(history, wanted=True)
    history.add(0, 1.2, 8.0, 0.0, None)
    history.add(99, 0.05, 8.0, 0.25, 0.97)
    live.update(last=True)
    assert live.handle is None, "a script would print pictures"
    assert "5.0% of the variance unexplained" in history.words() and "97.0% of the loss" in history.words()
    titles = [ax.get_title(loc="left") for ax in history.figure().axes]
    assert len(titles) == 4 and history.table.recovered.notna().sum() == 1
    np.testing.assert_allclose(history.figure().axes[0].lines[0].get_ydata(), [1.2, 0.05])
