"""Notebooks with hosted and GPU sections, under nbval, in the two states that a plain test run does not have.

Nothing there: the run of every notebook (``make test``) is that. A network: Neuronpedia's stand-in. A network and the weights: the Hub's
stand-in too, with a tiny Gemma under the real name. Both stand-ins are real servers on this machine.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from faults_help import PAGE, page
from hub_help import MARKED, Hub, build
from nbformat.v4 import new_code_cell
from neuronpedia_help import Standin

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NBVAL = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "--nbval-lax",
    "--nbval-current-env",
    "--nbval-cell-timeout=60",
]
TRUE = {  # what must hold at the end, or the notebook went on with Atlas
    "hosted": "assert type(published.model).__name__ == 'HostedModel' and gemma.name == 'atlas'",
    "gpu": "assert type(published.model).__name__ == 'HostedModel' and gemma.name == 'gemma-2-2b'",
}


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiers")
    plain = {k: v for k, v in os.environ.items() if k not in ("MI_WORKSHOP_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN")}
    plain |= {"NEURONPEDIA_API_KEY": MARKED, "MI_WORKSHOP_CACHE": str(folder / "cache")}
    hub = Hub(build(folder / "hub"))
    with Standin() as standin:
        hosted = plain | {"MI_WORKSHOP_NEURONPEDIA": standin.base}
        yield {
            "hosted": hosted | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "empty")},
            "gpu": hosted | hub.environment(folder / "home"),
        }
    hub.close()


@pytest.mark.parametrize("state", TRUE)
def test_the_notebooks_run(state, environments, tmp_path):
    """A learner who has the network or the GPU would meet a traceback that nobody without them sees."""
    running = []
    for name in (
        "06_attribution_graphs.ipynb",
        "07_dallas_to_austin.ipynb",
    ):  # at once: each waits for its servers now and then
        notebook = nbformat.read(NOTEBOOKS / "solutions" / name, as_version=4)
        notebook.cells.append(new_code_cell(TRUE[state]))
        nbformat.write(notebook, tmp_path / name)
        with open(tmp_path / f"{name}.txt", "w") as said:
            running.append(
                (
                    name,
                    subprocess.Popen([*NBVAL, name], cwd=tmp_path, env=environments[state], stdout=said, stderr=said),
                )
            )
    for name, process in running:
        code, said = process.wait(), (tmp_path / f"{name}.txt").read_text("utf-8")
        assert code == 0, said[-4000:]
        assert MARKED not in said


def test_the_page_of_faults_is_what_the_tests_hold():
    """Whoever looks a sentence up would not find it."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/faults_help.py"
