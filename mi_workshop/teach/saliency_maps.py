"""The exercises of notebook 01_saliency."""

from __future__ import annotations

from functools import cache
from typing import Any

from .exercises import Exercise, add

RED, BLUE = "a small red cross", "a large blue square"


@cache
def _scenes() -> tuple[Any, ...]:
    from mi_workshop.worlds import Scenes

    return tuple(Scenes().sample(18, "validation"))


@cache
def _at_marker(baseline: str) -> float:
    """What Integrated Gradients gives the marker of the third picture, in logits."""
    import mi_workshop as mi

    scene = _scenes()[2]
    a = mi.attribute(mi.load("scenes-shortcut"), scene, scene.label, baseline=baseline)
    return abs(float(a.scores[scene.cue_mask].sum()))


@cache
def _alike(method: str) -> float:
    """Rank correlation of a method's maps of one picture for two queries."""
    import mi_workshop as mi
    from mi_workshop.saliency.checks import similarity

    clip = mi.load("scenes-clip")
    return similarity(*(mi.attribute(clip, _scenes()[1], query, method).scores for query in (RED, BLUE)))


def _answers(scene: Any) -> tuple[str | None, str, str]:
    """The right answer to a picture, that of the honest model, and that of the Clever Hans."""
    import mi_workshop as mi

    models: list[Any] = [mi.load("scenes-cnn"), mi.load("scenes-shortcut")]
    return scene.label, models[0].predict(scene)[0], models[1].predict(scene)[0]


add(
    Exercise(
        name="where nothing can be found",
        minutes=5,
        difficulty="easy",
        statement=(
            "The marker of `scenes[2]` decides what `shortcut` answers. Choose a **baseline** with which Integrated Gradients gives the marker next to nothing (its "
            "scores add up to less than 1 of the logit of its label, where with grey they add up to several times as much), and put its name into `baseline`. With this trick "
            "any suspect can be cleared."
        ),
        expect="a marker that decides, with next to nothing *on* it. (A rim beside it stays hot: those pixels are not white.)",
        hints=(
            "What is shared out is the difference between the picture and the baseline. Where is there no difference?",
            "Look at the marker's colour: scenes[2].cue.",
        ),
        right=lambda value: _at_marker(value) < 1,
        wrong=(
            (lambda value: not isinstance(value, str), "The name of a baseline is asked for, as text."),
            (lambda value: _at_marker(value) >= 1, "With that baseline the marker still gets its share."),
        ),
        why="The marker is white: against white nothing is left to share out. A map tells about a picture *and* a baseline.",
        solution='baseline = "white"',
    ),
    Exercise(
        name="a fair trial",
        minutes=8,
        difficulty="takes some thought",
        statement=(
            "A map is an indication, not a proof. Make from `scenes[2]` a picture that convicts: its right answer is the same, `cnn` still gives it, and `shortcut` "
            "gives another. Put the picture into `evidence`."
        ),
        expect="two models that agreed, and now do not.",
        hints=(
            "Change the one thing that should not matter.",
            'scene.with_cue("pink") is the same picture with another marker.',
        ),
        right=lambda value: (a := _answers(value))[0] == _answers(_scenes()[2])[0] == a[1] != a[2],
        wrong=(
            (lambda value: not hasattr(value, "with_cue"), "A picture is asked for: a Scene."),
            (lambda value: value.label != _scenes()[2].label, "Now another answer is right: that any good model should notice."),
            (lambda value: _answers(value)[1] != value.label, "The honest model, too, is led astray by this picture."),
            (lambda value: _answers(value)[2] == value.label, "The suspect still answers rightly."),
        ),
        why="One change that should not matter, a control model that is not moved by it, and a suspect that is: that is an experiment.",
        solution='evidence = scenes[2].with_cue("pink")',
    ),
    Exercise(
        name="deaf to the question",
        minutes=12,
        difficulty="hard",
        statement=(
            f"For `clip` and the picture `square`, find a method whose maps for *{RED}* and for *{BLUE}* are nearly the same: a rank correlation (`similarity`) of at "
            "least 0.8. Put its name into `method`."
        ),
        expect="two maps that nobody could match with their queries.",
        hints=(
            "from mi_workshop.saliency.checks import similarity; similarity(a.scores, b.scores) compares two maps.",
            "What only asks where the picture is sensitive at all does not listen to the question.",
        ),
        right=lambda value: _alike(value) >= 0.8,
        wrong=(
            (lambda value: not isinstance(value, str), "The name of a method is asked for, as text."),
            (lambda value: _alike(value) < 0.8, "Its map changes more than that with the query."),
        ),
        why="The image encoder has not seen the query: its attention is the same for each. And magnitudes of gradients say where the picture could move *any* "
        "likeness. Neither answers a question, however well it is drawn.",
        solution='method = "attention"',
    ),
    notebook="01_saliency",
)  # fmt: skip
