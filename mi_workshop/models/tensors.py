"""Files of the shipped models: safetensors and JSON. Nothing is unpickled; a missing or damaged file is named in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from mi_workshop.files import write
from mi_workshop.models import ModelError


def save_tensors(path: Path, tensors: dict[str, Tensor], half: bool = True) -> None:
    """Save as safetensors, in half precision where asked."""
    kept = {k: (v.half() if half and v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
    write(path, lambda p: save_file(kept, p))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Load safetensors as float32; ModelError names a missing or damaged file."""
    train = f"install mi-workshop again, or train it: python -m training {path.parent.name} in a clone"
    if not path.exists():
        raise ModelError(f"The weights file {path} is missing: {train}.")
    try:
        return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    except Exception as error:
        raise ModelError(f"The weights file {path} is damaged ({error}): {train}.") from None


def read_json(path: Path) -> Any:
    """Load JSON; ModelError names a missing or damaged file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"The model file {path} is missing or damaged ({error}): install mi-workshop again.") from None
