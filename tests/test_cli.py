"""The command line: what a script reads, and what a person sees who mistypes."""

import json

import pytest
from click.testing import CliRunner

from mi_workshop.cli import main

PROMPT = "Fact: the capital of the state containing Dallas is"


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def test_trace_json_and_files(tmp_path):
    files = [str(tmp_path / f"g.{suffix}") for suffix in ("json", "html", "svg", "png")]
    result = run("trace", PROMPT, "--json", *sum((["--out", f] for f in files), []))
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    keys = {
        "prompt",
        "tokens",
        "top",
        "replacement_score",
        "completeness_score",
        "n_nodes",
        "n_links",
        "supernodes",
        "seconds",
    }
    assert keys <= set(data)
    assert data["top"][0]["token"] == "Austin" and set(data["top"][0]) == {"token", "prob"}
    assert data["tokens"][:3] == ["<bos>", "Fact", ":"]
    assert all(isinstance(ids, list) and ids for ids in data["supernodes"].values())
    assert data["files"] == files and all((tmp_path / f).stat().st_size > 1000 for f in files)


def test_swap_json():
    result = run("swap", PROMPT, "Texas", "California", "--at", "city", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert {"at", "attention", "before", "after", "expected", "controls", "dose", "supported"} <= set(data)
    assert (data["at"], data["attention"], data["expected"]) == ("city", "frozen", "Sacramento")


def test_demo_says_all_it_promises(tmp_path):
    result = run("demo", "--out", str(tmp_path / "dallas.html"))
    assert result.exit_code == 0, result.output
    for promised in (
        "Austin",
        "answer",
        "replacement",
        "completeness",
        "Texas → California",
        "controls",
        "dallas.html",
        "make lab",
    ):
        assert promised in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trace", "Fact: the capital of the state containing Dalas is"], "Dallas"),
        (["trace", ""], "empty"),
        (["trace", "the " * 60], "at most"),
        (["trace", PROMPT, "--model", "altas"], "'atlas'"),
        (["trace", PROMPT, "--out", "x.gif"], ".json, .html"),
        (["swap", "Fact: the opposite of small is", "Texas", "California"], "names no state"),
        (["swap", PROMPT, "Texas", "Californa"], "California"),
        (["swap", PROMPT, "Texas", "California", "--at", "moon"], "city, state, all"),
        (["trace"], "PROMPT"),
        (["nonsense"], "No such command"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2 and said in result.output
    assert "Traceback" not in result.output


def test_help_is_there():
    for command in ("trace", "swap", "graph", "doctor", "lab"):
        assert run(command, "--help").exit_code == 0
