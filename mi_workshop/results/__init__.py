"""Tables of runs that take longer than a notebook may, stored as JSON beside where they come from: ``read("debate")``.

``python -m training NAME`` makes each again. Nothing here was typed in by hand, but for figures of other people's papers, which say so.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mi_workshop.files import write_text

HERE = Path(__file__).parent
LIBRARIES = ("mi-workshop", "torch", "captum", "shap", "numpy")


@dataclass(frozen=True, eq=False)
class Results:
    """``tables``: {name: DataFrame}, as ``results["f1"]``; ``provenance``: command, date, seconds, versions and what else the run says of itself."""

    tables: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Any]

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.tables[name]

    def __str__(self) -> str:
        p = self.provenance
        libraries = ", ".join(f"{name} {v}" for name, v in p["versions"].items())
        more = "; ".join(f"{k}: {v}" for k, v in p.items() if k not in ("command", "date", "seconds", "versions"))
        return f"Stored, not run here: {p['command']}, {p['date']}, {p['seconds']:.0f} s, {libraries}{f'; {more}' if more else ''}."

    def __repr__(self) -> str:
        return textwrap.fill(str(self), 88)


def read(name: str) -> Results:
    """The stored results of this name. Raises ValueError if there are none."""
    path = HERE / f"{name}.json"
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in HERE.glob("*.json"))) or "none"
        raise ValueError(f"There are no stored results {name!r}; there are {have}.")
    stored = json.loads(path.read_text(encoding="utf-8"))
    tables = {}
    for key, t in stored["tables"].items():
        index = pd.MultiIndex.from_tuples(map(tuple, t["index"]), names=t["index_names"])
        tables[key] = pd.DataFrame(
            t["rows"], index if len(t["index_names"]) > 1 else index.get_level_values(0), t["columns"]
        )
    return Results(tables, stored["provenance"])


def store(name: str, tables: Mapping[str, pd.DataFrame], command: str, seconds: float, **more: Any) -> Path:
    """Write tables (of plain columns; any index) with their provenance; numbers keep six digits. ``more``: what else the run says of itself."""
    stored: dict[str, Any] = {}
    for key, t in tables.items():
        index = [list(i) if isinstance(i, tuple) else [i] for i in t.index.tolist()]
        stored[key] = {"columns": [str(c) for c in t.columns], "index_names": list(t.index.names), "index": index, "rows": [[_plain(v) for v in row] for row in t.itertuples(index=False)]}  # fmt: skip
    versions = {library: version(library) for library in LIBRARIES}
    said = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "versions": versions,
    } | more
    lines = json.dumps({"provenance": said, "tables": stored}, ensure_ascii=False, allow_nan=False)
    return write_text(HERE / f"{name}.json", lines.replace("], [", "],\n[") + "\n")


def _plain(value: Any) -> Any:
    """What JSON holds: missing numbers as null."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return str(value)
