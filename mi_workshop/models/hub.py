"""The GPU tier: models and transcoders from the Hugging Face Hub, through circuit-tracer and TransformerLens.

Files come through the Hub's own client (its token, its cache, its progress bars, resuming where a download broke off); only
safetensors and ``.npz`` without pickles are read. What will be downloaded is said beforehand, every fault is one sentence
(``faults``), and the token is in none of them.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mi_workshop.models import ModelError, names
from mi_workshop.models.faults import cache, duration, faults, offline, unreachable

LARGE = 2 * 10**9  # bytes of weights that are not run on a CPU unless asked for
TYPES = {
    "clip": "CLIPModel",
    "vit": "ViTForImageClassification",
    "resnet": "ResNetForImageClassification",
}  # of models of pictures, by model_type
PACE = 20e6  # bytes a second: the download that the expected time is said for


@dataclass(frozen=True)
class Known:
    """A model, the transcoders made for it, by kind, and what Neuronpedia calls those."""

    repo: str
    transcoders: dict[str, str] = field(default_factory=dict)
    source_sets: dict[str, str] = field(default_factory=dict)
    pictures: bool = False  # a model that looks at pictures


def _qwen(size: str, tail: str = "-lowl0") -> Known:
    return Known(f"Qwen/Qwen3-{size.upper()}", {"plt": f"mwhanna/qwen3-{size}-transcoders{tail}"})


KNOWN = {
    "gemma-2-2b": Known(
        "google/gemma-2-2b",
        {"plt": "mwhanna/gemma-scope-transcoders", "clt": "mntss/clt-gemma-2-2b-426k"},
        {"plt": "gemmascope-transcoder-16k", "clt": "clt-hp"},
    ),
    "llama-3.2-1b": Known(
        "meta-llama/Llama-3.2-1B", {"plt": "mntss/transcoder-Llama-3.2-1B", "clt": "mntss/clt-llama-3.2-1b-524k"}
    ),
    "qwen3-0.6b": _qwen("0.6b"), "qwen3-1.7b": _qwen("1.7b"), "qwen3-4b": _qwen("4b", ""), "qwen3-8b": _qwen("8b", ""),
    "qwen3-14b": _qwen("14b"), "gpt2": Known("gpt2"),
    "clip-vit-base-patch32": Known("openai/clip-vit-base-patch32", pictures=True), "resnet-50": Known("microsoft/resnet-50", pictures=True),
    "vit-base-patch16-224": Known("google/vit-base-patch16-224", pictures=True),
}  # fmt: skip


def find(name: str, backend: str = "transformerlens") -> Known:
    """The model of that name: ours, TransformerLens', any CLIP, ViT or ResNet (or, for nnsight, any repository). Raises ModelError with the
    closest."""
    by_repo = {known.repo.lower(): known for known in KNOWN.values()}
    if known := KNOWN.get(name.lower()) or by_repo.get(name.lower()):
        return known
    repository = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)
    if backend == "nnsight" and repository:
        return Known(name)
    with faults(name):
        from transformer_lens.loading_from_pretrained import make_model_alias_map
    official = make_model_alias_map()
    if name.lower() in official:
        return Known(official[name.lower()])
    if repository:
        kind = str(json.loads(fetch(name, "config.json").read_text(encoding="utf-8")).get("model_type"))
        if kind in TYPES:
            return Known(name, pictures=True)
        raise ModelError(
            f"{name} (of the type {kind!r}) is not known to TransformerLens, and models of pictures are {', '.join(TYPES)}: choose another."
        )
    ours = [*names(), *KNOWN]
    close = difflib.get_close_matches(name, ours, n=1) or difflib.get_close_matches(name.lower(), official, n=1)
    raise ModelError(
        f"There is no model {name!r}: did you mean {(close or ours)[0]!r}? Shipped are {', '.join(names())}; from the Hub "
        f"come {', '.join(KNOWN)} and every other name that TransformerLens knows."
    )


# ---------------------------------------------------------------- download
@dataclass
class Part:
    """Files of one repository at one revision: what is needed, with sizes in bytes (0 where the Hub was not asked)."""

    repo: str
    revision: str | None
    files: dict[str, int]
    here: list[str]

    @property
    def missing(self) -> int:
        return sum(size for name, size in self.files.items() if name not in self.here)

    def paths(self) -> list[Path]:
        found = [cached(self.repo, name, self.revision) for name in self.files]
        return [path for path in found if path]


def cached(repo: str, name: str, revision: str | None = None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, name, revision=revision)
    return Path(path) if isinstance(path, str) and Path(path).exists() else None


def fetch(repo: str, name: str, revision: str | None = None) -> Path:
    """One small file (also the test whether the repository may be read); from the cache where the Hub cannot be asked."""
    from huggingface_hub import constants, hf_hub_download

    with faults(repo):
        if _ask(repo, revision) is not None:
            return Path(hf_hub_download(repo, name, revision=revision))
    if path := cached(repo, name, revision):
        return path
    raise ModelError(offline(repo) if constants.HF_HUB_OFFLINE else unreachable(repo))


def listing(repo: str, revision: str | None, wanted: Callable[[str], bool]) -> Part:
    """The files that are ``wanted``, from the Hub, or from the cache where it cannot be asked."""
    with faults(repo):
        info = _ask(repo, revision)
    if info is not None:
        files = {s.rfilename: int(s.size or 0) for s in info.siblings or [] if wanted(s.rfilename)}
        return Part(repo, revision, files, [name for name in files if cached(repo, name, revision or info.sha)])
    folder = cache() / f"models--{repo.replace('/', '--')}"
    ref = folder / "refs" / (revision or "main")
    root = folder / "snapshots" / (ref.read_text().strip() if ref.exists() else revision or "main")
    found = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*")) if p.is_file()]
    here = [name for name in found if wanted(name)]
    return Part(repo, revision, dict.fromkeys(here, 0), here)


def _ask(repo: str, revision: str | None) -> Any:
    """What the Hub knows about a repository; None where it cannot be asked."""
    import requests
    from huggingface_hub import HfApi, constants

    try:
        return (
            None
            if constants.HF_HUB_OFFLINE
            else HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=20)
        )
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):
        return None


def announce(parts: list[Part]) -> None:
    """Say what will be downloaded; ModelError if the disk cannot hold it."""
    if not (missing := sum(part.missing for part in parts)):
        return
    there = next(path for path in (cache(), *cache().parents) if path.exists())
    free = shutil.disk_usage(there).free
    what = " and ".join(part.repo for part in parts if part.missing)
    if missing > 0.98 * free:
        raise ModelError(
            f"The download of {what} takes {size_of(missing)} of disk and {there} has {size_of(free)} left: free some, or set HF_HOME to a "
            "folder on another disk."
        )
    print(
        f"Downloading {what}: {size_of(missing)}, about {duration(missing / PACE)} at {PACE / 1e6:.0f} MB/s; {size_of(free)} of disk is free. "
        "It is kept for the next time."
    )


def download(parts: list[Part]) -> None:
    """Get the files; one that is there stays, and a broken download goes on where it stopped."""
    from huggingface_hub import constants, snapshot_download

    for part in parts:
        if len(part.here) < len(part.files) and not constants.HF_HUB_OFFLINE:
            with faults(part.repo):
                snapshot_download(part.repo, revision=part.revision, allow_patterns=list(part.files))


def size_of(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def model_files(repo: str) -> Part:
    """Configuration, tokenizer and weights of a model; ModelError where the weights are pickled only, or not all in the cache.

    Where the main revision has pickled weights only, all files are those of the Hub's own conversion, if there is one."""
    config = fetch(repo, "config.json")
    names = ("tokenizer.model", "merges.txt", "vocab.txt")

    def wanted(f: str) -> bool:
        return "/" not in f and (f.endswith(".json") or f in names or bool(re.match(r"model.*\.safetensors$", f)))

    part = listing(repo, None, wanted)
    if not any(name.endswith(".safetensors") for name in part.files) and (revision := converted(repo)):
        config, part = fetch(repo, "config.json", revision), listing(repo, revision, wanted)
    weights = [name for name in part.files if name.endswith(".safetensors")]
    index = config.with_name("model.safetensors.index.json")
    if index.exists():
        weights = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    if not weights and any(part.files.values()):
        raise ModelError(
            f"{repo} has no safetensors weights, and pickled ones could run any program: they are not opened."
        )
    if not weights or any(name not in part.files for name in weights):
        raise ModelError(offline(repo))
    return part


def converted(repo: str) -> str | None:
    """The revision at which the Hub's own bot offers a repository's weights as safetensors; None where there is none."""
    from huggingface_hub import HfApi

    if _ask(repo, None) is None:
        found = sorted((cache() / f"models--{repo.replace('/', '--')}" / "refs").glob("refs/pr/*"))
        return f"refs/pr/{found[-1].name}" if found else None
    with faults(repo):
        offers = HfApi().get_repo_discussions(repo, author="SFconvertbot", discussion_type="pull_request")
        return next((o.git_reference for o in offers if o.author == "SFconvertbot" and o.is_pull_request), None)


def transcoder_files(reference: str) -> tuple[dict[str, Any], list[Part]]:
    """The configuration of a set of transcoders, ``owner/repository[/folder][@revision]``, and the files that it names."""
    import yaml
    from circuit_tracer.utils.hf_utils import HfUri, parse_hf_uri

    uri = HfUri.from_str(reference)
    folder = f"{uri.file_path}/" if uri.file_path else ""
    path = fetch(uri.repo_id, f"{folder}config.yaml", uri.revision)
    with faults(uri.repo_id, lambda: [path]):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = config["model_kind"]
    config |= {"repo_id": uri.repo_id, "revision": uri.revision, "subfolder": uri.file_path}
    config["scan"] = (
        uri.repo_id + (f"//{uri.file_path}" if uri.file_path else "") + (f"@{uri.revision}" if uri.revision else "")
    )
    if "transcoders" not in config:
        start = f"{folder}layer_" if kind == "transcoder_set" else folder
        return config, [
            listing(uri.repo_id, uri.revision, lambda f: f.startswith(start) and f.endswith(".safetensors"))
        ]
    asked: dict[tuple[str, str | None], set[str]] = {}
    for one in map(str, config["transcoders"]):
        if not one.startswith("hf://") or Path(one.partition("?")[0]).suffix not in (".npz", ".safetensors"):
            raise ModelError(f"{uri.repo_id} names {one!r}: only safetensors and npz files on the Hub are opened.")
        each = parse_hf_uri(one)
        asked.setdefault((each.repo_id, each.revision), set()).add(str(each.file_path))
    parts = [listing(repo, revision, files.__contains__) for (repo, revision), files in asked.items()]
    for part in parts:
        if lost := sorted(asked[part.repo, part.revision] - set(part.files)):
            raise ModelError(
                f"{part.repo} lacks {lost[0]}" + (f": {offline(part.repo)}" if not any(part.files.values()) else ".")
            )
    return config, parts


def local(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the paths of the downloaded files in place of their addresses."""
    from circuit_tracer.utils.hf_utils import parse_hf_uri

    if "transcoders" not in config:
        return config
    uris = [parse_hf_uri(str(one)) for one in config["transcoders"]]
    return config | {"transcoders": [str(cached(u.repo_id, str(u.file_path), u.revision)) for u in uris]}
