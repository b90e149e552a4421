"""What tracing a prompt costs, as formulas. ``scale.py`` makes the page of them, ``measure_scale.py`` measures.

Memory is counted tensor by tensor as ``circuit_tracer.attribute`` 0.5 holds them (TransformerLens backend); tests compare every
formula with a tiny random model. Sizes are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

UPDATE_INTERVAL = 4  # batches between two rankings of the features, circuit-tracer's default


@dataclass(frozen=True)
class Shape:
    """A language model and its transcoders. ``active``: expected active features at one position, by layer (or their total);
    ``stored``: bytes per number in the files to download, of the model and of the transcoders."""

    n_layers: int
    d_model: int
    d_head: int
    n_heads: int
    n_kv: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    norm: str = "RMS"  # or "LN", "RMSPre" (no weights)
    gated: bool = True
    post_norms: bool = False  # Gemma 2 normalizes the output of a block, too
    qk_norm: bool = False
    rotary: bool = True
    tied: bool = True  # the files hold the embedding once, TransformerLens twice
    masks: int = 1  # kinds of attention mask: 2 where local and global layers alternate
    reads_normalized: bool = True  # the transcoders read after ln2: a float32 number, whatever the model's dtype
    features: int = 0  # of a layer
    clt: bool = False
    skip: bool = False
    active: tuple[int, ...] = ()
    stored: tuple[int, int] = (2, 2)

    # ------------------------------------------------------------ numbers that are stored
    @property
    def parameters(self) -> int:
        """Parameters of the ``HookedTransformer`` (it adds zero biases and a second copy of a tied embedding)."""
        d, heads, kv = self.d_model, self.n_heads * self.d_head, self.n_kv * self.d_head
        attention = d * (2 * heads + 2 * kv) + heads + 2 * kv + d + self.qk_norm * 2 * self.d_head
        mlp = (2 + self.gated) * d * self.d_mlp + self.d_mlp + d
        per_norm = {"RMS": d, "LN": 2 * d, "RMSPre": 0}[self.norm]
        positions = 0 if self.rotary else self.n_ctx * d
        ends = 2 * d * self.d_vocab + self.d_vocab + positions + per_norm
        return self.n_layers * (attention + mlp + (2 + 2 * self.post_norms) * per_norm) + ends

    @property
    def transcoder_parameters(self) -> int:
        decoders = self.n_layers * (self.n_layers + 1) // 2 if self.clt else self.n_layers
        weights = (self.n_layers + decoders) * self.features * self.d_model
        return weights + self.n_layers * (2 * self.features + self.d_model + self.skip * self.d_model**2)

    def buffers(self, size: int) -> int:
        """Attention masks [n_ctx, n_ctx] and rotary tables, shared among the layers."""
        return self.masks * self.n_ctx**2 + self.rotary * 2 * self.n_ctx * self.d_head * size

    @property
    def download(self) -> tuple[int, int]:
        """Bytes of the model's and of the transcoders' files."""
        model = self.parameters - self.tied * self.d_vocab * self.d_model
        return model * self.stored[0], self.transcoder_parameters * self.stored[1]


# Sizes from the models' configurations. Active features: GemmaScope's files carry their average L0 in their names; the list is the
# one in circuit-tracer's `gemma` set. The other sets publish none.
GEMMA_L0 = (76, 65, 49, 54, 88, 87, 95, 70, 52, 72, 88, 5, 6, 8, 8, 8, 10, 12, 13, 12, 11, 13, 15, 25, 37, 41)
GEMMA = Shape(
    26, 2304, 256, 8, 4, 9216, 256_000, 8192, post_norms=True, masks=2, features=16_384, active=GEMMA_L0, stored=(4, 4)
)
LLAMA = Shape(16, 2048, 64, 32, 8, 8192, 128_256, 2048, reads_normalized=False, features=131_072)
MODELS = {
    "gemma-2-2b, 16k per layer": GEMMA,
    "gemma-2-2b, 426k CLT": replace(GEMMA, clt=True, active=(), stored=(4, 2), reads_normalized=False),
    "llama-3.2-1b, 131k per layer": LLAMA,
    "qwen3-0.6b (width unknown to us)": Shape(28, 1024, 128, 16, 8, 3072, 151_936, 2048, qk_norm=True),
    "gpt2, 24.6k per layer": Shape(
        12, 768, 64, 12, 12, 3072, 50_257, 1024, "LN", False, rotary=False, features=24_576, stored=(4, 4)
    ),
}


@dataclass(frozen=True)
class Run:
    """One call of ``attribute``: ``tokens`` in the prompt (the first, <bos>, has no features), ``kept`` is ``max_feature_nodes``,
    ``active`` the active features by layer over all positions, ``size`` the bytes of the model's dtype."""

    shape: Shape
    tokens: int
    kept: int
    batch: int
    active: tuple[int, ...]
    logits: int = 10
    size: int = 2
    lazy: bool = False  # decoders stay on the disk (not possible with GemmaScope's .npz files)
    offload: bool = False

    @property
    def n_active(self) -> int:
        return sum(self.active)

    @property
    def n_kept(self) -> int:
        return min(self.kept, self.n_active)

    @property
    def writes(self) -> list[int]:
        """Decoder vectors that write to each layer: a cross-layer feature writes to its own and all later ones."""
        return [sum(self.active[: i + 1]) if self.shape.clt else n for i, n in enumerate(self.active)]

    @property
    def row(self) -> int:
        """Sources of a node: active features, error nodes, tokens."""
        return self.n_active + (self.shape.n_layers + 1) * self.tokens

    @property
    def nodes(self) -> int:
        """Nodes of the graph: the side of its adjacency matrix."""
        return self.n_kept + (self.shape.n_layers + 1) * self.tokens + self.logits

    @property
    def batches(self) -> int:
        """Backward passes."""
        return ceil(self.logits / self.batch) + ceil(self.n_kept / self.batch)

    # --------------------------------------------------------------------- memory
    @property
    def context(self) -> int:
        """Encoder and decoder vectors of the active features, error and token vectors, logits, indices."""
        s, d = self.shape, self.shape.d_model
        wide = 4 if s.reads_normalized else self.size
        vectors = (self.n_active + sum(self.writes)) * d * self.size
        indices = self.n_active * (4 * 8 + self.size) + (sum(self.writes) * 16 if s.clt else 0)
        return vectors + indices + self.tokens * (s.n_layers * d * wide + d * self.size + s.d_vocab * self.size)

    @property
    def retained(self) -> int:
        """What the forward pass leaves for the backward passes: copies of W_V and W_O, attention patterns, the input of each
        transcoder and the layer-norm scales; and the hooks' own copies of the decoder vectors."""
        s, places = self.shape, self.batch * self.tokens
        wide = 4 if s.reads_normalized else self.size
        weights = s.d_model * s.d_head * (s.n_heads + s.n_kv) * self.size
        pattern = places * s.n_heads * self.tokens * self.size
        norms = (1 + s.reads_normalized + s.post_norms) * places * 4
        layer = weights + pattern + places * s.d_model * wide + norms
        hooks = sum(self.writes) * (s.d_model * self.size + 16)
        return s.n_layers * layer + places * (2 * s.d_model * self.size + 4) + hooks

    @property
    def forward(self) -> int:
        """Beyond ``retained``, for a moment: the last MLP, with transposed copies of its weights where it is gated."""
        s, places = self.shape, self.batch * self.tokens
        copies = 3 * s.d_model * s.d_mlp * self.size if s.gated else 0
        narrow = self.size == 2 and s.norm == "RMS"
        return copies + places * (s.d_mlp * (3 if s.gated else 5) * self.size + s.d_model * (24 if narrow else 6))

    @property
    def backward(self) -> int:
        """Beyond ``retained``: gradients gathered at the position of every feature of the layer that has most of them
        [batch, feature, d_model], and the rows."""
        s, most = self.shape, max(self.writes)
        wide = 4 if s.reads_normalized else self.size
        gathered = self.batch * most * (s.d_model + 2) * self.size
        return gathered + self.batch * (self.row * self.size + 3 * self.tokens * s.d_model * wide)

    @property
    def ranking(self) -> int:
        """Beyond ``retained``: the edge matrix once more, float32, on the GPU, to rank the features that come next."""
        if self.n_kept == self.n_active:
            return 0
        last = (self.n_kept - 1) % (UPDATE_INTERVAL * self.batch) + 1
        return 4 * (self.logits + self.n_kept - last) * (self.row + self.logits)

    @property
    def edges(self) -> int:
        """In RAM while tracing: the edge matrix, float32."""
        return 4 * (self.n_kept + self.logits) * (self.row + self.logits)

    @property
    def packaging(self) -> int:
        """In RAM at the end: the edge matrix and its copies on the way to the square adjacency matrix."""
        rows, n = self.n_kept + self.logits, self.nodes
        return max(self.edges + 4 * rows * n, 8 * rows * n, 4 * (rows * n + n * n))

    @property
    def weights(self) -> int:
        return self.shape.parameters * self.size + self.shape.buffers(self.size)

    @property
    def transcoders(self) -> int:
        s = self.shape
        decoders = (s.n_layers * (s.n_layers + 1) // 2 if s.clt else s.n_layers) * s.features * s.d_model
        return (s.transcoder_parameters - self.lazy * decoders) * self.size

    @property
    def moved(self) -> tuple[int, int, int]:
        """What offloading takes from the GPU: the transcoders after the set-up, the MLPs after the forward pass, both embeddings
        after that."""
        s = self.shape
        mlp = s.n_layers * ((2 + s.gated) * s.d_model * s.d_mlp + s.d_mlp + s.d_model) * self.size
        return self.transcoders, mlp, (2 * s.d_model + 1) * s.d_vocab * self.size

    @property
    def phases(self) -> dict[str, int]:
        """The most the GPU holds in each phase (torch's ``max_memory_allocated``; CUDA itself and fragmentation come on top)."""
        s, held = self.shape, self.weights + self.context
        wide = 4 if s.reads_normalized else self.size
        lists = (self.n_active + sum(self.writes)) * s.d_model * self.size
        unembed = (s.d_model + self.tokens) * s.d_vocab * self.size  # TransformerLens turns W_U over in a copy
        answers = self.weights + unembed + self.tokens * s.n_layers * s.d_model * (wide + self.size)
        first, later = (self.moved[0], sum(self.moved[1:])) if self.offload else (0, 0)
        rest = held + self.transcoders - first + self.retained
        return {
            "setup": self.transcoders + max(answers, held + max(lists, replace(self, batch=1).forward)),
            "forward": rest + self.forward,
            "backward": rest - later + max(self.backward, self.ranking),
        }

    @property
    def peak(self) -> int:
        return max(self.phases.values())

    @property
    def cpu_peak(self) -> int:
        """The same where the GPU's memory is the RAM: the edges come on top."""
        rest = self.weights + self.transcoders + self.context + self.retained
        return max(self.peak, self.phases["backward"] + self.edges, rest + self.packaging)

    # ----------------------------------------------------------------------- time
    @property
    def flops(self) -> tuple[int, int]:
        """Floating-point operations of the forward passes and of one backward pass."""
        s, places = self.shape, self.batch * self.tokens
        attention = s.d_model * s.d_head * (2 * s.n_heads + 2 * s.n_kv)
        layer = attention + (2 + s.gated) * s.d_model * s.d_mlp
        setup = 2 * self.tokens * (s.n_layers * (layer + s.features * s.d_model) + s.d_model * s.d_vocab)
        back = 2 * places * s.n_layers * s.d_model * s.d_head * (s.n_heads + s.n_kv)
        return setup + 2 * places * s.n_layers * layer, back + 2 * self.batch * sum(self.writes) * s.d_model

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the forward passes and one backward pass must move: weights once each; the gathered gradients are read,
        written, and read again, the rankings read their matrix once per layer of depth (shared out over the passes)."""
        s = self.shape
        gathered = 3 * self.batch * sum(self.writes) * s.d_model * self.size
        rounds = ceil(self.n_kept / (UPDATE_INTERVAL * self.batch))
        ranking = rounds * (self.ranking // 2) * (s.n_layers + 2) // max(self.batches, 1)
        return 2 * self.weights + self.transcoders + self.retained, self.retained + gathered + ranking

    @property
    def operations(self) -> int:
        """Calls into torch, counted on Gemma's architecture (others have somewhat fewer): two forward passes, the backward passes."""
        return 441 * self.shape.n_layers + 61 + self.batches * (68 * self.shape.n_layers + 20)

    def floor(self, flops: float, bandwidth: float) -> float:
        """Seconds below which no machine of this speed can be (FLOP/s, bytes/s)."""
        once, each = (max(f / flops, t / bandwidth) for f, t in zip(self.flops, self.traffic, strict=True))
        return once + self.batches * each


def gemma_run(tokens: int, kept: int, batch: int, offload: bool = False) -> Run:
    """A prompt of this length on Gemma-2-2B, with GemmaScope's average L0 at every position but <bos>."""
    return Run(GEMMA, tokens, kept, batch, tuple(n * (tokens - 1) for n in GEMMA_L0), offload=offload)
