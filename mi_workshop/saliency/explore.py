"""``explore`` and ``picture_upload``: saliency with controls, for a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .attribution import Attribution
from .inputs import Problem
from .keys import Key
from .scores import against_keys, curve_areas, curves

if TYPE_CHECKING:
    from mi_workshop.widgets.saliency_controls import Explorer, PictureUpload


def explore(model: Any, input: Any, target: Any = None, method: str = "integrated_gradients") -> Explorer:
    """``attribute(model, input, target)`` with controls: the method, its baseline and its own options, and beside the map what it scores.

    Where a world knows the answer keys the score is against both of them (``answer_keys``, ``pointing``, ``mass``, ``agreement``), otherwise the
    areas under the insertion and deletion curves; with the seconds that the method took. Sliders act when they are let go. From Python:
    ``explore(...).method.value = "occlusion"``, ``.baseline.value = "black"``, ``.options["window"].value = 16``; then ``.attribution``, ``.scores``
    and ``.error`` (a sentence, "" where nothing went wrong). Raises SaliencyError for what cannot be explained to begin with.
    """
    from mi_workshop.widgets.saliency_controls import Explorer

    return Explorer(model, input, target, method)


def picture_upload(
    model: Any, query: str | None = None, picture: Any = None, method: str = "grad_cam"
) -> PictureUpload:
    """``explore`` for a picture of one's own: a button that uploads it, and a field for the ``query`` or the class (empty: the likeliest).

    Until something is uploaded it is about ``picture``, by default one of Scenes. The models of Scenes read a photo at 64 × 64 pixels, and a sentence
    says what they have never seen. From Python: ``.take(bytes)`` does what an upload does, ``.text.value = "a cat"``. Raises SaliencyError for a
    model that does not look at pictures.
    """
    from mi_workshop.widgets.saliency_controls import PictureUpload

    return PictureUpload(model, query, picture, method)


def against(p: Problem, a: Attribution, key: Key | None) -> dict[str, float]:
    """What ``explore`` shows beside a map: what it scores against both keys, or without one the areas of the insertion and deletion curves."""
    return against_keys(a, key) if key else curve_areas(curves(p, a.scores))


def in_words(s: dict[str, float], key: Key | None) -> list[str]:
    """The numbers of ``against`` as sentences."""
    if key is None:
        return [
            f"No answer key. Insertion {s['insertion']:.2f} (should be large), deletion {s['deletion']:.2f} (small)."
        ]
    lines = []
    for name, end, about, rank in (
        ("Model", "", f"what changes {key.model}", "tau"),
        ("World", "_world", "what should matter", "auc"),
    ):
        hit = "points at it" if s[f"pointing{end}"] else "points elsewhere"
        said = {"tau": "rank agreement τ", "auc": "AUC"}[rank]
        ranked = "" if np.isnan(s[rank]) else f", {said} {s[rank]:.2f}"
        lines.append(f"{name} key ({about}): {hit}, {s[f'mass{end}']:.0%} of the mass inside{ranked}.")
    return lines
