"""Stored results: if they came back other than they were written, notebooks would show numbers that nobody measured."""

import numpy as np
import pandas as pd
import pytest

from mi_workshop import results


def test_tables_come_back_as_they_were(tmp_path, monkeypatch):
    """A table read from the package is the one that the run wrote: names, types, gaps and order."""
    monkeypatch.setattr(results, "HERE", tmp_path)
    index = pd.MultiIndex.from_tuples([("rooms", 0), ("anemia", 1)], names=["world", "seed"])
    wide = pd.DataFrame({"f1": [0.5, np.nan], "guide": ["uniform", "<b>"], "n": [3, 4], "right": [True, False]}, index)
    plain = pd.DataFrame({"x": [1.25]}, pd.Index(["a"], name="method"))
    results.store("run", {"wide": wide, "plain": plain}, "python -m training run", 12.3, seeds=[0, 1])
    found = results.read("run")
    pd.testing.assert_frame_equal(found["wide"], wide)
    pd.testing.assert_frame_equal(found["plain"], plain)
    assert found.provenance["seeds"] == [0, 1] and "python -m training run" in str(found) and "torch" in str(found)


def test_unknown_results_are_named():
    """Whoever misspells a name is told which there are."""
    with pytest.raises(ValueError, match="no stored results 'debaet'"):
        results.read("debaet")
