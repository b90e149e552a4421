"""What can go wrong with the Hugging Face Hub, a download or a library: each fault one sentence with the link or command that helps.

The Hub token is in none of them (``scrub``).
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mi_workshop.models import ModelError

HUB = "https://huggingface.co"
LIBRARIES = "pip install 'circuit-tracer>=0.5,<0.6' 'transformers>=4.56,<=4.57.3' 'huggingface-hub<1'"
AGAIN = "run the same line again: it goes on where it stopped"


def cache() -> Path:
    """The Hub's cache on this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def shown(path: Path) -> str:
    """A path as it may stand in a notebook that others read: without the name of the home folder."""
    return str(path).replace(os.path.expanduser("~"), "~", 1)


def scrub(text: object) -> str:
    """Without the Hub token, and on one line."""
    from huggingface_hub import get_token

    line = " ".join(str(text).split())
    token = get_token()
    return re.sub(r"hf_\w+", "hf_…", line.replace(token, "hf_…") if token else line)


@contextmanager
def faults(repo: str, files: Callable[[], list[Path]] = list) -> Iterator[None]:
    """Turn what the libraries raise into ModelError: one sentence with the link or command that helps. ``files`` are looked through
    for a damaged one when reading fails."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        said = _sentence(error, repo, files)
        raise ModelError(scrub(said)) from None


def _sentence(error: Exception, repo: str, files: Callable[[], list[Path]]) -> str:
    if isinstance(error, ImportError):
        return f"The installed libraries do not fit together ({error}): {LIBRARIES}."
    import requests
    import torch
    from huggingface_hub import errors

    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__:
        chain.append(cause)
    kinds = tuple(type(e) for e in chain)
    status = next((r.status_code for e in chain if (r := getattr(e, "response", None)) is not None), 0)

    def among(*types: type[BaseException]) -> bool:
        return any(issubclass(kind, types) for kind in kinds)

    if among(torch.OutOfMemoryError):
        return f"{repo} does not fit into the GPU's memory: restart the kernel to free it, or choose a smaller model (qwen3-0.6b)."
    if among(errors.OfflineModeIsEnabled):
        return offline(repo)
    if among(errors.GatedRepoError) or status == 403:
        return gated(repo, status)
    if status == 401 and "credentials" in str(error):
        return (
            f"Your Hugging Face token is not accepted (401): make another at {HUB}/settings/tokens, then hf auth login."
        )
    if among(errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) and not among(
        errors.LocalEntryNotFoundError
    ):
        return f"The Hub has no {repo}, or not with the files that are needed: see {HUB}/{repo}."
    if among(OSError) and any(getattr(e, "errno", 0) == 28 for e in chain):
        return f"The disk is full: free some space under {cache()}, then {AGAIN}."
    cut = (requests.exceptions.ChunkedEncodingError, ConnectionResetError, ConnectionAbortedError)
    if among(*cut) or "Consistency check failed" in str(error):
        return f"The download of {repo} broke off: {AGAIN}."
    if among(requests.exceptions.ConnectionError, requests.exceptions.Timeout, errors.LocalEntryNotFoundError):
        return unreachable(repo)
    if bad := next((path for path in files() if damaged(path)), None):
        whose = next((part[8:].replace("--", "/") for part in bad.parts if part.startswith("models--")), repo)
        return f"The file {bad.name} of {whose} is damaged: delete {bad.resolve()} and run the same line again."
    if status:
        return f"The Hugging Face Hub answered {status} to a request for {repo}: try again later, or see https://status.huggingface.co."
    return f"{repo} cannot be loaded ({type(error).__name__}: {error})."


def gated(repo: str, status: int) -> str:
    """What to do about a licence (403) or a missing token (401)."""
    from huggingface_hub import get_token

    if status == 401 or get_token() is None:
        return (
            f"{repo} needs a Hugging Face token: accept its licence at {HUB}/{repo}, make a token at {HUB}/settings/tokens, "
            "then run hf auth login (on Colab: add it as the secret HF_TOKEN)."
        )
    return f"Your Hugging Face token may not read {repo}: accept its licence at {HUB}/{repo} with the account that the token belongs to."


def unreachable(repo: str) -> str:
    return f"The Hugging Face Hub cannot be reached, and {repo} is not in the cache as a whole: check the network, then {AGAIN}."


def offline(repo: str) -> str:
    return (
        f"{repo} is not in the Hub cache ({shown(cache())}) as a whole, and the network is switched off: unset MI_WORKSHOP_OFFLINE and "
        "HF_HUB_OFFLINE to download it."
    )


def damaged(path: Path) -> bool:
    """Does a file in the Hub cache differ from the hash that it is named after?"""
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        long = len(blob.name) == 64
        digest = hashlib.sha256() if long else hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
        with blob.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
        return digest.hexdigest() != blob.name
    return path.suffix == ".npz" and not zipfile.is_zipfile(path)


def duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
