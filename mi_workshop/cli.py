"""The command line: ``mi-workshop trace | swap | batch | graph | doctor | lab``. Bad input is one sentence and exit code 2."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PROMPT = "Fact: the capital of the state containing Dallas is"


def _sentences(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the package's own errors, which are sentences, into exit code 2 without a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError) as error:
            from mi_workshop.circuits.graph import GraphError
            from mi_workshop.models import ModelError
            from mi_workshop.worlds import WorldError

            if not isinstance(error, GraphError | ModelError | WorldError | OSError):
                raise
            click.echo(f"mi-workshop: {error}", err=True)
            sys.exit(2)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mi-workshop")
def main() -> None:
    """See inside a language model: trace a prompt, swap what the model thinks of, open the notebooks."""


def _load(name: str) -> Any:
    from mi_workshop.models import ModelError, load, names

    if name in names():  # nothing of an embedded model is anywhere else
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    model = load(name)
    if not hasattr(model, "tokenizer"):
        raise ModelError(f"{name} looks at pictures: this command needs a language model, such as atlas.")
    return model


model_option = click.option("--model", default="atlas", show_default=True, help="Which model to look into.")
out_option = click.option(
    "--out", multiple=True, type=click.Path(path_type=Path), help="Also write FILE: .html, .svg, .png or .json."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of words.")


@main.command()
@click.argument("prompt")
@model_option
@out_option
@json_option
@_sentences
def trace(prompt: str, model: str, out: tuple[Path, ...], as_json: bool) -> None:
    """Trace PROMPT: the answers, the circuit in words, the scores."""
    start = time.perf_counter()
    result = _trace(_load(model), prompt, out)
    result["seconds"] = round(time.perf_counter() - start, 2)
    if as_json:
        click.echo(json.dumps({k: v for k, v in result.items() if k != "words"}, ensure_ascii=False))
    else:
        _print_trace(result)


def _trace(model: Any, prompt: str, out: tuple[Path, ...]) -> dict[str, Any]:
    from mi_workshop.circuits.trace import trace as run

    graph = run(model, prompt)
    pruned = graph.prune()
    files = [str((pruned if path.suffix != ".json" else graph).save(path)) for path in out]
    scores = graph.scores
    return {
        "prompt": prompt,
        "tokens": graph.tokens,
        "top": graph.top.to_dict("records"),
        "replacement_score": scores.replacement,
        "completeness_score": scores.completeness,
        "n_nodes": len(graph.nodes),
        "n_links": len(graph.links),
        "n_pruned": len(pruned.nodes),
        "supernodes": graph.supernodes,
        "seconds": graph.seconds,
        "files": files,
        "words": graph.words(),
    }


def _print_trace(r: dict[str, Any]) -> None:
    click.echo(f"{r['prompt']} ...\n")
    click.echo("answers:  " + "   ".join(f"{t['token']} {t['prob']:.1%}" for t in r["top"][:5]))
    click.echo("\nthe circuit, strongest chain:")
    click.echo("  " + r["words"].replace("\n", "\n  "))
    click.echo(
        f"\nscores:   replacement {r['replacement_score']:.2f}, completeness {r['completeness_score']:.2f} "
        f"({r['n_nodes']} nodes, {r['n_links']} links; 1 = nothing left to error nodes)"
    )
    for file in r["files"]:
        pruned = f" (pruned to {r['n_pruned']} nodes: its shares and scores are of what is left)"
        click.echo(f"wrote:    {file}" + ("" if file.endswith(".json") else pruned))


@main.command()
@click.argument("prompt")
@click.argument("old", metavar="FROM")
@click.argument("new", metavar="TO")
@click.option("--at", default="state", show_default=True, help="Where: city, state or all.")
@click.option("--attention", type=click.Choice(["frozen", "free"]), default="frozen", show_default=True)
@model_option
@json_option
@_sentences
def swap(prompt: str, old: str, new: str, at: str, attention: str, model: str, as_json: bool) -> None:
    """Swap the place FROM for TO inside the model while it reads PROMPT, beside the controls."""
    from mi_workshop.circuits.swap import swap as run

    result = run(_load(model), prompt, old, new, at, freeze_attention=attention == "frozen")
    click.echo(json.dumps(result.to_dict(), ensure_ascii=False) if as_json else result.words())


@main.command()
@click.argument("prompts", metavar="PROMPTS.txt", type=click.File("rb"))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the results; the same command again goes on where it stopped.",
)
@click.option("--do", "what", type=click.Choice(["capture", "trace", "swap"]), default="capture", show_default=True)
@click.option("--swap", "places", nargs=2, metavar="FROM TO", help="With --do swap: the place and what it becomes.")
@click.option(
    "--sites", default="resid_post", show_default=True, help="With capture: places in the model, with commas between."
)
@click.option("--metrics", default="norm,mean,std", show_default=True, help="With capture: what is kept of them.")
@click.option(
    "--workers", type=click.IntRange(0), help="Processes, by default one for each core; 0: no other than this."
)
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler, tls://HOST:PORT, instead of workers here.")
@click.option("--retry", is_flag=True, help="Also try the prompts again that have failed.")
@model_option
@json_option
@_sentences
def batch(
    prompts: Any, out: Path, what: str, places: tuple[str, str] | None, sites: str, metrics: str, workers: int | None, scheduler: str | None,
    retry: bool, model: str, as_json: bool,
) -> None:  # fmt: skip
    """Capture, trace or swap every line of PROMPTS.txt (- is standard input). Exit code 0 when the run is finished; prompts that failed are listed."""
    from mi_workshop import fleet, names

    try:
        texts = [line.strip() for line in prompts.read().decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise fleet.FleetError(f"{prompts.name} is not UTF-8 (byte {error.start}): save it as UTF-8.") from None
    if (what == "swap") != bool(places):
        raise fleet.FleetError("--do swap and --swap FROM TO go together.")
    if model in names():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    how: dict[str, Any] = {"workers": workers, "scheduler": scheduler, "retry_failed": retry, "progress": not as_json}
    if what == "capture":
        fleet.capture(model, texts, out, sites.split(","), metrics.split(","), **how)
    elif what == "trace":
        fleet.trace(model, texts, out, **how)
    else:
        fleet.swap(model, texts, *places or ("", ""), out, **how)
    results = fleet.Results(out)
    for row, text, why in results.failed.head(5).itertuples():
        click.echo(f"failed:   prompt {row}, {text!r}: {why}", err=True)
    if as_json:
        click.echo(
            json.dumps(dict(zip(("done", "failed", "prompts"), results.counts, strict=True)) | {"out": str(out)})
        )
    else:
        click.echo(f"wrote:    {out}")


@main.command()
@click.argument("file")
@out_option
@json_option
@_sentences
def graph(file: str, out: tuple[Path, ...], as_json: bool) -> None:
    """Read the attribution graph in FILE (JSON, or an https address): its answers, circuit and scores, and what was repaired."""
    from mi_workshop.circuits.graph import AttributionGraph

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the same sentences stand in the notes
        loaded = AttributionGraph.load(file)
    files = [str(loaded.save(path)) for path in out]
    scores = loaded.scores
    result = {
        "n_nodes": len(loaded.nodes),
        "n_links": len(loaded.links),
        "n_supernodes": len(loaded.supernodes),
        "dangling_pins": loaded.dangling_pins,
        "renamed_nodes": loaded.renamed_nodes,
        "replacement_score": scores.replacement,
        "completeness_score": scores.completeness,
        "top_logits": loaded.top.to_dict("records"),
        "notes": list(loaded.notes),
    }
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    click.echo(f"{' '.join(loaded.prompt.split())} ...\n")
    click.echo("answers:  " + "   ".join(f"{t.strip()} {p:.1%}" for t, p in loaded.top.head(5).itertuples(index=False)))
    click.echo("\nthe circuit, strongest chain:\n  " + loaded.words().replace("\n", "\n  "))
    click.echo(
        f"\nscores:   replacement {scores.replacement:.2f}, completeness {scores.completeness:.2f} ({len(loaded.nodes)} nodes, "
        f"{len(loaded.links)} links, {len(loaded.supernodes)} supernodes; 1 = nothing left to error nodes)"
    )
    for note in loaded.notes:
        click.echo(f"note:     {note}")
    for path in files:
        click.echo(f"wrote:    {path}")


@main.command()
@click.option("--network", is_flag=True, help="Also try the network (nothing else of this program does, unless asked).")
@click.option(
    "--stage",
    is_flag=True,
    help="Run the talk (notebooks/live_demo) twice; exit code 1 if a live cell fails or is slow.",
)
@json_option
def doctor(network: bool, stage: bool, as_json: bool) -> None:
    """What this machine can run: each tier, OK or what to do."""
    from mi_workshop.teach.doctor import doctor as run

    report = run(network=network, stage=stage)
    click.echo(json.dumps(report.to_dict()) if as_json else str(report))
    sys.exit(0 if not stage or report.ok else 1)


@main.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--fresh", is_flag=True, help="Put new copies beside the notebooks that you have changed.")
@_sentences
def lab(folder: Path | None, fresh: bool) -> None:
    """Open the course in JupyterLab: a copy of it in FOLDER (mi-workshop-notebooks, here), or in a clone the clone's own notebooks.

    A file in FOLDER that you have changed is never overwritten."""
    from mi_workshop import course_files as course

    if folder is None and course.HOME == course.PACKED:
        folder = Path("mi-workshop-notebooks")
    if folder is not None:
        kept = ", ".join(path.name for path in course.copy(folder, fresh))
        click.echo(f"The course is in {folder.resolve()}")
        if kept:
            click.echo(f"kept, as you have changed them: {kept}" + " (--fresh: new copies beside them)" * (not fresh))
    if importlib.util.find_spec("jupyterlab") is None:
        click.echo('mi-workshop: JupyterLab is not installed: pip install "mi-workshop[lab]"', err=True)
        sys.exit(2)
    start = [sys.executable, "-m", "jupyterlab", "--LabApp.default_url=/lab/tree/notebooks", course.LEFT]
    sys.exit(subprocess.call([*start, str(folder or course.HOME)]))


@main.command(hidden=True)
@click.option("--out", default="dallas.html", type=click.Path(path_type=Path))
@_sentences
def demo(out: Path) -> None:
    """What ``make demo`` shows: the Dallas prompt traced, then Texas swapped for California, with its controls."""
    from mi_workshop.circuits.swap import swap as run

    model = _load("atlas")
    _print_trace(_trace(model, PROMPT, (out,)))
    click.echo("\n" + run(model, PROMPT, "Texas", "California").words())
    click.echo(
        "\nnext: open the picture in a browser; 'make lab' opens the notebooks; 'mi-workshop trace --help' for your own prompt."
    )
