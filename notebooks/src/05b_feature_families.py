# %% [markdown] slideshow={"slide_type": "slide"}
# # Families of features: what splits, what recurs, and what is the text's
#
# > **35 minutes, and 20 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - draw the family tree of a feature across dictionaries of three sizes, and say how much of it chance would have drawn;
# > - tell a feature that has split from one that was joined by specialists;
# > - measure what two models share, and take off what the words alone bring about;
# > - say how much of "the features of a model" survives another run;
# > - open dictionaries of real models with the same lines.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# After [sparse features](05_sae_features.ipynb). If time is short: the table, one tree, the histogram, the last table.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## Part 1: families
#
# How many features does a model have? A dictionary has as many as we asked for. If we ask for four times as many, do new ones appear, or do the old ones
# fall apart into finer ones? Bricken and others saw the second, and called it **feature splitting**: what is one feature in A/0 is a family in A/2.
# %% [markdown] slideshow={"slide_type": "slide"}
# Our three sizes (128, 512 and 2,048 features) read the stream of `atlas` after layer 2. The paper's were 512, 4,096, 16,384 and more, for the one layer of a one-layer transformer. Layer 2 of
# `atlas` has only 9,909 different activations in the whole text: for them, 16,384 features would be a list.
#
# A **parent** of a feature is the one of the next smaller dictionary whose decoder direction is nearest.
# Beside it stands the one whose *activations* correlate most. Dead features (firing at fewer than two tokens of either half of the text) are left out, and labels are scored on the half on which they were not chosen, as in the answer key of the [last notebook](05_sae_features.ipynb).
# %%
from mi_workshop.dictionary.families import families

model = mi.load("atlas")
sizes = [mi.dictionary.load("atlas", layer=2, width=width) for width in (128, 512, 2048)]
split = families(model, sizes)
split.controls.T.round(2)

# %% [markdown]
# **Look:** `cosine` is the median to the parent; `shuffled` is the same search among directions of the same spread that belong to nobody. Among so many candidates the
# nearest is never far, so how much of a family tree would have been drawn for *any* dictionary? `implied` is the share of a child's tokens at which its parent fires,
# `implied_shuffled` that for somebody else's parent. `beyond`: the share of features whose parent is nearer than 95 % of such chance parents. `correlation` and `implied_partner` are the same
# for the parent by activation. And `agree`: how often do direction and activation name the same parent?

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What one feature becomes
#
# The paper's table, with concepts that we know to be there. `parts` are features that fire almost only (at least 80 % of the time) where the concept holds; at the share
# `covered` of its tokens one of them does.
#
# **Predict:** which of *a surname*, *a language* and *a place* falls into the most parts? Will any single feature still stand for all of it?

# %% slideshow={"slide_type": "slide"}
import pandas as pd

pd.set_option("display.max_colwidth", None)
names = ["a surname", "a language", "a place", "the answer is a capital"]
split.becomes(names).round(2)

# %% [markdown]
# **Look:** `parts` grow with the size, as the paper says. But look at `f1`, of the best single feature: it does not fall. The feature for languages, or for "the answer is a capital", is still there among 2,048, as good as ever, and finer ones
# appear *beside* it until they cover every token. To split is one thing, to be joined by specialists is another, and both make the same picture of a growing family. The `labels`
# say what they are, the most frequent first.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### A family tree
#
# **Predict:** a feature of the smallest dictionary fires where a capital has to be answered. What will its children be: kinds of question, single capitals, or something else?

# %% slideshow={"slide_type": "slide"}
split.tree("the answer is a capital", by="correlation")

# %% [markdown]
# And the same feature, with parents by direction, as they are usually drawn:

# %%
split.tree("the answer is a capital", by="cosine")

# %% [markdown]
# **Look:** by direction it has one child, and that has one: no family at all. Dashed lines above are disputed: the other measure names another parent. A direction is shared out among all that is active at a token; two
# features may fire together and write apart. Which tree a paper shows is a choice, and it should be said.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The map
#
# All live features of the three sizes, near where their activations are alike. Rings: 128, squares: 512, triangles: 2,048. The menu lights up the features of one
# family of concepts, or one tree; point at a mark for its label.
#
# **Predict:** where will triangles crowd around a ring, and where will there be triangles without one?

# %% slideshow={"slide_type": "slide"}
split.map()

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What could mislead you here
#
# - **The map.** t-SNE keeps neighbours together; how far apart two groups are drawn, and how large, means nothing. The title says how many have lost their nearest
#   neighbour. PCA is honest about distances and loses nearly everything else: try `print(split.map("cosine", "pca"))`.
# - **The start.** Dictionaries of different widths that are trained from one seed may begin with the *same random directions*. Then a child has a parent of its own number, only
#   because both began there: that is the column `same_start` above. (It was .6 for ours, until we noticed and gave each width a seed of its own.)
# - **The label.** It is the best of over a thousand concepts. Grey boxes in the tree have a label with an F1 under one half: do not read them aloud.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Part 2: is it the model, or the text?
#
# `atlas-twin` was trained like `atlas`, from another random start. For every feature of the one, we look for the feature of the other whose activations correlate most, both
# models reading the same tokens. Bricken and others report about .7 between two of their models, and read it as **universality**: both found the same things.
#
# **Predict:** ours, above or below? And neurons? And *random directions*, cut so that they fire as rarely as features?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.dictionary.universality import matched

twin = mi.load("atlas-twin")
pair = matched(model, sizes[1], twin, mi.dictionary.load("atlas-twin", layer=2, width=512))
pair

# %% [markdown]
# **Look:** the dotted line is the published value, of other models, another text and larger dictionaries: the two numbers cannot be compared, so ours is neither above nor
# below it. The lines that can be compared are the controls. How many *random directions* reach .7, for nothing?

# %%
print(pair)
pair.summary().round(2)

# %% [markdown]
# **Look:** a direction that fires at a few tokens often fires at one *word*, and both models read the same words: `by_token` says how much of a feature the word alone explains,
# `within` how well a pair agrees once the mean of each word is taken off both. That is what the *words* cannot have brought about. (Their context is text, too. For that, see the untrained
# models below.)

# %% [markdown] slideshow={"slide_type": "slide"}
# Some controls take too long for a lesson: two models that were **never trained**, `atlas` against one of them, and `atlas` against **itself**: the
# same activations, the same training, another seed of the dictionary (`run 0` to `run 3`). And layer 1, where the stream of `atlas` is a function of the token and nothing else.
#
# **Predict:** which share of the features of one run has a twin in the next (each other's best, and a correlation of .9 or more)?

# %% slideshow={"slide_type": "slide"}
from mi_workshop import results

stored = results.read("families")
stored["runs"].drop(columns="live").astype(float).round(2)

# %% [markdown]
# **Look:** `mutual` is the share of features that are their best match's best match, too. `recur_by_correlation`: of these, activations that correlate by .9 or more; `recur_by_cosine`: directions with a cosine
# of .9 or more (which two models do not share). `same_concept`: both have the same label. At layer 1 `within` is empty: there is nothing beyond the token. At layer 2, who agrees beyond it, trained models or untrained ones? Then compare *run and run* with *atlas
# and twin*. What varies from one run to the next on the very same model cannot be a property of the model. And what two untrained
# models share cannot have been learned: Heap and others (2025) found that dictionaries of randomly initialised transformers look about as interpretable as those of trained ones.

# %% [markdown] tags=["instructor"]
# Let the class vote on *above or below .7* before the histogram, and ask afterwards whether it was the right question. The exercise *an echo of the text* is the one to do together.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The same, on a real model
#
# A dictionary is saved as [SAELens](https://decoderesearch.github.io/SAELens) saves its own, and what SAELens saved is read. So with a network and `pip install sae-lens` one line opens the dictionaries
# of GPT-2 and Gemma. (What this cell says depends on what you have, so this copy stores nothing for it: run it.)

# %% tags=["unstored"]
mi.dictionary.save(sizes[1], "my_dictionary")
print(mi.dictionary.load("my_dictionary"))
print(mi.dictionary.load("gpt2", layer=8, otherwise="atlas"))

# %% [markdown]
# There is no answer key for GPT-2: no list of its concepts, no text of which every word's part is known. What remains is the second half of what you have done: explanations that *predict* held-out text, interventions beside their
# controls, other runs, other models, random ones. What you have seen here is how far each of these can be trusted.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# a stranger in the family

# %%
from mi_workshop.teach import check, hint, solution

stranger = (split, ...)
# solution
children = split.table.loc[512]
stranger = (split, children[children.implied == 0].cosine.idxmax())
print(children.loc[stranger[1]])

# %%
check("a stranger in the family", stranger)

# %% [markdown] tags=["exercise"]
# joined, not split

# %%
joined = (split, ...)
# solution
joined = (split, "the answer is a capital")
split.becomes([joined[1]]).round(2)

# %%
check("joined, not split", joined)

# %% [markdown] tags=["exercise"]
# an echo of the text

# %%
echo = (pair, ...)
# solution
pairs = pair.table
echo = (pair, pairs[(pairs.correlation >= 0.7) & (pairs.within < 0.1)].index[0])
print(pairs.loc[echo[1]])

# %%
check("an echo of the text", echo)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - Wider dictionaries have finer features. Whether the old ones split or stay is a question for a table; both look alike on a map.
# - A family tree can be drawn for any dictionary. Draw the one for shuffled directions beside it.
# - Two runs on the same activations share a part of their features: there is no *the* dictionary of a model.
# - What two models share may be the text's. Take off what the token alone explains, and compare with models that were never trained.
#
# ## To discuss
#
# - The dictionary leaves something unexplained (the lecture: about 20 %). Would it be the same 20 % in the next run? How would you find out?
# - Two runs share only a part of their features. Which sentences about "the features of `atlas`" may you still write? What would you have to report beside them?
# - If a large model writes the labels and another one grades them, which of the controls of this notebook would they pass without having understood anything?
#
# ## Where to read more
#
# - Bricken and others: [*Towards Monosemanticity*][mono], 2023: feature splitting and universality
# - Heap and others: [*Sparse Autoencoders Can Interpret Randomly Initialized Transformers*][heap], 2025
# - [SAELens][saelens], the library for dictionaries of real models
#
# **Next:** [Attribution graphs](06_attribution_graphs.ipynb)
#
# [mono]: https://transformer-circuits.pub/2023/monosemantic-features
# [heap]: https://arxiv.org/abs/2501.17727
# [saelens]: https://github.com/decoderesearch/SAELens
