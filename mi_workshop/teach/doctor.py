"""Is this machine ready? ``doctor()`` looks and says, line by line, what is there and what to do about the rest.

It imports nothing heavy and runs in a fraction of a second. It touches the network only when asked:
``doctor(network=True)``, or ``mi-workshop doctor --network``.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from mi_workshop import cache
from mi_workshop.models import available_memory

PACKAGE = "mi-workshop"
WEIGHTS = Path(__file__).parents[1] / "models" / "weights" / "atlas"
SHOWN = ("torch", "transformers", "transformer-lens", "jupyterlab")  # circuit-tracer has a line of its own
CIRCUIT_TRACER_TESTED = "0.5.0"
TIERS_IN_THIS_VERSION = ("embedded", "hosted", "GPU")
MEMORY_GB = 1.0  # the embedded tier in a notebook
DISK_GB = 1.0
HOSTS = {"hosted graphs": "https://www.neuronpedia.org", "model downloads": "https://huggingface.co"}
SECONDS_TO_ANSWER = 3.0


@dataclass(frozen=True)
class Row:
    """One line of the report. ``ok`` is None where nothing is wrong but nothing was shown either."""

    name: str
    ok: bool | None
    detail: str
    todo: str = ""

    @property
    def mark(self) -> str:
        return {True: "OK", False: "NO", None: "--"}[self.ok]


@dataclass(frozen=True)
class Doctor:
    """What was found: ``checks`` of the machine, and the ``tiers`` of the workshop that it can run."""

    checks: tuple[Row, ...]
    tiers: tuple[Row, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.checks + self.tiers

    @property
    def ok(self) -> bool:
        """Is nothing wrong?"""
        return all(row.ok is not False for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"checks": [asdict(row) for row in self.checks], "tiers": [asdict(row) for row in self.tiers]}

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = []
        for row in self.rows:
            lines.append(f"{row.mark}  {row.name:{width}}  {row.detail}")
            if row.todo:
                lines.append(f"{'':{width + 6}}{row.todo}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "<tr><th>Name</th><th>State</th><th>Found</th><th>What to do</th></tr>"
        cells = ((row.name, row.mark, row.detail, row.todo) for row in self.rows)
        body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in cells)
        return f"<table>{head}{body}</table>"


def doctor(network: bool = False, stage: bool = False) -> Doctor:
    """Look at this machine. With ``network=True``, also ask whether the hosts of the other tiers answer; with ``stage=True`` run the
    talk instead, and say how fast its cells are (``preflight``)."""
    if stage:
        from mi_workshop.teach.preflight import preflight

        return preflight()
    here = [_python(), *_packages(), _circuit_tracer(), _weights(), _memory(), _disk()]
    hosted, hub = (_host(name, url, network) for name, url in HOSTS.items())
    gpu, token, cluster = _gpu(), _token(), _cluster()
    tiers = (
        _tier("embedded", [row for row in here if row.ok is False]),
        _tier("hosted", [hosted]),
        _tier("GPU", [gpu, token, hub]),
        _tier("cluster", [cluster]),
    )
    return Doctor((*here, hosted, hub, gpu, token, cluster), tiers)


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Row:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Row("Python", ok, version, "" if ok else "Install Python 3.11 or newer.")


def _packages() -> list[Row]:
    """The main packages with their versions, and one line for all that the package declares."""
    shown = {name: version_of(name) for name in SHOWN}
    rows = [Row(name, True if version else None, version or "not installed") for name, version in shown.items()]
    if version_of(PACKAGE) is None:
        return [*rows, Row("packages", False, f"{PACKAGE} is not installed", "pip install -e . in the clone.")]
    wrong = []
    for requirement in map(Requirement, metadata.requires(PACKAGE) or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = version_of(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append((str(requirement), f"{requirement.name} {version or 'is missing'}"))
    if not wrong:
        return [*rows, Row("packages", True, f"{PACKAGE} {version_of(PACKAGE)} and all that it needs")]
    todo = "pip install " + " ".join(f'"{requirement}"' for requirement, _ in wrong)
    return [*rows, Row("packages", False, ", ".join(found for _, found in wrong), todo)]


def _circuit_tracer() -> Row:
    version = version_of("circuit-tracer")
    if version is None:
        return Row("circuit-tracer", False, "not installed", f"pip install circuit-tracer=={CIRCUIT_TRACER_TESTED}")
    if version == CIRCUIT_TRACER_TESTED:
        return Row("circuit-tracer", True, f"{version}, the version tested")
    todo = f"If a graph looks wrong, pip install circuit-tracer=={CIRCUIT_TRACER_TESTED}"
    return Row("circuit-tracer", None, f"{version}, untested (tested: {CIRCUIT_TRACER_TESTED})", todo)


def _weights() -> Row:
    ok = any(WEIGHTS.glob("*.safetensors"))
    return Row(
        "weights",
        ok,
        "atlas" if ok else f"none in {WEIGHTS}",
        "" if ok else f"Install {PACKAGE} again",
    )


def _memory() -> Row:
    gb = available_memory() / 1e9
    ok = gb >= MEMORY_GB
    todo = "" if ok else f"Close other programs and notebooks until {MEMORY_GB:.0f} GB is free."
    return Row("memory", ok, f"{gb:.1f} GB available", todo)


def _disk() -> Row:
    home = cache.home()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    gb = shutil.disk_usage(there).free / 1e9
    ok = gb >= DISK_GB
    return Row("disk", ok, f"{gb:.1f} GB free", "" if ok else f"Free {DISK_GB:.0f} GB in your home folder.")


def _host(name: str, url: str, network: bool) -> Row:
    if not network:
        return Row(name, None, f"{url} not tried", "To try: mi-workshop doctor --network")
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method="HEAD"), timeout=SECONDS_TO_ANSWER).close()
    except HTTPError:
        pass  # an answer, if not a welcome
    except OSError as error:
        todo = "Check the connection (and HTTPS_PROXY, where there is a proxy)."
        return Row(name, False, f"{url} does not answer ({getattr(error, 'reason', error)})", todo)
    return Row(name, True, f"{url} answers")


def _gpu() -> Row:
    torch = sys.modules.get("torch")  # never imported for this: it takes seconds
    if torch is not None and torch.cuda.is_available():
        return Row("GPU", True, torch.cuda.get_device_name())
    if shutil.which("nvidia-smi") is None:
        return Row("GPU", None, "no NVIDIA GPU found", "For the GPU tier: open the notebook in Colab with a T4 GPU.")
    if (version_of("torch") or "").endswith("+cpu"):
        return Row(
            "GPU",
            None,
            "NVIDIA driver found, but torch is a CPU build",
            "For the GPU tier: pip install --force-reinstall torch",
        )
    if torch is not None:
        return Row(
            "GPU", None, "NVIDIA driver found, but torch sees no GPU", "For the GPU tier: see what nvidia-smi says."
        )
    return Row("GPU", True, "NVIDIA driver found")


def _token() -> Row:
    """Whether there is a Hugging Face token, where its own library looks for one. It is never read or shown."""
    home = Path(os.environ.get("HF_HOME") or cache.base() / "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable):
            return Row("Hugging Face token", True, f"in the variable {variable}")
    if file.is_file():
        return Row("Hugging Face token", True, f"in {file}")
    return Row("Hugging Face token", None, "none found", "For the GPU tier: hf auth login")


def _cluster() -> Row:
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        return Row("Dask scheduler", True, address)
    return Row("Dask scheduler", None, "none named", "For the cluster tier: set DASK_SCHEDULER_ADDRESS.")


def _tier(name: str, needs: list[Row]) -> Row:
    """OK when this version has the tier and every need is met; otherwise what to do about it."""
    missing = ", ".join(row.name for row in needs if not row.ok)
    if name not in TIERS_IN_THIS_VERSION:
        todo = "Go on with the embedded models" + (
            f"; later you will also need (above): {missing}." if missing else "."
        )
        return Row(f"{name} tier", False, f"not in version {version_of(PACKAGE) or 'unknown'} yet", todo)
    return Row(f"{name} tier", not missing, "not ready" if missing else "ready", missing and f"See above: {missing}.")
