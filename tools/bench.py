"""How fast, and how much memory: ``python tools/bench.py``. Figures for a person to read; no test depends on them."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "Fact: the capital of the state containing Dallas is"
SCRIPT = str(Path(sys.executable).with_name("mi-workshop"))


def whole_process(*command: str, runs: int = 5) -> str:
    """Median and range of wall time, and peak memory of the largest run so far."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    return f"{statistics.median(seconds):6.2f} s ({min(seconds):.2f}–{max(seconds):.2f}), peak {peak:.0f} MB"


def ratio(runs: int = 20) -> str:
    """``trace`` against ``circuit_tracer.attribute`` in one process, in turns."""
    from circuit_tracer.attribution.attribute import attribute

    import mi_workshop as mi

    model = mi.load("atlas")
    tokens = model.tokens(PROMPT)
    calls = {
        "circuit-tracer": lambda: attribute(tokens, model.replacement, batch_size=256),
        "trace": lambda: mi.trace(model, PROMPT),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(runs + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= 3:  # the first ones warm up
                seconds[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(seconds[n]) for n in ("trace", "circuit-tracer"))
    return f"{ours * 1000:.0f} ms against {theirs * 1000:.0f} ms: {ours / theirs:.2f}×"


if __name__ == "__main__":
    print("import mi_workshop   ", whole_process(sys.executable, "-c", "import mi_workshop"))
    print("mi-workshop trace    ", whole_process(SCRIPT, "trace", PROMPT))
    with tempfile.TemporaryDirectory() as folder:
        print("mi-workshop demo     ", whole_process(SCRIPT, "demo", "--out", f"{folder}/dallas.html"))
    print("trace / attribute    ", ratio())
