"""Interpretations of units: what is planted is found, what is not there is not, and a stranger's answer stays text."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from scipy.sparse import csc_array

from mi_workshop.concepts import concepts
from mi_workshop.dictionary import endpoint, interpret, interpret_all, misleading_top
from mi_workshop.dictionary.core import DictionaryError
from mi_workshop.dictionary.endpoint import LONGEST, explained
from mi_workshop.dictionary.judge import Interpretation, cases, judged, predict, score, units
from mi_workshop.dictionary.judge_all import _explained, _shuffled, purity
from mi_workshop.dictionary.rules import Rule, examples, halves, search

PLANTED = [
    "the token 'Texas'",
    "a place and 'capital' has been read",
    "a place and not 'capital' has been read",
    "(a title or a verb) and not the token at position 1",
    "“Texas or a city of it” or “Ohio or a city of it”",
]


@pytest.fixture(scope="module")
def found(atlas):
    return concepts(atlas)


@pytest.fixture(scope="module")
def planted(found):
    """Units that fire exactly where a rule holds, at levels of their own [token, unit]."""
    level = np.random.default_rng(0).uniform(0.9, 1.1, len(found.text.ids))
    return csc_array(np.stack([Rule.parse(said, found).holds(found) * level for said in PLANTED], 1))


def test_planted_rules_are_found(found, planted):
    """Without it the search could miss what is there, and every low score would say nothing about the feature."""
    looked = halves(found)
    rules, fitted = search(found, planted, examples(found, planted, looked))
    for said, rule, i in zip(PLANTED, rules, range(len(rules)), strict=True):
        held = planted[:, [i]].toarray()[~looked, 0] > 0
        assert (rule.holds(found)[~looked] == held).all(), (said, str(rule))
    assert fitted.min() > 0.95
    assert [len(r.literals) for r in rules][:2] == [1, 2]  # no literal that buys nothing


def test_rules_of_shuffled_activations_predict_nothing(found, planted):
    """Else a score could come from searching 1,280 concepts long enough."""
    looked = halves(found)
    shuffled = _shuffled(planted, looked, 0)
    scores = _explained(found, shuffled, looked, "range", 0, truth=planted)[2]
    assert all(abs(s["simulation"]) < 0.25 and abs(s["detection"] - 0.5) < 0.15 for s in scores)
    assert np.array_equal(np.sort(shuffled.data), np.sort(planted.data[looked[planted.indices]]))


def test_nothing_held_out_is_looked_at(found, planted):
    """Else scores would be of what was learned by heart."""
    looked = halves(found)
    sentences = found.text.sentence
    assert len(set(sentences[looked]) & set(sentences[~looked])) == 0
    for sample in ("range", "top"):
        weights = examples(found, planted, looked, sample)
        assert looked[weights.indices].all()
        assert np.allclose(weights.sum(0), looked.sum(), rtol=1e-6)  # the examples stand for the whole half
    changed = planted.copy()
    changed.data[~looked[planted.indices]] *= 5
    one, other = (search(found, a, examples(found, a, looked)) for a in (planted, changed))
    assert one[0] == other[0]


def test_rules_are_read_and_written_alike(found):
    """A class types rules; what they see must be what is scored."""
    for said in PLANTED:
        rule = Rule.parse(said, found)
        assert Rule.parse(str(rule), found) == rule == Rule.parse(f" {said.upper()} ", found)
    left = Rule.parse("a title or a verb and not a place", found)
    a, b, c = (found.where(n) for n in ("a title", "a verb", "a place"))
    assert np.array_equal(left.holds(found), (a | b) & ~c)
    for bad in ("", "zebra", "a place and", "and a place", "a place nor a verb", "not", "<b>a place</b>", "a verb and a verb and a verb and a verb"):  # fmt: skip
        with pytest.raises(ValueError):
            Rule.parse(bad, found)
    with pytest.raises(ValueError, match="Texas or a city of it"):
        Rule.parse("texas city", found)


def test_scores_are_what_they_are_called(found):
    """A wrong metric would teach a wrong lesson: compared with definitions written out."""
    rng = np.random.default_rng(1)
    acts = rng.exponential(size=500) * (rng.random(500) < 0.3)
    levels = np.where(rng.random(500) < 0.4, np.round(acts * 3), rng.integers(0, 3, 500)).clip(0, 10)
    s = score(levels, acts)
    tp, fp, fn = ((levels > 0) & (acts > 0)).sum(), ((levels > 0) & (acts == 0)).sum(), ((levels == 0) & (acts > 0)).sum()  # fmt: skip
    tn = 500 - tp - fp - fn
    assert s["precision"] == pytest.approx(tp / (tp + fp)) and s["recall"] == pytest.approx(tp / (tp + fn))
    assert s["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert s["detection"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
    assert score(10 * acts, acts)["simulation"] == pytest.approx(1) and score(levels * 0, acts)["simulation"] == 0
    perfect = score(acts, acts)
    assert perfect["detection"] == perfect["f1"] == 1


def test_levels_follow_the_parts_of_a_rule(found):
    """A rule of two concepts, one of them strong: whoever simulates says which."""
    strong, weak = found.where("a title"), found.where("a verb")
    acts = 10.0 * strong + 4.0 * weak
    rule = Rule.parse("a title or a verb", found)
    levels = predict(found, rule, acts, np.ones(len(acts)))
    assert set(levels[strong]) == {10} and set(levels[weak]) == {4} and set(levels[~strong & ~weak]) == {0}


def test_a_misleading_top_is_found():
    """Pure at the top, mixed below: the number of the lecture."""
    acts = np.concatenate([np.linspace(0.81, 1, 40), np.linspace(0.01, 0.79, 160), np.zeros(1000)])
    holds = np.arange(1200) < 40
    top, over = purity(acts, holds)
    assert top == 1 and over == pytest.approx(0.2)
    assert purity(acts, acts > 0) == (1, 1)


def test_top_and_range_of_neurons(atlas):
    """Works for neurons too, and shows the unit with the largest gap."""
    misled = misleading_top(atlas, "neuron", layer=1)
    assert misled.shown == misled.table.gap.idxmax() and 0 < len(misled.table) <= 256
    assert misled.table[["top", "range"]].to_numpy().min() >= 0 and misled.table.top.max() <= 1
    again = misleading_top(atlas, "neuron", layer=1, index=int(misled.table.index[-1]))
    assert again.shown == misled.table.index[-1] and again.figure() is not None
    with pytest.raises(DictionaryError, match="choose one of"):
        misleading_top(atlas, "neuron", layer=1, index=100_000)


def test_all_and_one_agree(atlas):
    """The table and the page of a unit must not contradict each other; controls stay at the floor."""
    all_ = interpret_all(atlas, "neuron", layer=2)
    best = int(all_.table.simulation.idxmax())
    one = interpret(atlas, "neuron", best, layer=2)
    assert one.rule is not None and one.scores["simulation"] > 0.9
    assert all_.table.another.mean() < 0.15 and all_.table.shuffled.mean() < 0.1
    assert all_.table.simulation.mean() > all_.table.token.mean()
    assert str(best) in one.words() and one.figure() is not None and all_.figure() is not None
    for bad in (-1, 256, 1.5, "3"):
        with pytest.raises(DictionaryError, match="choose 0 to 255"):
            interpret(atlas, "neuron", bad, layer=2)
    with pytest.raises(DictionaryError, match="no layer"):
        interpret(atlas, "neuron", 0, layer=9)
    with pytest.raises(DictionaryError, match="like="):
        interpret(atlas, "random", 0)


def test_hostile_words_are_text():
    """Tokens come from strangers: a dollar sign or a tag must not stop the picture."""
    words = ["$\\frac{", "<script>alert(1)</script>", "%s", "\x1b[31m"]
    from mi_workshop.dictionary.judge import Case

    case = Case(words, [9, 0, 3, 0], [9, 4, 0, 0], 0, "strongest")
    shown = Interpretation("feature <i>$x", "the token '$\\frac{'", "<b>model", None, dict.fromkeys(("simulation", "detection", "precision", "recall", "f1"), 0.5), 4, [case])  # fmt: skip
    html = shown._repr_mimebundle_()[0]["text/html"]
    assert "<script>" not in html and "<i>" not in html


# ------------------------------------------------------------------------------------------------- a large model
@contextmanager
def served(answer, status=200):
    """A stand-in for a chat endpoint on this machine; ``answer(prompt)`` is what the model says."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, dict(self.headers), body))
            said = answer(body["messages"][-1]["content"])
            data = said if isinstance(said, bytes) else json.dumps({"choices": [{"message": {"content": said}}]}).encode()  # fmt: skip
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def sentences_in(prompt):
    return [json.loads(line) for line in prompt.splitlines() if line.startswith("[")]


def honest(prompt):
    """Knows that the planted unit fires on the token Texas; wraps its JSON in chatter, as models do."""
    if "Predict" not in prompt:
        return 'Sure! {"explanation": "the token Texas\x1b[31m\\n\\u202e<b>"} Anything else?'
    return json.dumps({"levels": [[10 if w == "Texas" else 0 for w in s] for s in sentences_in(prompt)]})


@pytest.fixture
def texas(found):
    acts = 2.0 * found.where("the token 'Texas'")
    looked = halves(found)
    return acts, looked, examples(found, csc_array(acts[:, None]), looked)


def test_a_large_model_explains_and_is_scored_alike(found, texas, monkeypatch):
    """Its words are cleaned, its levels scored as those of a rule, its key goes into the header alone."""
    monkeypatch.setenv("MY_KEY", "sk-secret")
    acts, looked, weights = texas
    with served(honest) as (url, seen):
        one = explained(endpoint(url, "tiny", "MY_KEY"), "unit", found, acts, looked, weights, 5 * acts, 0)
    assert one.said == "the token Texas[31m <b>"
    assert one.scores["f1"] == 1 and one.rule_scores["f1"] == 1 and one.rule is None
    assert [path for path, _, _ in seen] == ["/v1/chat/completions"] * 2
    assert all(h["Authorization"] == "Bearer sk-secret" and "sk-secret" not in json.dumps(b) for _, h, b in seen)
    assert "sk-secret" not in repr(one) + one.words() + repr(endpoint(url, "tiny", "MY_KEY"))
    asked, held = (sentences_in(b["messages"][-1]["content"]) for _, _, b in seen)
    assert len(asked) >= 6 and len(held) >= 6
    assert "<b>" not in one._repr_mimebundle_()[0]["text/html"]


BAD = [
    b"\xff\xfe", b"{}", b"[]", "no JSON at all", '{"explanation": ""}', '{"explanation": 3}', '{"explanation": "x", "levels": []}', "[" * 5000, '["a"]', "",
    '{"explanation": "x", "levels": [[1e999]]}', '{"explanation": "x", "levels": [["a"]]}', '{"explanation": "x", "levels": 4}', b'{"choices": [{"message": {"content": null}}]}',
    '{"explanation": "x", "levels": [[NaN]]}', '{"levels": [null]}',
]  # fmt: skip


def test_a_bad_answer_is_one_sentence_and_the_rules_go_on(atlas, found, texas):
    """A model that talks nonsense must not stop a lesson."""
    acts, looked, weights = texas
    for said in BAD:
        with served(lambda _, said=said: said) as (url, _), pytest.raises(ValueError, match="tiny|JSON") as error:
            explained(endpoint(url, "tiny"), "unit", found, acts, looked, weights, acts, 0)
        assert "\n" not in str(error.value), said
    unit = int(judged(found, units(atlas, "neuron", 2).acts)[0])
    one = interpret(atlas, "neuron", unit, layer=2, explainer=endpoint("http://127.0.0.1:9/v1", "tiny"))
    assert one.by == "rule search" and one.note.endswith("The rule search goes on.") and one.note in one.words()


def test_levels_are_clipped_and_explanations_cut(found, texas):
    """What a stranger's model answers has no more room than what was asked for."""
    acts, looked, weights = texas

    def wild(prompt):
        if "Predict" not in prompt:
            return json.dumps({"explanation": "x" * 10_000})
        return json.dumps({"levels": [[1e9 if i % 2 else -5 for i in range(len(s))] for s in sentences_in(prompt)]})

    with served(wild) as (url, _):
        one = explained(endpoint(url, "tiny"), "unit", found, acts, looked, weights, acts, 0)
    assert len(one.said) == LONGEST and {v for c in one.cases for v in c.predicted} == {0, 10}


def test_refusals_are_sentences(atlas, monkeypatch):
    """Wrong key, wrong address, offline: what to do, and never the key."""
    monkeypatch.setenv("MI_WORKSHOP_EXPLAINER_KEY", "sk-other")
    refused = served(lambda _: b'{"message": "Incorrect API key sk-other"}', 401)
    with refused as (url, _), pytest.raises(ValueError, match="MI_WORKSHOP_EXPLAINER_KEY") as error:
        endpoint(url, "tiny").explain([])
    assert "sk-other" not in str(error.value)
    for bad in ("http://example.org/v1", "https://me:pw@example.org/v1", "file:///etc/passwd", "ftp://127.0.0.1", "", "http://[::1"):  # fmt: skip
        with pytest.raises(ValueError, match="is not asked") as error:
            endpoint(bad, "tiny").explain([])
        assert "pw" not in str(error.value)
    monkeypatch.setenv("MI_WORKSHOP_OFFLINE", "1")
    with pytest.raises(ValueError, match="MI_WORKSHOP_OFFLINE"):
        endpoint("https://example.org/v1", "tiny").explain([])
    monkeypatch.setenv("MI_WORKSHOP_EXPLAINER_KEY", "line\nbreak")
    with pytest.raises(ValueError, match="characters that no key has"):
        endpoint("http://127.0.0.1:9/v1", "tiny").explain([])


def test_cases_show_errors_too(found):
    """Whoever looks at examples sees where the prediction is wrong, not only where it is right."""
    acts = 1.0 * found.where("a title")
    levels = 10.0 * found.where("a title")
    wrong = int(np.flatnonzero(found.where("a surname"))[50])
    levels[wrong] = 10
    shown = cases(found, acts, levels, np.ones(len(acts), bool))
    assert any(c.group == "worst error" and c.predicted[c.at] == 10 and c.true[c.at] == 0 for c in shown)
