# %% [markdown] slideshow={"slide_type": "slide"}
# # Counterfactuals: correlation and cause
#
# > **40 minutes, and 25 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - say for each method of this course whether it shows a correlation or a cause, and score it against an answer key;
# > - show that a probe reads what a model does not use;
# > - catch an intervention that only seems to work;
# > - tell two models apart that give the same answers.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# If there is time for one section only, take *Readable is not used*: the table with the random subspace has silenced more than one room.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## An answer key that needs no look inside
#
# What does the answer to *the capital of the state containing Dallas* depend on? Ask the model itself: put every other city, attribute and kind of place
# into the question and count how often the answer changes. **Predict:** for which of the three words will it change?
# %% slideshow={"slide_type": "slide"}
from mi_workshop.answer_key import model_key, questions

model = mi.load("atlas")
asked, donors, states = questions(model.world, rank=0)  # cities that no two-step question of the training named
key = model_key(model, asked[:10])
key

# %% [markdown]
# **Look:** the word *state* could as well be *country*: this model never needs it. That is the **model key**, a fact about the model, not about geography.
#
# ## Which method finds these words?
#
# Gradient, attention and probe look on; ablation and patching change something. **Predict:** who ranks the words that matter above the rest?
# (*Area under the curve*: 1 if every word that matters ranks above every other; .5 is chance.)

# %% slideshow={"slide_type": "slide"}
from mi_workshop.answer_key import token_scores

token_scores(model, asked[:20], key)

# %% [markdown]
# **Look:** in this small, clean task looking on does well, too; patching loses where the other question happens to have the same word. If you had expected a clear win for the causal
# methods: so had we. The difference begins where the question is not *which word* but *what is used inside*.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Readable is not used
#
# After layer 1, at the city, stands which state it is. In which *directions*? Four methods name 16 of 128 dimensions each; the fifth row is random.
# *State read*: how well a probe inside these directions knows the state of a city that it has not seen. *Gained*: how much of
# another state's answer comes when the content of just these directions is exchanged. *Lost*: how much of the own answer goes.
#
# **Predict:** fill in the random row before you run it.

# %% slideshow={"slide_type": "slide"}
from mi_workshop.answer_key import subspace_scores, subspaces

found = subspaces(model)
subspace_scores(model, found)

# %% [markdown]
# **Look:** the state can be read off in 16 *random* directions, and exchanging them does next to nothing. The directions that the probe picks do not read better than random ones (.94), and are not
# used either. A probe's accuracy says that information is there, never that it is used.
#
# Here we judge by intervention. In `atlas-wired` we know the truth: it was trained so that one subspace, drawn at random beforehand, carries the state. How near does each method come to it?

# %% slideshow={"slide_type": "slide"}
wired = mi.load("atlas-wired")
subspace_scores(wired, subspaces(wired) | {"the truth": wired.wired.subspace})

# %% [markdown]
# **Look:** two random subspaces of this size overlap by 16/128 = 0.125. (*Gained* can pass 1: more than the donor itself gives.) Which method finds the subspace, which finds another one
# that works as well, and which one only reads?
#
# (That the words come out the same way in this model says that the first table was not about one model only:)

# %%
token_scores(wired, asked[:20], model_key(wired, asked[:10]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The demonstration that worked on the wrong prompt
#
# It happens easily: one adds features of another state, prints the answer of that state, and is pleased. But the intervention ran on the *other* prompt, which had
# that answer all along. Here is this mistake: "we put California in at the city, and the model says *Sacramento*":

# %%
from mi_workshop.answer_key import AT_CITY
from mi_workshop.counterfactual import Experiment, Site, sweep

oakland = "Fact: the capital of the state containing Oakland is"
fresno = "Fact: the capital of the state containing Fresno is"
report = Experiment(AT_CITY).run(model, oakland, donors=fresno)
report.after[:2]

# %% [markdown]
# **Predict:** what does the whole report say?

# %% slideshow={"slide_type": "slide"}
report

# %% [markdown]
# **Look:** the answer of the same prompt *without* the intervention is the first control. It costs one run, and it would have been enough.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One answer, two models
#
# `atlas-memo` learned every two-step answer by rote: its training text never says in which state a city lies, nor what the capital of a state is. It gives the same answers:

# %%
memo = mi.load("atlas-memo")
dallas = "Fact: the capital of the state containing Dallas is"
model.top(dallas, 1), memo.top(dallas, 1)

# %% [markdown]
# Do the paths differ? **Predict:** will the rote learner's graph have a *Texas* in it?

# %% slideshow={"slide_type": "slide"}
mi.compare(mi.trace(model, dallas), mi.trace(memo, dallas))

# %% [markdown]
# **Look:** a graph alone may not tell. So test what would have to differ: change the answer for *one* city by an edit of the weights. If the model
# knows the state, the other cities of the state should follow, and the fact itself. If it knows each city by rote, they should not.

# %% slideshow={"slide_type": "slide"}
import pandas as pd

from mi_workshop.answer_key import edit_scores

pd.DataFrame({m.name: edit_scores(m) for m in (model, memo)})

# %% [markdown]
# **Look:** do the two columns differ as predicted? Cities of one state share *all* their answers, so that also a rote learner gains by keeping them together: it may have found
# the states without being told. (The row *fact* asks the rote learner for sentences that it has never seen.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is it this model, or models like it?
#
# `atlas-twin` differs from `atlas` in nothing but the random start. **Predict:** will it work at the same places? With the same features?

# %% slideshow={"slide_type": "slide"}
twin = mi.load("atlas-twin")
both = {m.name: sweep(m, dallas, oakland, positions=["Dallas", "last"], progress=False) for m in (model, twin)}
tables = {name: pd.DataFrame(found.mean[:, :, 0], columns=found.positions) for name, found in both.items()}
pd.concat(tables, axis=1).rename_axis("after layer").round(2)

# %%
from mi_workshop.answer_key import universality

universality(model, twin)

# %% [markdown]
# **Look:** both carry it from the city to the end between layers 1 and 3; after layer 2 `atlas` still has .75 of it at the city, the twin .09. And for most features of one model the other has a
# feature that fires on nearly the same words; shuffled text shows what a best match out of many is worth by luck. In layers 0 and 1 an activation depends on the word alone: there the match says that
# both fire on the same words, and no more. [05b](05b_feature_families.ipynb) takes the mean of each word off first.
# (Published values for one-layer models on web text lie near 0.7; ours live in a far smaller world, so do not compare the numbers.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you here
#
# **The verdict has a threshold.** *Necessary* and *sufficient* mean: at least half of the probability, and more than 95 % of random changes of equal size. They are words for numbers, so read the numbers.
# A change that destroys what random changes of the same size often destroy as well is no evidence of being necessary:

# %%
Experiment(Site("z", 2, "last")).run(model, dallas, oakland)

# %% [markdown]
# **A null result is no proof of absence.** With few random changes nothing can reach p ≤ 0.05, whatever the effect:

# %%
Experiment(AT_CITY, n_random=10).run(model, dallas, oakland).verdict

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# readable

# %%
from mi_workshop.counterfactual.subspace import Probe, activations, principal
from mi_workshop.teach import check, hint, solution

layer = ...

# %% tags=["solution"]
labels, read = ["state"] * len(states) + ["country"] * len(states), {}
for k in range(4):
    site, sides = Site("resid_post", k, "last"), [questions(model.world, rank)[0] for rank in (4, 0)]
    x, y = (activations(model, side + [p.replace("state", "country") for p in side], site) for side in sides)
    read[k] = Probe(x, labels).accuracy(y, labels)  # learned on one city of each state, tested on another
layer = next(k for k, share in read.items() if share >= 0.9)
read

# %%
check("readable", layer)

# %% [markdown] tags=["exercise"]
# how many dimensions

# %%
x = activations(model, questions(model.world, 4)[0] + questions(model.world, 5)[0], AT_CITY)  # [prompt, d_model]
n = ...
# solution
sites = [Site("resid_post", 1, "{city}", basis=principal(x - x.mean(0), k)) for k in range(1, 20)]
gains = [Experiment(site).run(model, asked, donors, controls=False).table.gained.mean() for site in sites]
n = 1 + next(k for k, gain in enumerate(gains) if gain >= 0.5)

# %%
check("how many dimensions", n)

# %% [markdown] tags=["exercise"]
# an edit that stays put

# %%
site = ...
# solution
tried = {(k, at): edit_scores(model, k, at, ("Texas",)) for k in range(4) for at in ("{city}", "last")}
table = pd.DataFrame(tried).T
good = (table["edited question"] == 1) & (table["attributes kept"] >= 0.5) & (table["other states kept"] >= 0.9)
site = table[good].index[0]

# %%
check("an edit that stays put", site)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - A correlation says what is there, an intervention what is used, and only beside its controls.
# - The unedited run of the same prompt is the first control. Random changes of the same size are the second.
# - What a probe can read is in almost every direction; what the model uses is in few.
# - Two models with the same answers can be told apart by changing one thing and watching what follows, if they differ at all.
#
# ## To discuss
#
# - Which of the methods in the first table would you use on a model without an answer key, and how would you know that it works?
# - The rote learner found the states without being told, or it did not: what would you call knowing?
# - When is a null result worth publishing?
#
# ## Where to read more
#
# - Geiger and others: [*Finding Alignments Between Interpretable Causal Variables and Distributed Neural Representations*][das], 2024
# - Meng and others: [*Locating and Editing Factual Associations in GPT*][rome], 2022
# - Belinkov: [*Probing Classifiers: Promises, Shortcomings, and Advances*][probing], 2022
# - Bricken and others: [*Towards Monosemanticity*][mono], 2023: universality of features
#
# **Next:** [Catch and fix](09b_catch_and_fix.ipynb)
#
# [das]: https://arxiv.org/abs/2303.02536
# [rome]: https://arxiv.org/abs/2202.05262
# [probing]: https://arxiv.org/abs/2102.12452
# [mono]: https://transformer-circuits.pub/2023/monosemantic-features/index.html
