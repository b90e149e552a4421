"""What happened while a dictionary was trained: a table, its curves, and the same curves drawn live in a notebook."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mi_workshop.show import Shown

PANELS = {
    "fvu": "unexplained variance (FVU)", "l0": "active features per token (L0)", "dead": "dead features", "recovered": "loss recovered",
}  # fmt: skip


@dataclass(eq=False)
class History(Shown):
    """``rows``: step, ``fvu`` (share of the variance that is not explained, of one batch), ``l0`` (active features per token), ``dead`` (share of
    features that have not fired for 100 steps), ``recovered`` (share of the model's loss that is recovered on held-out sentences, where it
    was measured). ``stopped``: why training ended before its time, if it did."""

    name: str
    steps: int
    rows: list[dict[str, float | None]] = field(default_factory=list, repr=False)
    stopped: str = ""

    def add(self, step: int, fvu: float, l0: float, dead: float, recovered: float | None) -> None:
        self.rows.append({"step": step, "fvu": fvu, "l0": l0, "dead": dead, "recovered": recovered})

    @property
    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows, columns=["step", *PANELS])
        return table.astype({"recovered": float})

    def words(self) -> str:
        if not self.rows:
            return f"{self.name}: nothing trained yet."
        now = self.rows[-1]
        loss = (
            "" if now["recovered"] is None else f", {now['recovered']:.1%} of the loss recovered on held-out sentences"
        )
        return (
            f"{self.name} after step {int(now['step'] or 0) + 1} of {self.steps}: {now['fvu']:.1%} of the variance unexplained, "
            f"{now['l0']:.1f} features per token, {now['dead']:.1%} of the features dead{loss}.{self.stopped and ' ' + self.stopped}"
        )

    def figure(self) -> Any:
        from mi_workshop.plots import BLUE, INK, new_figure, open_frames

        figure, table = new_figure(12, 3), self.table
        for ax, (column, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            line = table[["step", column]].dropna()
            ax.plot(line.step, line[column], color=BLUE, lw=2, marker="o", ms=3)
            if len(line):
                ax.annotate(
                    f"{line[column].iloc[-1]:.3g}", (line.step.iloc[-1], line[column].iloc[-1]), (-4, 16 if column == "fvu" else 6), textcoords="offset points",
                    ha="right", fontsize=12, color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )  # fmt: skip
            ax.set_title(title, fontsize=12, loc="left")
            ax.set_xlabel("step", fontsize=11)
            ax.set_xlim(0, self.steps)
            if column == "fvu" and (line[column] > 0).all() and len(line):
                ax.set_yscale("log")
            elif len(line):
                ax.set_ylim(min(0, line[column].min()), max(1, line[column].max()) * 1.08)
            open_frames(ax)
        return figure


class Live:
    """Draws a history in place while it grows, at most once a second; in a notebook alone, and silent where there is no display."""

    def __init__(self, history: History, wanted: bool) -> None:
        self.history, self.handle, self.drawn = history, None, time.monotonic()
        if wanted:
            from IPython.core.getipython import get_ipython

            shell: Any = get_ipython()
            self.wanted = shell is not None and hasattr(shell, "kernel")
        else:
            self.wanted = False

    def update(self, last: bool = False) -> None:
        if not self.wanted or not (last or time.monotonic() - self.drawn > 1):
            return
        from IPython.display import display

        data, metadata = self.history._repr_mimebundle_()
        if self.handle is None:
            self.handle = display(data, metadata=metadata, raw=True, display_id=True)
        else:
            self.handle.update(data, metadata=metadata, raw=True)
        self.drawn = time.monotonic()
