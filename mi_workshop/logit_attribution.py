"""Direct logit attribution: how much each component writes, straight into one logit (Elhage et al., "A Mathematical Framework
for Transformer Circuits", 2021). The scale of the final norm is frozen at its value in this run, so that the parts add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.lens import Prompt, Result, logit_lens, logits_of, token_ids
from mi_workshop.models import network


@dataclass(eq=False)
class LogitAttribution(Result):
    """``table``: ``component`` (``embed``, ``L2H1`` for head 1 of layer 2, ``MLP 2``, ``biases``), ``layer`` (-1 for ends) and
    ``value``, what it adds to the logit of ``token``, or to its lead over ``versus``. The values add up to ``logit``."""

    prompt: str
    label: str
    token: str
    versus: str
    logit: float
    table: pd.DataFrame

    @property
    def target(self) -> str:
        return f"logit of {self.token}" + (f" minus {self.versus}" if self.versus else "")

    def words(self) -> str:
        strongest = self.table.reindex(self.table.value.abs().sort_values(ascending=False).index).head(5)
        parts = ", ".join(f"{r.component} {r.value:+.2f}" for r in strongest.itertuples())
        return (
            f"The {self.target} at {self.label!r} of {self.prompt!r} is {self.logit:.2f}. Written directly, strongest first: {parts}; "
            f"all {len(self.table)} components together {self.table.value.sum():.2f}."
        )

    def figure(self) -> Any:
        from mi_workshop.lens_plots import draw_attribution

        return draw_attribution(self)


@torch.no_grad()
def direct_logit_attribution(
    model: Any, prompt: Prompt, token: str | int | None = None, versus: str | int | None = None, at: str | int = -1
) -> LogitAttribution:
    """Split the logit of ``token`` (by default the likeliest) at one position over all components.

    With ``versus`` the difference of two logits: what all logits share, and the softmax ignores, drops out. A head's part is without
    the output bias of its layer, which is among the ``biases``; an MLP's part has its bias. Where a model caps its logits, the parts add
    up to the logit before the cap. Raises LensError for a token or position that is not there.
    """
    net, ids = network(model), token_ids(model, prompt)
    lens = logit_lens(model, prompt)
    pos = lens.position(at)
    good = int(lens.final[pos].argmax()) if token is None else lens.vocabulary.id(token)
    bad = None if versus is None else lens.vocabulary.id(versus)
    _, cache = net.run_with_cache(ids[None], return_type=None)

    def here(name: str) -> Tensor:
        return cache[name][0, pos].float()

    def difference(values: Float[Tensor, "*any d_vocab"]) -> Float[Tensor, "*any"]:
        return (values[..., good] - (0 if bad is None else values[..., bad])).float()

    read, offset = difference(net.unembed.W_U), difference(net.unembed.b_U)  # [d_model], []
    if (norm := getattr(net, "ln_final", None)) is not None:
        offset = offset + (norm.b.float() @ read if hasattr(norm, "b") else 0)
        read = read * norm.w if hasattr(norm, "w") else read
        read = read - read.mean() if net.cfg.normalization_type.startswith("LN") else read  # centres what it reads
        read = read / here("ln_final.hook_scale")
    rows = [("embed", -1, here("blocks.0.hook_resid_pre") @ read)]
    for i, block in enumerate(net.blocks):
        own = read
        if net.cfg.use_normalization_before_and_after:  # a norm after the attention (Gemma 2), frozen too
            own = read * block.ln1_post.w / here(f"blocks.{i}.ln1_post.hook_scale")
        heads = torch.einsum("hd,hdm,m->h", here(f"blocks.{i}.attn.hook_z"), block.attn.W_O.float(), own)
        rows += [(f"L{i}H{head}", i, value) for head, value in enumerate(heads)]
        offset = offset + block.attn.b_O.float() @ own
        if f"blocks.{i}.hook_mlp_out" in cache:
            rows.append((f"MLP {i}", i, here(f"blocks.{i}.hook_mlp_out") @ read))
    rows.append(("biases", -1, offset))
    table = pd.DataFrame([(c, i, float(v)) for c, i, v in rows], columns=["component", "layer", "value"])
    final = here(f"blocks.{len(net.blocks) - 1}.hook_resid_post")
    logit = float(difference(logits_of(net, final[None, None])[0, 0]))
    name = lens.vocabulary.name
    return LogitAttribution(lens.prompt, lens.labels[pos], name(good), "" if bad is None else name(bad), logit, table)
