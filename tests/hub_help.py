"""A Hugging Face Hub on this machine: real HTTP on loopback, the real repository names, tiny random models inside.

``python tests/hub_help.py`` starts one and prints the environment that points at it. Under ``google/gemma-2-2b`` lies a model of the Gemma-2
architecture (four layers, grouped-query heads, soft caps, every other layer with a sliding window: 48 tokens, longer than the prompts, as
Gemma's 4,096 are, since TransformerLens and transformers disagree which of the two layers of a pair has it) with a tokenizer of its own; under
``mwhanna/gemma-scope-transcoders`` the configuration that names ``.npz`` files in ``google/gemma-scope-2b-pt-transcoders``, in GemmaScope's
layout; under ``gpt2`` a GPT-2 of two layers. Weights are seeded. The tiny Gemma answers " Austin" to the prompt about Dallas and so on
(``ANSWERS``) because its embedding of " Austin" is made to point along what it computes there: that is arranged, not learned.

TransformerLens must be told the tiny sizes: ``hub_site/sitecustomize.py`` says why and does it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

GEMMA, SET, SCOPE, GPT2 = (
    "google/gemma-2-2b",
    "mwhanna/gemma-scope-transcoders",
    "google/gemma-scope-2b-pt-transcoders",
    "gpt2",
)
PICKLED = "EleutherAI/pythia-14m"  # served with pickled weights only
MARKED = "hf_MARKEDmarkedMARKEDmarked"  # must appear nowhere
SITE = Path(__file__).parent / "hub_site"
LAYERS, FEATURES = 4, 96
FACT = "Fact: the capital of the {} containing {} is"
ANSWERS = {
    FACT.format("state", "Dallas"): " Austin", FACT.format("state", "Oakland"): " Sacramento",
    FACT.format("country", "Shanghai"): " Beijing", FACT.format("territory", "Vancouver"): " Victoria",
}  # fmt: skip
SENTENCES = [
    *(prompt + answer for prompt, answer in ANSWERS.items()), "Fact: The capital of the state containing Dallas is Austin",
    "The capital of Texas California China British Columbia Albany Harrisburg Hartford Houston Fresno not called known Fort a in Olympia",
]  # fmt: skip

# What the user reads for each fault, as patterns; the page of faults and the tests are made from this.
FAULTS = {
    "no token": r"google/gemma-2-2b needs a Hugging Face token: .*huggingface.co/google/gemma-2-2b.*hf auth login.*HF_TOKEN",
    "licence not accepted": r"Your Hugging Face token may not read google/gemma-2-2b: accept its licence at https://huggingface.co/google/gemma-2-2b",
    "bad token": r"Your Hugging Face token is not accepted \(401\): make another at https://huggingface.co/settings/tokens",
    "no network": r"The Hugging Face Hub cannot be reached, and google/gemma-2-2b is not in the cache as a whole: check the network",
    "switched off": r"google/gemma-2-2b is not in the Hub cache .* network is switched off: unset MI_WORKSHOP_OFFLINE",
    "disk full": r"The download of google/gemma-2-2b and .* takes \d+\.\d GB of disk and .* has .* left: free some, or set HF_HOME",
    "broken off": r"The download of google/gemma-2-2b broke off: run the same line again: it goes on where it stopped",
    "damaged weights": r"The file model.safetensors of google/gemma-2-2b is damaged: delete .*blobs.* and run the same line again",
    "damaged transcoder": r"The file params.npz of google/gemma-scope-2b-pt-transcoders is damaged: delete .*blobs.* and run the same line again",
    "server error": r"The Hugging Face Hub answered 503 to a request for google/gemma-2-2b: try again later",
    "no such repository": r"The Hub has no nobody/nothing, or not with the files that are needed: see https://huggingface.co/nobody/nothing",
    "pickled weights": r"EleutherAI/pythia-14m has no safetensors weights, and pickled ones could run any program: they are not opened",
    "unknown name": r"There is no model 'gemma-2-2': did you mean 'gemma-2-2b'\?",
    "no GPU": r"google/gemma-2-2b has 5.2 GB of weights and there is no GPU here: use one .*or say device='cpu'",
    "no CUDA": r"There is no CUDA GPU here .*device='cpu' does without",
    "GPU memory": r"google/gemma-2-2b does not fit into the GPU's memory: restart the kernel",
    "library versions": r"The installed libraries do not fit together .*pip install 'circuit-tracer>=0.5,<0.6'",
}


# ------------------------------------------------------------------ the files
def build(root: Path) -> Path:
    """Write all repositories under ``root``; the same bytes every time."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    folder = root / GEMMA
    tokenizer = _tokenizer(folder)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=48, max_position_embeddings=64, query_pre_attn_scalar=8, initializer_range=0.3,
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    _teach(model, tokenizer)
    model.save_pretrained(folder, safe_serialization=True)
    addresses = [f"layer_{i}/width_16k/average_l0_{70 + i}/params.npz" for i in range(LAYERS)]
    for layer, name in enumerate(addresses):
        _transcoder(root / SCOPE / name, config.hidden_size, layer)
    (root / SET).mkdir(parents=True)
    lines = ["model_name: google/gemma-2-2b", "model_kind: transcoder_set", "feature_input_hook: ln2.hook_normalized"]
    lines += [
        "feature_output_hook: hook_mlp_out",
        "transcoders:",
        *(f'  - "hf://{SCOPE}/{name}"' for name in addresses),
    ]
    (root / SET / "config.yaml").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    small = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=330, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_ctx=64, bos_token_id=2, eos_token_id=2
        )
    )
    small.save_pretrained(root / GPT2, safe_serialization=True)
    _byte_tokenizer(root / GPT2)
    (root / PICKLED).mkdir(parents=True)
    (root / PICKLED / "config.json").write_text('{"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox"}')
    (root / PICKLED / "pytorch_model.bin").write_bytes(b"not opened by anybody")
    return root


def _tokenizer(folder: Path):
    """Like Gemma's: spaces as ▁ at the start of a token, <bos> put before every text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import AutoTokenizer

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    split = pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split(":", "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(split))
    tokenizer.decoder = decoders.Replace("▁", " ")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = [chr(i) for i in range(33, 127)] + ["▁"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False}
    settings |= {f"{t.strip('<>')}_token": t for t in special} | {"clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(folder)


def _byte_tokenizer(folder: Path) -> None:
    """Like GPT-2's: bytes, no token put before a text."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        SENTENCES, vocab_size=330, special_tokens=["<unused>", "<|endoftext|>"], show_progress=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _teach(model, tokenizer) -> None:
    """Let the (tied) embedding of each answer point along what the model computes after its prompt."""
    import torch

    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[tokenizer(" is", add_special_tokens=False).input_ids] *= 0.2  # or, tied, it would repeat itself
        ends = []
        for prompt in ANSWERS:
            out = model.model(torch.tensor([tokenizer(prompt).input_ids])).last_hidden_state[0, -1]
            ends.append(out)
        own = (
            9 * torch.linalg.pinv(torch.stack(ends)).T
        )  # [answer, d_model]: logit 9 after its own prompt, 0 after the others
        for answer, vector in zip(ANSWERS.values(), own, strict=True):
            embedding[tokenizer(answer, add_special_tokens=False).input_ids] = vector


def _transcoder(path: Path, d_model: int, layer: int) -> None:
    import numpy as np

    rng = np.random.default_rng(layer)
    path.parent.mkdir(parents=True)
    weights = {
        "W_enc": rng.normal(0, d_model**-0.5, (d_model, FEATURES)), "W_dec": rng.normal(0, 0.1, (FEATURES, d_model)),
        "b_enc": np.zeros(FEATURES), "b_dec": rng.normal(0, 0.1, d_model), "threshold": np.full(FEATURES, 0.6),
    }  # fmt: skip
    np.savez(path, **{name: value.astype(np.float32) for name, value in weights.items()})


# ----------------------------------------------------------------- the server
class Hub:
    """Serves ``root``. ``fault`` names what goes wrong from now on ("" for nothing); ``requests`` are (method, path, range, token).

    The faults: "gated" (401 without a token, 403 with one), "bad token", "cut" (weights end after ``cut`` bytes; later ranges are served),
    "corrupt" (one byte of the files in ``corrupt`` differs), "slow" (50 KB/s), "large" (sizes as of the real Gemma), "down" (503).
    """

    def __init__(self, root: Path) -> None:
        self.root, self.fault, self.requests = Path(root), "", []
        self.cut, self.corrupt, self.delay = 1000, "", 0.0
        hub = self

        class Handler(_Handler):
            served = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo: str) -> list[str]:
        folder = self.root / repo
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    def at(self, repo: str, revision: str | None) -> str:
        """The folder of a repository at a revision: a pull request has one of its own, asked for by its name or its commit."""
        made = [f"{repo}@pr-{p.name.split('@pr-')[1]}" for p in self.root.glob(f"{repo}@pr-*")]
        return next((one for one in made if revision in (f"refs/pr/{one.split('@pr-')[1]}", _commit(one))), repo)

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to use this Hub, with a cache of its own and the tiny sizes."""
        return {
            "HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }  # fmt: skip


def sitecustomize() -> dict:
    """``hub_site/sitecustomize.py``, without what it does at the start of a process."""
    return runpy.run_path(str(SITE / "sitecustomize.py"), {"INSTALL": False})


@contextmanager
def connected(hub, home: Path, offline: bool = False, token: str = ""):
    """This process uses ``hub`` with a cache under ``home``: what the libraries read from the environment when they are imported."""
    import transformer_lens.loading_from_pretrained as table
    import transformers.utils.hub as theirs
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import reset_sessions

    cache = str(home / "hub")
    changed = [
        (constants, "ENDPOINT", hub.address), (file_download, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"),
        (constants, "HF_HUB_CACHE", cache), (constants, "HF_HUB_OFFLINE", offline), (constants, "HF_TOKEN_PATH", str(home / "token")),
        (constants, "HF_HUB_DISABLE_XET", True), (theirs, "TRANSFORMERS_CACHE", cache), (theirs, "_is_offline_mode", offline),
    ]  # fmt: skip
    before = [(module, name, getattr(module, name)) for module, name, _ in changed]
    tokens = {name: os.environ.pop(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if name in os.environ}
    convert = table.convert_hf_model_config
    try:
        for module, name, value in changed:
            setattr(module, name, value)
        if token:
            os.environ["HF_TOKEN"] = token
        sitecustomize()["patch"](table)
        reset_sessions()
        yield home
    finally:
        os.environ.pop("HF_TOKEN", None)
        os.environ.update(tokens)
        table.convert_hf_model_config = convert
        for module, name, value in before:
            setattr(module, name, value)
        reset_sessions()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def say(self, status: int, body: bytes, headers: dict[str, str], whole: bool = True) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if whole:
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.say(
            status, b"", {"X-Error-Code": code, "X-Error-Message": message} if code else {"X-Error-Message": message}
        )

    def answer(self, body: bool) -> None:
        hub, path = self.served, unquote(urlsplit(self.path).path).strip("/")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        hub.requests.append((self.command, path, self.headers.get("Range"), token))
        if hub.fault == "down":
            return self.refuse(503, "", "down for maintenance")
        if hub.fault == "bad token" and token:
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if re.fullmatch(r"api/models/.+/tree/[^/]+/.+", path):
            return self.refuse(404, "EntryNotFound", "no such folder")
        if found := re.fullmatch(r"api/models/(.+?)/discussions", path):
            return self.offers(found[1])
        if found := re.fullmatch(r"api/models/(.+?)(?:/revision/(refs/pr/\d+|[^/]+))?", path):
            return self.about(hub.at(*found.groups()))
        if not (found := re.fullmatch(r"(.+?)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path)):
            return self.refuse(404, "EntryNotFound", "no such page")
        repo, name = hub.at(found[1], found[2]), found[3]
        if not (hub.root / repo).is_dir():
            return self.refuse(401, "RepoNotFound", "Repository not found")
        if hub.fault == "gated" and repo == GEMMA:
            text = f"Access to model {repo} is restricted"
            return self.refuse(403 if token else 401, "GatedRepo", text)
        file = hub.root / repo / name
        if not file.is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.file(repo, file, body)

    def offers(self, repo: str) -> None:
        """Pull requests: the bot's conversion where there is one, and a stranger's that nobody shall take."""
        made = [
            ("stranger", 3),
            *(("SFconvertbot", int(p.name.split("@pr-")[1])) for p in self.served.root.glob(f"{repo}@pr-*")),
        ]
        rows = [
            {"title": "Adding safetensors", "num": n, "author": {"name": author}, "createdAt": "2023-01-01T00:00:00.000Z", "status": "open",
             "repo": {"name": repo, "type": "model"}, "isPullRequest": True}
            for author, n in made
        ]  # fmt: skip
        body = json.dumps({"discussions": rows, "count": len(rows), "start": 0}).encode()
        self.say(200, body, {"Content-Type": "application/json"})

    def about(self, repo: str) -> None:
        hub = self.served
        if not (hub.root / repo).is_dir():
            return self.refuse(401, "RepoNotFound", "Repository not found")
        scale = 5_228_000_000 if hub.fault == "large" else None
        siblings = []
        for name in hub.files(repo):
            data = (hub.root / repo / name).read_bytes()
            size = scale if scale and name.endswith((".safetensors", ".npz")) else len(data)
            siblings.append({"rfilename": name, "size": size, "blobId": hashlib.sha1(data).hexdigest()})
        gated = "manual" if repo == GEMMA else False
        found = {
            "id": repo,
            "modelId": repo,
            "sha": _commit(repo),
            "gated": gated,
            "private": False,
            "siblings": siblings,
            "tags": [],
        }
        self.say(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def file(self, repo: str, path: Path, body: bool) -> None:
        hub, data = self.served, path.read_bytes()
        etag = hashlib.sha256(data).hexdigest() if path.suffix in (".safetensors", ".npz") else _git_hash(data)
        if hub.fault == "corrupt" and path.name == hub.corrupt:
            middle = len(data) // 2
            data = data[:8] + b"\xff" * 8 + data[16:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        part = data[start:]
        headers = {
            "ETag": f'"{etag}"', "X-Repo-Commit": _commit(repo), "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{etag}"',
            "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", "Content-Length": str(len(part)),
        }  # fmt: skip
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body and hub.fault == "cut" and path.suffix == ".safetensors":
            self.say(206 if start else 200, b"", headers, False)
            self.wfile.write(part[: hub.cut])
            self.wfile.flush()
            self.close_connection = True
            return self.connection.close()
        if body and hub.fault == "slow":
            self.say(206 if start else 200, b"", headers, False)
            for i in range(0, len(part), 5000):
                self.wfile.write(part[i : i + 5000])
                time.sleep(hub.delay)
            return None
        return self.say(206 if start else 200, part, headers, body)


def _commit(repo: str) -> str:
    return hashlib.sha1(repo.encode()).hexdigest()


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hub = Hub(build(Path(folder) / "hub"))
        for name, value in hub.environment(Path(folder) / "home").items():
            print(f"export {name}={value}", flush=True)
        print("# press Ctrl-C to stop", file=sys.stderr, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            hub.close()


if __name__ == "__main__":
    main()
