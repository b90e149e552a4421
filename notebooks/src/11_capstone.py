# %% [markdown] slideshow={"slide_type": "slide"}
# # The exam: find what was planted
#
# > **10 minutes, and 30 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - find an unknown behaviour of a model from its answers;
# > - locate the part that causes it, and not one upstream of it;
# > - prove it with controls, and say how much you know.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# Seed 3 is worked through here; give every learner a seed of their own (0, 1, 2, ... take turns through the three families). `submit` prints the record. An honest exam: whoever reads
# `mi_workshop/teach/capstone.py` can compute what was planted. Seeds 0 and 6 are the easiest, those of *second hop* the hardest, because patching the city changes the question.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you get
#
# A model, and a task. Something was planted in its weights: you know of which three sorts it may be, not which, where, or about whom.
# %%
from mi_workshop.teach.capstone import capstone, submit

exam, task = capstone(3)
task

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Look from outside
#
# The world knows the truth about every sentence. **Predict:** how many of all the facts would a planted fault of each sort spoil: one city, one attribute of a place, a name in the prompt?

# %%
from mi_workshop.teach.catch_and_fix import answers

facts = exam.world.facts
said = answers(exam, [fact.prompt for fact in facts])
wrong = [(fact.prompt, answer) for fact, answer in zip(facts, said) if answer != fact.answer]
len(facts), len(wrong)

# %% [markdown]
# **Look:** a handful among thousands. A test of a hundred random questions would most likely have missed it. If nothing at all were wrong here, you would go on with names before the question.

# %%
# solution
import pandas as pd

pd.DataFrame(wrong, columns=["prompt", "says"])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# find it

# %%
from mi_workshop.counterfactual import Experiment, Site, patch, sweep
from mi_workshop.teach import check, hint, solution

found = ...
# solution
found = ("first hop", "Bandung", "Peru")

# %%
check("find it", found)

# %% [markdown] tags=["exercise"]
# locate it

# %%
place = ...
# solution
asked = exam.world.home[found[1]]
prompts = [exam.world.two_hop(found[1], attribute).prompt for attribute in asked.attributes]
donors = [prompt.replace(found[1], asked.cities[0]) for prompt in prompts]
swept = sweep(exam, prompts, donors, kind="mlp_out", positions=["{city}", "last"], metric="gained", progress=False)
place = (max(layer for layer in range(4) if swept.mean[layer, 0, 0] > 0.5), "{city}")  # the last that cures

# %%
# solution
swept

# %%
check("locate it", place)

# %% [markdown] tags=["exercise"]
# prove it

# %%
proof = ...
# solution
proof = Experiment(Site("mlp_out", *place), patch(), n_random=50).run(exam, prompts, donors)

# %%
check("prove it", proof)

# %%
# solution
proof

# %% [markdown] tags=["solution"]
# **Look:** one row fails: any healthy donor repairs the model, also one of a third answer. So the patch shows where the fault is, not that the donor's city was put in.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Hand it in
#
# Leave out what you do not know: it earns nothing, and a false claim costs a point. Then take a seed of your own, with `capstone(seed)` and `submit(seed, ...)`.

# %%
submit(3)

# %%
# solution
submit(3, *found, layer=place[0], position="{city}", evidence=proof)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you here
#
# **A patch that restores the answer need not be at the fault.** Replace everything that is read, and the fault has nothing to work on. Make your patch one layer *before* the place that you
# found, and one layer after. **Predict** both.

# %%
# solution
for layer in (place[0] - 1, place[0] + 1):
    report = Experiment(Site("mlp_out", layer, "{city}"), patch(), n_random=20).run(exam, prompts, donors)
    print(f"layer {layer}: gained {report.table.gained.mean():.2f}, {report.verdict}")

# %% [markdown]
# **Look:** the first may have a verdict that would look well in a paper, and has the wrong layer. *Sufficient* says that it is enough to change this; it does not say that the fault is there.
# And read all controls of such a report: a donor of a *third* answer brings the right one back, too. The patch takes something out; it puts nothing in.
#
# **You were told what to look for.** There were three sorts, and one of them was there. Nobody tells an auditor of a real model so, and the world that knows every right answer is missing, too.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - Find it from outside first: a table of wrong answers that have one thing in common is the best guide to the inside.
# - The last place at which a patch helps is nearer to the cause than the first.
# - A claim that you cannot defend costs more than one that you leave out.
#
# ## To discuss
#
# - Which of your steps would have been possible without a world that knows every answer?
# - A random change of a part that does harm often cures it, too. What does its *p* then tell you?
# - How would you plant a behaviour that these three steps do not find?
#
# ## Where to read more
#
# - Marks and others: [*Auditing Language Models for Hidden Objectives*][audit], 2025
#
# **Next:** [Start here](00_start_here.ipynb), with somebody who has not seen it.
#
# [audit]: https://arxiv.org/abs/2503.10965
