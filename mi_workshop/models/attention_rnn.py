"""A BiLSTM with additive attention that reads passages; trains in seconds. The kind of model of the debate on attention
(Bahdanau et al. 2015; Jain and Wallace 2019; Wiegreffe and Pinter 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from mi_workshop.worlds.passages import Passage, Passages

Guide = Callable[[Sequence[Passage]], Float[Tensor, "passage position"]]  # attention weights from elsewhere


class WeightedMean(nn.Module):
    """The mean of states by attention weights. ``pattern`` passes the weights through unchanged, as [passage, head, query, key] with one head
    and one query, the answer: hook it to read or change them, or to take their gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.pattern = nn.Identity()

    def forward(
        self, weights: Float[Tensor, "*way passage position"], states: Float[Tensor, "passage position width"]
    ) -> Float[Tensor, "*way passage width"]:
        weights = self.pattern(weights[..., None, None, :])[..., 0, 0, :]
        return torch.einsum("...nt,ntw->...nw", weights, states)


class AttentionRNN(nn.Module):
    """Embedding, encoder, additive attention, linear output.

    ``encoder="lstm"``: a bidirectional LSTM; ``"mlp"``: each token by itself through one layer, blind to its context. A question is read by the same
    encoder, and its mean state joins the attention's scores and the output.
    """

    def __init__(self, vocabulary: int, classes: int, width: int = 64, encoder: str = "lstm") -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        directions = [nn.LSTM(width, width // 2, batch_first=True) for _ in range(2)] if encoder == "lstm" else []
        self.lstm = nn.ModuleList(directions)  # forwards, and backwards
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if encoder == "mlp" else None
        self.key, self.query = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.mean, self.out = WeightedMean(), nn.Linear(2 * width, classes)

    def encode(self, tokens: Int[Tensor, "passage position"]) -> Float[Tensor, "passage position width"]:
        """State of each token; the padding after a passage is not read."""
        x = self.embed(tokens)
        if self.mlp is not None:
            return self.mlp(x)
        lengths, at = (tokens > 0).sum(1, keepdim=True), torch.arange(tokens.shape[1], device=tokens.device)
        turned = torch.where(at < lengths, lengths - 1 - at, at)[..., None].expand_as(x)  # each passage from its end
        forwards, backwards = self.lstm
        back = backwards(x.gather(1, turned))[0]  # [passage, position, width / 2]
        return torch.cat([forwards(x)[0], back.gather(1, turned[..., : back.shape[-1]])], -1)

    def forward(
        self, tokens: Int[Tensor, "passage position"], question: Int[Tensor, "passage word"] | None = None, weights: Tensor | None = None
    ) -> tuple[Float[Tensor, "passage class"], Float[Tensor, "passage position"]]:  # fmt: skip
        """Logits and attention weights; ``weights`` [passage, position] replace the model's own."""
        states = self.encode(tokens)  # [passage, position, width]
        asked = self.asked(question, states)
        if weights is None:
            scores = self.score(torch.tanh(self.key(states) + self.query(asked)[:, None]))[..., 0]
            weights = scores.masked_fill(tokens == 0, -torch.inf).softmax(-1)
        return self.answer(states, asked, weights), weights

    def answer(
        self, states: Float[Tensor, "passage position width"], asked: Float[Tensor, "passage width"], weights: Float[Tensor, "*way passage position"]
    ) -> Float[Tensor, "*way passage class"]:  # fmt: skip
        """Logits from states read with given weights; with leading axes, for each of several ways to weigh them."""
        context = self.mean(weights, states)
        return self.out(torch.cat([context, asked.expand_as(context)], -1))

    def asked(
        self, question: Int[Tensor, "passage word"] | None, states: Float[Tensor, "passage position width"]
    ) -> Float[Tensor, "passage width"]:
        """Mean state of the question; zeros where there is none."""
        return states.new_zeros(states[:, 0].shape) if question is None else self.encode(question).mean(1)


@dataclass(eq=False)
class PassageModel:
    """A trained ``module`` with its ``world``; ``guide`` gives the attention weights where the model does not compute its own."""

    module: AttentionRNN = field(repr=False)
    world: Passages = field(repr=False)
    guide: Guide | None = field(default=None, repr=False)

    def tokens(self, passages: Sequence[Passage]) -> tuple[Tensor, Tensor | None]:
        """Ids of the words [passage, position], padded with 0, and of the question [passage, word] where there is one."""
        ids = {word: i for i, word in enumerate(self.world.vocabulary)}
        rows = [torch.tensor([ids[w] for w in p.words]) for p in passages]
        questions = torch.tensor([[ids[w] for w in p.question] for p in passages])
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), questions if questions.shape[1] else None

    def labels(self, passages: Sequence[Passage]) -> Int[Tensor, " passage"]:
        return torch.tensor([self.world.classes.index(p.answer) for p in passages])

    @torch.no_grad()
    def predict(
        self, passages: Sequence[Passage], weights: Tensor | None = None
    ) -> tuple[Float[Tensor, "passage class"], Float[Tensor, "passage position"]]:
        """Probabilities and attention weights; ``weights`` [passage, position] are put in the place of the model's own."""
        if weights is None and self.guide:
            weights = self.guide(passages)
        logits, used = self.module(*self.tokens(passages), weights)
        return logits.softmax(-1), used

    def weights(self, passages: Sequence[Passage]) -> Float[Tensor, "passage position"]:
        """The attention weights; ``train(world, attention=model.weights)`` guides another model by them."""
        return self.predict(passages)[1]

    def accuracy(self, passages: Sequence[Passage]) -> float:
        """Share of right answers."""
        return (self.predict(passages)[0].argmax(-1) == self.labels(passages)).float().mean().item()


def uniform(passages: Sequence[Passage]) -> Float[Tensor, "passage position"]:
    """The same weight for every word of a passage."""
    rows = [torch.full((len(p.words),), 1 / len(p.words)) for p in passages]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of the rows of a batch, their logits and attention weights


def train(
    world: Passages, seed: int = 0, epochs: int = 5, attention: str | Guide = "learned", encoder: str = "lstm", n: int = 4000, progress: bool = True,
    loss: Loss | None = None,
) -> PassageModel:  # fmt: skip
    """Train on ``world.sample(n)`` (seconds on one core). ``attention``: ``"learned"``, ``"uniform"`` (frozen), or a function from passages
    to weights. ``loss`` stands in the place of cross-entropy. Raises ValueError for another word."""
    if isinstance(attention, str) and attention not in ("learned", "uniform"):
        raise ValueError(f"There is no attention {attention!r}: choose 'learned', 'uniform' or give a function.")
    torch.manual_seed(seed)
    guide = uniform if attention == "uniform" else None if isinstance(attention, str) else attention
    model = PassageModel(AttentionRNN(len(world.vocabulary), len(world.classes), encoder=encoder), world, guide)
    passages = world.sample(n)
    tokens, question = model.tokens(passages)
    labels, weights = model.labels(passages), guide(passages) if guide else None
    optimizer = torch.optim.Adam(model.module.parameters(), lr=5e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # in batches as small as these more threads wait for each other
    try:
        for _ in tqdm(range(epochs), desc=type(world).__name__, disable=not progress):
            for rows in torch.randperm(n).split(64):
                parts = [None if x is None else x[rows] for x in (question, weights)]
                logits, used = model.module(tokens[rows], *parts)
                cost = cross_entropy(logits, labels[rows]) if loss is None else loss(rows, logits, used)
                optimizer.zero_grad()
                cost.backward()
                nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
                optimizer.step()
    finally:
        torch.set_num_threads(threads)
    model.module.eval()
    return model
