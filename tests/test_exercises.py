"""The exercise kit: it answers every answer, and its own solutions are right."""

import pytest
import torch

import mi_workshop as mi
from mi_workshop import neurons
from mi_workshop.counterfactual import Experiment, Site, patch
from mi_workshop.dictionary.families import families
from mi_workshop.dictionary.universality import matched
from mi_workshop.models.attention_rnn import train
from mi_workshop.teach import check, find, hint, solution
from mi_workshop.teach.capstone import capstone
from mi_workshop.teach.exercises import EXERCISES, Exercise, Feedback
from mi_workshop.worlds import Rooms, Scenes
from mi_workshop.worlds.atlas import Atlas

WORLD = Atlas()
SCENE = Scenes().sample(18, "validation")[2]


@pytest.fixture
def toy(monkeypatch):
    """An exercise that is there for one test only."""
    exercise = Exercise(
        name="toy",
        minutes=1,
        difficulty="easy",
        statement="Put two into `x`.",
        expect="a blue bar.",
        hints=("It is even.", "It is prime."),
        right=lambda value: value == 2,
        wrong=((lambda value: value % 2 == 1, "That is odd."),),
        why="Two is the even prime.",
        solution="x = 2",
    )
    monkeypatch.setitem(EXERCISES, "toy", exercise)
    return exercise


@pytest.mark.parametrize("value", [None, ..., "", "  ", [], [1, ...], {"a": ...}])
def test_unanswered_says_so(toy, value):
    assert "Not answered yet" in repr(check("toy", value))


def test_no_value_is_unanswered(toy):
    assert repr(check("toy")).startswith("Not answered yet")


def test_right_wrong_and_unknown_answers(toy):
    assert repr(check("toy", 2)) == "Right: Two is the even prime."
    assert repr(check("toy", 3)) == "Not yet: That is odd."
    assert "hint" in repr(check("toy", 4))


@pytest.mark.parametrize("value", ["text", object(), {1}, b"\xff", float("nan"), "<script>alert(1)</script>", 10**30])
@pytest.mark.parametrize("name", [n for n in EXERCISES if n != "where nothing imposes it"])
def test_no_value_raises(name, value):
    assert repr(check(name, value)).startswith("Not yet")


def test_hints_are_graded_and_start_again(toy):
    first, second, third = hint("toy"), hint("toy"), hint("toy")
    assert (first.sentence, third.word) == ("It is even.", "Hint 1 of 2")
    assert 'solution("toy")' in second.sentence
    assert "x = 2" in repr(solution("toy"))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="the missing step"):
        check("the mising step", 1)
    with pytest.raises(ValueError, match="the missing step"):
        hint("zzz")


def test_markup_is_escaped():
    assert "<script>" not in check("which control", "<script>alert(1)</script>")._repr_html_()
    assert "&lt;b&gt;" in Feedback("<b>", "x")._repr_html_()


def test_emphasis_is_shown_and_arithmetic_left_alone():
    """Learners read raw asterisks in every answer."""
    assert (
        ": a <em>very bold</em> claim, 2*3*4, 2 * 3 * 4</div>"
        in Feedback("x", "a *very bold* claim, 2*3*4, 2 * 3 * 4")._repr_html_()
    )


def test_every_exercise_is_complete():
    for name, exercise in EXERCISES.items():
        assert len(exercise.hints) >= 2 and exercise.wrong and 0 < exercise.minutes <= 15, name
        assert exercise.name in exercise.markdown() and exercise.difficulty in exercise.markdown()


def run_solution(name, **names):
    """The value that the solution of an exercise leaves in its variable."""
    exec(find(name).solution, names)  # the project's own text
    variable = find(name).solution.splitlines()[-1].split(" = ")[0]
    return names[variable]


@pytest.fixture(scope="module")
def names(atlas, graph):
    """The variables of the notebooks that solutions use."""
    french = mi.trace(atlas, "Fait: le contraire de petit est")
    text = "Mr Dursley met Mrs Potter. Mr"
    features = graph.nodes[graph.nodes.feature_type == "cross layer transcoder"]
    oakland = mi.capture(atlas, graph.prompt.replace("Dallas", "Oakland"), raw="resid_post")
    exam = capstone(3)[0]
    asked = [exam.world.two_hop("Bandung", a).prompt for a in exam.world.home["Bandung"].attributes]
    twin, sizes = mi.load("atlas-twin"), [mi.dictionary.load("atlas", layer=2, width=w) for w in (128, 512, 2048)]
    return {
        "mi": mi,
        "exam": exam,
        "prompts": asked,
        "donors": [p.replace("Bandung", "Medan") for p in asked],
        "Experiment": Experiment,
        "Site": Site,
        "patch": patch,
        "model": atlas,
        "neurons": neurons,
        "difference": mi.capture(atlas, graph.prompt, raw="resid_post") - oakland,
        "solu_model": mi.load("atlas-solu"),
        "prompt": graph.prompt,
        "graph": graph,
        "key": mi.dictionary.feature_key(atlas, mi.dictionary.load("atlas", layer=1, width=512)),
        "own": graph,
        "french": french,
        "places": [label for label in french.supernodes if label.split(" @")[0] in WORLD.places],
        "ranked": features.sort_values("influence").node_id,
        "torch": torch,
        "split": families(atlas, sizes),
        "pair": matched(atlas, sizes[1], twin, mi.dictionary.load("atlas-twin", layer=2, width=512)),
        "text": text,
        "cache": atlas.replacement.run_with_cache(atlas.tokens(text))[1],
        "rooms": train(Rooms(), epochs=3, progress=False),
        "story": "Sandra went to the garden. John moved to the office. Sandra travelled to the kitchen. Where is Sandra?",
        "scenes": Scenes().sample(18, "validation"),
        "abbreviation": "Fact: the abbreviation of the state containing Dallas is",
    }


@pytest.mark.parametrize("name", [n for n in EXERCISES if n != "where nothing imposes it"])
def test_the_solution_is_right(name, names):
    value = run_solution(name, **names)
    assert repr(check(name, value)).startswith("Right")


def test_diagnoses():
    diagnosed = {
        ("shout it down", (5, 9, 0, 0)): "must keep",
        ("shout it down", (4, 9)): "four neurons",
        ("shout it down", (4, 4, 4, 4)): "only share",
        ("shout it down", (4, 5, 0, 0)): "more than 0.1",
        ("explained, is it?", (4, 0)): "no such neuron",
        ("explained, is it?", 7): "is not it",
        ("the missing step", "Tallahassee"): "end of the second step",
        ("the missing step", "Miami"): "where the first step starts",
        ("the missing step", "Ohio"): "another place",
        ("the missing step", "florida"): "capital letter",
        ("a question of your own", "Fact: the capital of the state containing Dallas is"): "by way of a state",
        ("a question of your own", "Fact: the capital of France is"): "one step",
        ("a question of your own", "Greeting in French:"): "not of the form",
        ("a question of your own", "What is the capital of France?"): "cannot read",
        ("how many features", 10**6): "fewer are too",
        ("how many features", 0): "do not reach",
        ("an odd label", "Iowa @petit"): "name of a group",
        ("a strange path", "Fact: the capital of the state containing Dallas is"): "begins at the city",
        ("a strange path", "Fact: the capital of Texas is"): "no two-step question",
        ("a path, tested", "0_93_9"): "gives the result",
        ("where Austin takes the lead", "layer 3"): "at an earlier point",
        ("where Austin takes the lead", "layer 2"): "another token still leads",
        ("where Austin takes the lead", 3): "two points",
        ("what speaks against it", "MLP 2"): "most *for* Austin",
        ("what speaks against it", "biases"): "another does so more",
        ("what speaks against it", "L3H1"): "speaks for Austin",
        ("what speaks against it", "head 2"): "L2H1 is head 1",
        ("a city that the lens can read", "Birmingham"): "That is a city",
        ("a city that the lens can read", "Fact: the capital of the state containing Dallas is"): "another token leads",
        ("a city that the lens can read", "Fact: the capital of Texas is"): "no two-step question",
        ("another state", "Denver"): "the answer you want",
        ("another state", "Boulder"): "a city",
        ("another state", "Ohio"): "another capital",
        ("move the state, not the answer", "Sacramento"): "about capitals",
        ("move the state, not the answer", "TX"): "before the swap",
        ("the form that copies", "city"): "city token",
        ("where nothing can be found", "grey"): "still gets its share",
        ("where nothing can be found", 0): "as text",
        ("a fair trial", SCENE): "still answers rightly",
        ("a fair trial", SCENE.replace(SCENE.target, shape="square")): "another answer is right",
        ("deaf to the question", "relevance"): "changes more",
        ("a flattered feature", 511.5): "a row of",
        ("a flattered feature", 512): "no such feature",
        ("right and useless", "random"): "at other tokens",
        ("right and useless", "PCA"): "at other tokens",
        ("right and useless", "SAE"): "no such kind",
        ("a head that looks in vain", (3, 2)): "hangs on it",
        ("a head that looks in vain", (0, 0)): "less than 0.9",
        ("room for five", 0.5): "fewer than five",
        ("room for five", 0.99): "finds room as well",
        ("room for five", 90): "the chance that a feature is absent",
        ("six for one neuron", 2): "Two was best of four",
        ("six for one neuron", 4): "change their names",
        ("six for one neuron", 0): "always says the same",
    }
    diagnosed |= {
        ("a rule that survives", "the first word"): "no rule",
        ("a rule that survives", "the token 'Letter'"): "story of the top",
        ("a rule that survives", "not a passage about people"): "where the neuron is silent",
        ("a rule that survives", "the token 'Letter' or the token 'Address'"): "leaves out",
        ("a score that forgives", "a title"): "misses tokens",
        ("a score that forgives", "Greece or a city of it"): "too good a rule",
        ("a score that forgives", "not a verb"): "even this score notices",
        ("find it", ("word", "Pip", "nothing")): "Another family",
        ("find it", ("first hop", "Dallas", "Peru")): "not the subject",
        ("find it", ("first hop", "Bandung", "Lima")): "the place that the city",
        ("locate it", (1, "last")): "The token is another",
        ("locate it", (0, "{city}")): "upstream",
        ("locate it", (3, "{city}")): "Another layer",
        ("prove it", 3): "A report is",
        ("a judge in his own cause", "ablation"): "Who exchanges?",
        ("a judge in his own cause", "probe"): "The probe reads",
        ("a judge in his own cause", "(random)"): "A control",
        ("a judge in his own cause", "logit lens"): "changes no cell",
        ("plausible, not faithful", "(random)"): "A control",
        ("plausible, not faithful", "probe"): "nothing about tokens",
        ("plausible, not faithful", "patching"): "shows the phrase",
    }
    for (name, value), part in diagnosed.items():
        assert part in repr(check(name, value)), (name, value)


def test_diagnoses_of_attention(names):
    """Whoever forgets one step of attention, or weights that do not add up, is told which."""
    value = run_solution("attention by hand", **names)
    q, k = (names["cache"][f"blocks.3.attn.hook_rot_{name}"][0] for name in "qk")
    products = torch.einsum("qhd,khd->hqk", q, k)
    back = torch.ones(products.shape[1:]).tril().bool()
    for wrong, part in {
        "rows are the tokens": value.transpose(1, 2),
        "sum to 1": products.where(back, 0),
        "look ahead": (products / 32**0.5).softmax(-1),
        "root forgotten": products.masked_fill(~back, -torch.inf).softmax(-1),
        "[head, query, key]": value[0],
    }.items():
        assert wrong in repr(check("attention by hand", part)), wrong
    rooms, story, weights = run_solution("the same answer by other weights", **names)
    for wrong, given in {
        "sum to 1": 2 * weights,
        "is left on": torch.eye(len(weights))[-2],
        "something else": torch.eye(len(weights))[4],
    }.items():
        assert wrong in repr(check("the same answer by other weights", (rooms, story, given))), wrong


def test_diagnoses_of_the_buggy_autoencoder():
    """Whoever mended four of the five mistakes is told which is left, by what the class does."""
    from mi_workshop.teach.dictionary_exercises import BUGGY, MENDED

    left = {
        MENDED.replace("super().__init__()", "pass"): "nn.Module's own __init__",
        MENDED.replace("torch.relu(", "nn.ReLU("): "nothing is rectified",
        MENDED.replace("(rebuilt - x)", "(rebuilt - inputs)"): "never given a value",
        MENDED.replace("features.abs()", "acts.abs()"): "never given a value",
        MENDED.replace(".abs().sum(-1).mean()", ".abs().sum()"): "one part is summed",
        MENDED.replace("self.l1 * sparsity", "0 * sparsity"): "penalty has no effect",
        MENDED.replace("return features, features", "return None, features"): "check forward and loss",
    }
    for text, part in left.items():
        names = {"torch": torch, "nn": torch.nn}
        exec(text, names)  # the project's own text
        assert part in repr(check("find the bugs", names["SparseAutoencoder"])), part
    assert "word of the language" in repr(check("find the bugs", BUGGY))
    assert "run it as a cell" in repr(check("find the bugs", MENDED))
    averaged = MENDED.replace(".pow(2).sum(-1).mean()", ".pow(2).mean()").replace(".abs().sum(-1).mean()", ".abs().mean()")  # fmt: skip
    names = {"torch": torch, "nn": torch.nn}
    exec(averaged, names)
    assert repr(check("find the bugs", names["SparseAutoencoder"])).startswith("Right"), "another right way is refused"


def test_diagnoses_of_families(names):
    """A stranger that is kin after all, an echo that is a finding: the learner is told which of the two conditions failed."""
    children, pairs = names["split"].table.loc[512], names["pair"].table
    for name, said, value in (
        ("a stranger in the family", "does fire", children.implied.idxmax()),
        ("a stranger in the family", "no higher", children[children.implied == 0].cosine.idxmin()),
        ("a stranger in the family", "dead", 512),
        ("joined, not split", "Two things", "no such concept"),
        ("joined, not split", "no single feature", "a surname"),
        ("joined, not split", "fewer than ten", "a language"),
        ("an echo of the text", "below .7", pairs.correlation.idxmin()),
        ("an echo of the text", "beyond the word", pairs[pairs.correlation >= 0.7].within.idxmax()),
        ("an echo of the text", "whole number", "12"),
    ):
        given = (names["pair" if "echo" in name else "split"], value)
        assert said in repr(check(name, given)), said


def test_diagnoses_of_cubes(names):
    """Whoever names the wrong layer, reduces the wrong axis or shines where nothing happens is told which it was."""
    difference = names["difference"]
    for name, said, value in (
        ("where they part", "city's token", (difference, 0)),
        ("where they part", "last digit", (difference, 1)),
        ("where they part", "first time", (difference, 3)),
        ("where they part", "Two things", (difference, 9)),
        ("where they part", "Two things", "layer 2"),
        ("a metric of your own", "whole tensor", lambda x: x.square().max() / x.square().sum()),
        ("a metric of your own", "one number for each vector", lambda x: x.square()),
        ("a metric of your own", "square first", lambda x: x.amax(-1).square() / x.square().sum(-1)),
        ("a metric of your own", "absolute values", lambda x: x.abs().amax(-1) / x.abs().sum(-1)),
        ("a metric of your own", "share of the norm", lambda x: x.abs().amax(-1) / x.norm(dim=-1)),
        ("a metric of your own", "no function", 3),
        ("a better lamp", "negative", ("mlp_out", "norm")),
        ("a better lamp", "promising", ("attn_out", "kurtosis")),
        ("a better lamp", "stays below", ("resid_post", "norm")),
        ("a better lamp", "Two names", ("attn_out", "loudness")),
    ):
        assert said in repr(check(name, value)), (name, value)


def test_diagnoses_of_a_method_of_ones_own():
    """Whoever scores well without looking at the model is told so, not praised."""
    from mi_workshop.scoreboard_methods import METHODS

    form = next(m for m in METHODS if m.name == "(form alone)")
    for said, value in {
        "not mine(...)": 3,
        "says why": lambda model, prompt, answer: [1, 2],
        "each layer and token": form.where,
        "has not looked at the model": form.which,
        "fewer than 0.9": lambda model, prompt, answer: model.replacement.embed(model.tokens(prompt)).norm(dim=-1),
    }.items():
        assert said in repr(check("a method of your own", value)), said
