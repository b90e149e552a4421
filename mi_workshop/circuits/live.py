"""What the view of a graph asks of the graph's model, be it on this machine or hosted elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mi_workshop.circuits.graph import AttributionGraph, GraphError

NO_MODEL = "This graph was read from a file: there is no model to act on. Trace a prompt to get one that has."
Answers = list[dict[str, Any]]


def _is_hosted(graph: AttributionGraph) -> bool:
    from mi_workshop.neuronpedia import HostedModel

    return isinstance(graph.model, HostedModel)


def begin(
    graph: AttributionGraph, interventions: list[dict[str, Any]]
) -> tuple[Answers, Answers, str | None, Iterator[list[dict[str, Any]]]]:
    """Answers before and after all interventions, the answer expected (if a key gives one), and the controls in portions.

    See ``circuits.act`` and ``circuits.steering``; raises their errors.
    """
    if _is_hosted(graph):
        from mi_workshop.circuits import steering

        return steering.begin(graph, interventions)
    from mi_workshop.circuits import act

    action = act.combine(graph.model, graph.prompt, interventions)
    before, after = act.answers(graph.model, action)
    return before, after, action.expected, act.controls(graph.model, action)


def ablate(graph: AttributionGraph, node_ids: list[str]) -> Any:
    """What zeroing nodes does: an ``AblationResult``, or of a hosted model a ``SteerResult``, which has the same fields."""
    if graph.model is None:
        raise GraphError(NO_MODEL)
    if _is_hosted(graph):
        return graph.model.client.steer(
            graph.model.name, graph.prompt, [{"nodes": node_ids, "kind": "zero"}], graph=graph
        )
    from mi_workshop.circuits import ablate as local

    return local.ablate(graph.model, graph.prompt, node_ids)


def swaps(graph: AttributionGraph, supernodes: dict[str, list[str]]) -> dict[str, list[str]]:
    """The places that each supernode can be swapped for; none in a model without an answer key."""
    if _is_hosted(graph):
        return {}
    from mi_workshop.circuits.act import choices

    return choices(graph.model, graph.prompt, supernodes)


def detail(graph: AttributionGraph, layer: int, index: int) -> str:
    """The short page of a feature as HTML. A model of the real world has its pages on Neuronpedia, if its transcoders are there."""
    from mi_workshop.api import source_set_of
    from mi_workshop.neuronpedia import QUICK, hosted

    model = graph.model
    if _is_hosted(graph):
        return model.client.feature(model.name, layer, index, model.source_set, patience=QUICK).html(compact=True)
    if model.world is not None:
        from mi_workshop.circuits import feature_page

        return feature_page.detail_html(model, layer, index)
    source_set = source_set_of(model.name, graph.source_set or getattr(model, "source_set", ""))
    if not source_set:
        raise GraphError(f"it is not known under which name Neuronpedia holds the transcoders of {model.name}.")
    return hosted.feature(model.name, layer, index, source_set, patience=QUICK).html(compact=True)
