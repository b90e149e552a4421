"""docs/faults.md from the lists that the tests hold: ``python tests/faults_help.py`` writes it."""

import re
from pathlib import Path

import hub_help
import neuronpedia_help
import pictures_help
import vision_help

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
HEAD = """# When something is missing

What a learner reads when a tier is not there or breaks, instead of a traceback. Written by `python tests/faults_help.py` from the lists
that the tests run against servers on this machine that fail in these ways; … stands for a path, a number or the library's own words.

"""


def page() -> str:
    return (
        f"{HEAD}## The Hugging Face Hub and the GPU\n\n{_table(hub_help.FAULTS)}\n\n"
        "CLIP, ViT and ResNet come the same way. All this was tried with small stand-ins only: never with the real Hub or the real weights.\n\n"
        f"## Pictures, and models that look at them\n\n{_table(vision_help.FAULTS | pictures_help.FAULTS)}\n\n## Neuronpedia\n\n{neuronpedia_help.table()}\n"
    )


def _table(faults: dict[str, str]) -> str:
    rows = [f"| {what} | {_plain(said)} |" for what, said in faults.items()]
    return "\n".join(["| what happens | what the user is told |", "|---|---|", *rows])


def _plain(pattern: str) -> str:
    """A sentence's pattern as text."""
    return re.sub(r"\\([^\w])", r"\1", re.sub(r"(\s*)(\.\*|\\d\+(\\\.\\d)?)(\s*)", r"\1…\4", pattern))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
