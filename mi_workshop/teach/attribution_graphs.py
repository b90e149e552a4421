"""Notebook 06_attribution_graphs: what languages share, two graphs in numbers, and the exercises."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

from .exercises import Exercise, add, world

DALLAS = "Fact: the capital of the state containing Dallas is"
FRENCH = "Fait: le contraire de petit est"


def shared_features(model: Any, position: int = -2) -> Any:
    """Features that two languages share in questions about opposites, by layer, as a DataFrame: Jaccard index of the sets of active
    features at ``position`` (-2: the word asked about), mean over words and pairs of languages; ``other word`` is the control, the
    same for words that are no translations of each other."""
    import pandas as pd

    from mi_workshop.circuits.swap import activations

    sets: dict[str, list[Any]] = {}
    for s in model.world.facts:
        if s.kind.startswith("opposite"):
            sets.setdefault(s.kind, []).append(activations(model, s.prompt)[:, position] > 0)  # [layer, feature]
    pairs = [(a[i], b[i], b[(i + 7) % len(b)]) for a, b in combinations(sets.values(), 2) for i in range(len(a))]
    rows = [(_jaccard(a, b), _jaccard(a, other)) for a, b, other in pairs]
    mean = [[sum(row[i][layer] for row in rows) / len(rows) for i in (0, 1)] for layer in range(len(rows[0][0]))]
    return pd.DataFrame(mean, columns=["same word", "other word"]).rename_axis("layer").round(2)


def _jaccard(a: Any, b: Any) -> list[float]:
    return ((a & b).sum(1) / (a | b).sum(1).clamp(min=1)).tolist()


def beside(**graphs: Any) -> Any:
    """Graphs in numbers, one column each, as a DataFrame: what is in them, and how much of the way from the words to the answer they
    explain: all of it, and the twenty most influential features alone (``scores_of``). Graphs from files were often pruned before."""
    import pandas as pd

    from mi_workshop.circuits.graph import ERROR, FEATURE

    out = {}
    for name, g in graphs.items():
        of_kind = g.nodes.feature_type.value_counts()
        features = g.nodes[g.nodes.feature_type == FEATURE].sort_values("influence")
        few = g.scores_of(features.node_id.head(20))
        out[name] = {
            "first answer": f"{g.top.token[0].strip()} {g.top.prob[0]:.0%}",
            "tokens": len(g.tokens),
            "layers": int(features.layer.max()) + 1,
            "features": len(features),
            "of them labelled": int((features.label.str.strip() != "").sum()),
            "error nodes": int(of_kind.get(ERROR, 0)),
            "left to errors": f"{1 - g.scores.replacement:.0%}",
            "completeness": f"{g.scores.completeness:.2f}",
            "20 features alone": f"{few.replacement:.0%}",
            "answer key": "yes" if getattr(g.model, "world", None) is not None else "no",
        }
    return pd.DataFrame(out)


@cache
def _traced(prompt: str) -> Any:
    import mi_workshop as mi

    return mi.trace(mi.load("atlas"), prompt)


def _replacement(n: int) -> float:
    graph = _traced(DALLAS)
    features = graph.nodes[graph.nodes.feature_type == "cross layer transcoder"].sort_values("influence")
    return float(graph.scores_of(features.node_id.head(max(0, min(n, len(features))))).replacement)


def _odd(node_id: str) -> bool:
    graph = _traced(FRENCH)
    labels = graph.nodes.set_index("node_id").label[node_id].split(" / ")
    return all(label in world().places for label in labels)


def _begins_elsewhere(prompt: str) -> bool:
    city = world().parse(prompt).slots["city"]
    return city not in _traced(prompt).words().split(" → ")[0]


add(
    Exercise(
        name="how many features",
        minutes=5,
        difficulty="easy",
        statement=(
            "How many of the most influential features of the Dallas graph are needed for an honest replacement score (`graph.scores_of`) "
            "of at least **0.5**? Put the smallest number into `n`."
        ),
        expect="a number that is small beside the number of features in the graph.",
        hints=(
            "graph.scores_of(ranked.head(20)).replacement is the score of the twenty strongest.",
            "Count up from 0 until the score reaches 0.5.",
        ),
        right=lambda value: _replacement(int(value) - 1) < 0.5 <= _replacement(int(value)),
        wrong=(
            (lambda value: not isinstance(value, int), "A whole number is asked for."),
            (lambda value: _replacement(value) < 0.5, "That many do not reach 0.5 yet."),
            (lambda value: _replacement(value) >= 0.5, "That is enough, but fewer are too."),
        ),
        why="So many features, and no fewer, carry half of the influence from the words to the answer when all else counts as unexplained.",
        solution="n = next(n for n in range(len(ranked)) if graph.scores_of(ranked.head(n)).replacement >= 0.5)",
    ),
    Exercise(
        name="an odd label",
        minutes=6,
        difficulty="takes some thought",
        statement=(
            f"`{FRENCH}` names no place. Find a feature node of its graph (`french`) that is labelled with a **place**, put its id into `node_id`, "
            "and look at the feature's page: what else fires it?"
        ),
        expect="on the page, examples in which the label does not hold.",
        hints=(
            "french.supernodes lists the nodes of each label.",
            "A node's id reads layer_feature_position.",
            "french.supernodes[places[0]][0]",
        ),
        right=_odd,
        wrong=(
            (lambda value: "@" in value, "That is the name of a group; its nodes are in french.supernodes."),
            (lambda value: value in set(_traced(FRENCH).nodes.node_id), "That node has no place for a label."),
            (lambda value: isinstance(value, str), "There is no such node in the graph of this prompt."),
        ),
        why="The label is what most of the feature's activation is about in the training text, and this prompt is part of the rest.",
        solution="node_id = french.supernodes[places[0]][0]",
    ),
    Exercise(
        name="a strange path",
        minutes=9,
        difficulty="hard",
        statement=(
            "Find a two-step question (*Fact: the ... of the state containing ... is*, or *country*) whose strongest chain does **not** begin at "
            "the city, and put the prompt into `strange_question`. You may take one from the search, or better, find another."
        ),
        expect="a graph in which the city is not where the strongest chain starts.",
        hints=(
            "Which attributes have few possible answers?",
            "Look at the table of the search: which rows do not begin at the city?",
            "strange.prompt",
        ),
        right=_begins_elsewhere,
        wrong=(
            (lambda value: not isinstance(value, str), "A prompt is asked for, as text."),
            (lambda value: "city" in world().parse(value).slots, "In that graph the strongest chain begins at the city."),
            (lambda value: True, "That is no two-step question of this world."),
        ),
        why="The strongest chain is only the strongest, and runs over labelled groups alone: see from `strange.flow` how small its share is before you say that the city was not used.",
        solution='strange_question = "Fact: the continent of the country containing Salta is"',
    ),
    Exercise(
        name="a path, tested",
        minutes=10,
        difficulty="hard",
        statement=(
            "In `own` (Gemma's graph where there was a network, Atlas's otherwise) choose features that you believe the answer needs, and take "
            "them out: `tested = own.ablate([...])`. Say beforehand what the controls must show."
        ),
        expect="the answer falls, and falls by less under every random set of features.",
        hints=(
            "own.show(): click a node; the arrows up and down walk along its strongest links.",
            "Choose features of one token: own.nodes[own.nodes.ctx_idx == ...].sort_values('influence').",
            "If the random sets hurt as much, the path was not needed: that is a result too, but try another.",
        ),
        right=lambda value: bool(value.random_probs) and value.prob < min(value.random_probs),
        wrong=(
            (lambda value: isinstance(value, (str, list)), "Run it: own.ablate(...) gives the result that is asked for."),
            (lambda value: not value.random_probs, "There are no random sets to compare with: nothing can be said."),
            (lambda value: value.prob >= value.before[0]["prob"], "The answer did not fall: this path is not needed."),
            (lambda value: True, "Some random set hurts the answer as much: it may be the push and not the path."),
        ),
        why="It hurts more than every random set did: evidence that these features are needed here, for this prompt and no other.",
        solution=(
            "city = own.nodes[(own.nodes.ctx_idx == len(own.tokens) - 2) & own.nodes.activation.notna()]\n"
            "tested = own.ablate(city.sort_values('influence').node_id.head(5).tolist())"
        ),
    ),
    notebook="06_attribution_graphs",
)  # fmt: skip
