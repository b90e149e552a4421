# %% [markdown] slideshow={"slide_type": "slide"}
# # Patching and induction
#
# > **35 minutes, and 23 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - find where in a model an answer is decided, by patching;
# > - say what zeroing, mean, resampling and noise each do to a part, and why they disagree;
# > - find a circuit of two heads by score, by ablation and by its path, and compare the three;
# > - read a verdict together with the controls that it rests on.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# The heat map of section 1 is the picture to leave on the wall: click a cell, and the patch runs before their eyes. Section 3
# (four ablations, four answers) is where researchers in the room begin to argue; let them.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two prompts that differ in one word
#
# **Activation patching** runs the model on one prompt and, at one place inside, puts in what is there in *another* prompt. If the answer
# follows, what was put in decides it.
# %%
from mi_workshop.counterfactual import Experiment, Site, path_patch, sweep
from mi_workshop.teach.patching import capital_questions, meetings

model = mi.load("atlas")
dallas = "Fact: the capital of the state containing Dallas is"
oakland = "Fact: the capital of the state containing Oakland is"
model.top(dallas, 2), model.top(oakland, 2)

# %% [markdown]
# We patch the **residual stream**, everything that a layer passes on, at each token and after each layer: 44 patches, in one batch.
# 0 means that the answer stays Austin, 1 that it is as much Sacramento as in the other prompt.
#
# **Predict:** which cells will be dark? Where does the question "which state?" live, and where is it when the answer is given?

# %% slideshow={"slide_type": "slide"}
sweep(model, dallas, oakland)

# %% [markdown]
# **Look:** only two columns have anything in them, and the others are exactly 0, because before *Dallas* the two prompts are the same.
# When does it move to the last token? In this model layers 0 and 1 see only their own token: that everything stays at the city
# *that long* was built in, not found.
#
# In a live notebook, click a cell: the patch runs at that place, with its controls.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A patch and its controls
#
# That the answer follows could still be luck: perhaps *any* push of this size at this place gives Sacramento? An experiment brings its controls along.
#
# **Predict:** how often will a random push break *Austin*, and how often give *Sacramento*?

# %% slideshow={"slide_type": "slide"}
Experiment(Site("resid_post", layer=1, position="Dallas")).run(model, dallas, oakland)

# %% [markdown]
# **Look:** a random push of the same length often destroys the answer, so that "Austin is gone" alone would say little. None gives Sacramento.
# *Lost* asks what was necessary, *gained* what is sufficient; each is compared with the random changes before a word is said.
# The other rows: *same answer* is a donor with the same capital, *third answer* a donor with yet another one, *wrong position* the same vector put in one
# token to the left. Surprised by the last? Oakland put in at the token before Dallas still counts for something: this model looks for a city, wherever it stands.
#
# One prompt is an anecdote. The same experiment for every state, with an interval over prompts:

# %%
asked, donors = capital_questions(model.world)
Experiment(Site("resid_post", 1, "{city}"), n_random=20).run(model, asked, donors)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Take it away: four ways, four answers
#
# An **ablation** takes a part's output away. But what stands there instead? *Zero* is something that the model has never seen; the *mean* keeps what
# all questions have in common; *resampling* puts in what is there in another question; *noise* leaves what is there and adds random numbers to it, spread
# as widely as the part's own.
#
# **Predict:** for one and the same layer, will the four agree?

# %% slideshow={"slide_type": "slide"}
import pandas as pd

from mi_workshop.counterfactual import mean, noise, resample, zero

ways = {"zero": zero(), "mean": mean(asked), "resample": resample(asked), "noise": noise()}
everywhere = {"positions": None, "metric": "lost", "progress": False}

# %%
lost = {}
for name, change in ways.items():
    found = sweep(model, asked, kind="mlp_out", change=change, **everywhere)
    lost[name] = found.mean[:, 0, 0]  # [layer]
pd.DataFrame(lost).rename_axis("MLP of layer").round(2)

# %% [markdown]
# **Look:** the MLP of layer 1 seems vital when it is set to zero, and hardly matters when it is resampled. Zero takes away what it writes for *every* question,
# which later layers count on; resampling takes away only what tells one question from another. Noise takes nothing away: it adds as much as the layer writes,
# and nearly every answer breaks, also where the layer does not say which capital it is. None is wrong: they answer different questions. Which one did the paper
# that you last read use?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Mr Dursley met ... Mr
#
# After *Mr Dursley ... Mr* a model says *Dursley*: it has seen the pair, and goes on as it went before. Heads that do this are called **induction heads**.

# %%
passages = meetings(model.world)
print(passages[0], "→", model.top(passages[0], 1))

# %% [markdown]
# Where do its heads look? Choose a head, then hover over the last *token*:

# %% slideshow={"slide_type": "slide"}
from mi_workshop.attention import head_scores, patterns

patterns(model, passages[0]).show(layer=3, head=2, mode="lines")

# %% [markdown]
# **By score.** An induction head looks from a token to what came *after* the same token before; a previous-token head looks one back. So their attention
# patterns give them away. **Predict:** in which layers? (The heads of layers 0 and 1 look about, but write nothing.)

# %% slideshow={"slide_type": "slide"}
scores = head_scores(model)
scores.loc[~scores.silent, ["previous_token", "induction"]].round(2)

# %% [markdown]
# **By ablation.** A pattern is a correlation. Which heads does the answer *depend* on? Each head in turn gets its output from another passage:

# %% slideshow={"slide_type": "slide"}
sweep(model, passages, kind="z", change=resample(passages), **everywhere)

# %% [markdown]
# **Look:** two heads matter, one in layer 2 and one in layer 3. By score, *every* head of layer 3 looks like an induction head; knocked out one at a time, only one
# is missed. (Where two do the same work, knocking out one shows nothing: that is a limit of this test, too.)
#
# **By path.** Do the two work *together*? Induction needs the head of layer 3 to find "the token after Mr". It can, if the head of layer 2 has
# written at each token what stood before it. So change only what one head of layer 2 sends into the **keys** of the head of layer 3, all else held:

# %% slideshow={"slide_type": "slide"}
senders = [Site("z", 2, units=head) for head in range(4)]
keys, queries = [Site(kind, 3, units=2) for kind in "kq"]
paths = {}
for receiver in (keys, queries):
    found = path_patch(model, *passages[:2], senders, [receiver], metric="lost")
    paths[receiver.kind] = found
pd.DataFrame(paths).rename_axis("head of layer 2").round(2)

# %% [markdown]
# **Look:** one head of layer 2 sends something that the answer needs, into the keys and not into the queries. The highest scores, the ablation and the path name the
# same pair. They need not: each could have spoken against the others. (Queries and keys decide where a head looks: its QK circuit. What it copies from there is its OV circuit.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you here
#
# **Direction.** Patching *into* the clean prompt (noising) asks what is necessary, patching the clean value into the corrupted prompt (denoising) what is sufficient. With a
# backup elsewhere, a sufficient part need not be necessary.
#
# **Many cells.** Among 44 cells one will be large by luck. The permutation below allows one false cell in twenty such *maps*; with two
# prompts `significant()` refuses:

# %%
many = sweep(model, asked[:12], donors[:12], progress=False)
large = many.significant()
print(f"{large.sum()} of {large.size} cells are larger than luck makes any, in 19 maps of 20")

# %% [markdown]
# **The prompts.** All of this is about these questions. In another model the same heads need not exist; change one word, the model's name, and see:

# %%
open_model = mi.load("atlas-global")
sweep(open_model, passages, kind="z", change=resample(passages), **everywhere)

# %% [markdown]
# **Look:** that model copies names badly, and no single head carries it. (*Lost* is a share of what little there was.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# where it arrives

# %%
from mi_workshop.teach import check, hint, solution

prompt = "Fact: the language of the country containing Lyon is"
donor = "Fact: the language of the country containing Osaka is"
layer = ...
# solution
layer = int((sweep(model, prompt, donor, positions=["last"]).mean[:, 0, 0] >= 0.5).argmax())

# %%
check("where it arrives", layer)

# %% [markdown] tags=["exercise"]
# names but not capitals

# %%
head = ...
# solution
on_capitals = sweep(model, asked, kind="z", change=resample(asked), **everywhere)
print(on_capitals.mean[:, 0].round(2))
head = (2, 1)

# %%
check("names but not capitals", head)

# %% [markdown] tags=["exercise"]
# an ablation that misleads

# %%
site = ...
# solution
site = ("mlp_out", 1)

# %%
check("an ablation that misleads", site)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - Patching moves one thing from one prompt to another: what follows depends on it, in these prompts.
# - Zero, mean, resampling and noise do different things to a part; name the one that you used.
# - An effect means something beside the unedited prompt, random changes of equal size, other donors, and a wrong place.
# - Attention scores propose a circuit, ablation and paths test it.
#
# ## To discuss
#
# - A part is sufficient but not necessary. How can that be, and what would you report?
# - The induction head was found by its score in the literature and by its loss here. Which would you trust in a model with a thousand heads?
# - Which control would have caught the last wrong claim that you believed?
#
# ## Where to read more
#
# - Heimersheim, Nanda: [*How to use and interpret activation patching*][howto], 2024
# - Olsson and others: [*In-context Learning and Induction Heads*][induction], 2022
# - Wang and others: [*Interpretability in the Wild*][ioi], 2022: path patching on GPT-2
# - Chan and others: [*Causal Scrubbing*][scrubbing], 2022: why resampling
#
# **Next:** [Superposition](04b_superposition.ipynb)
#
# [howto]: https://arxiv.org/abs/2404.15255
# [induction]: https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html
# [ioi]: https://arxiv.org/abs/2211.00593
# [scrubbing]: https://www.alignmentforum.org/posts/JvZhhzycHu2Yd57RN/causal-scrubbing
