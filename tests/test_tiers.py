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


@pytest.mark.parametrize("name", ["06_attribution_graphs", "07_dallas_to_austin"])
@pytest.mark.parametrize("state", TRUE)
def test_the_notebook_runs(state, name, environments, tmp_path):
    """A learner who has the network or the GPU would meet a traceback that nobody without them sees."""
    notebook = nbformat.read(NOTEBOOKS / "solutions" / f"{name}.ipynb", as_version=4)
    notebook.cells.append(new_code_cell(TRUE[state]))
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    done = subprocess.run(
        [*NBVAL, f"{name}.ipynb"], cwd=tmp_path, env=environments[state], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert MARKED not in done.stdout + done.stderr


def test_the_page_of_faults_is_what_the_tests_hold():
    """Whoever looks a sentence up would not find it."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/faults_help.py"
