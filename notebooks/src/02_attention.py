# %% [markdown] slideshow={"slide_type": "slide"}
# # Attention
#
# > **50 minutes, and 30 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - look at the attention of any head of any model, as a pattern and as lines between tokens;
# > - tell attention weights from the scores before the softmax, which introductions sometimes plot in their place;
# > - name what a weight leaves out, and weigh it by values, by gradients and through the layers;
# > - score each of these against what changes the model's answer;
# > - say in which sense attention is an explanation, in which it is not, and by which numbers.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# Let the room find the fault in *Somebody else's code* by themselves: two minutes, in pairs, nobody says "softmax" before that. The brush is the
# picture to remember: ask for bets before you drag, first on the story, then on the review. They will expect the same of both.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## See it
#
# In an **attention head** each token looks at tokens before it and takes something from them. How much from which is its **attention pattern**: weights
# that sum to 1.
#
# *Mr Dursley met Mrs Potter. Mr ...* **Predict:** where should a head look, at the last token, to go on with *Dursley*?
# %%
from mi_workshop.attention import patterns

model = mi.load("atlas")
text = "Mr Dursley met Mrs Potter. Mr"
found = patterns(model, text)
found.pattern.shape  # [layer, head, query, key]: the query looks, the key is looked at

# %% slideshow={"slide_type": "slide"}
found.show(layer=3, head=2, mode="lines")

# %% [markdown]
# On the left stands each token that looks, on the right what it looks at. The small pictures are all heads, layers upwards: the *model view*; the large one is the
# *head view* (both as in [BertViz](https://github.com/jessevig/bertviz)). In a live notebook, point at a token to see only its lines, click on another head, or
# draw several heads together.
#
# **Look:** which heads do something that you could name? Find the one that looks at the token before, and one that looks from the second *Mr* to what came after the
# first. And which do nothing that you could name? The same as a table, for one head and the last token:

# %%
found.head(3, 2).loc["Mr [7]"].round(3)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Not only words
#
# `scenes-clip` compares pictures with words. In its image encoder 64 patches and a class token attend to each other; the class token becomes the
# picture's vector.

# %%
from mi_workshop.worlds import Scenes

clip = mi.load("scenes-clip")
scene = Scenes().sample(3, "validation")[2]
print(scene.caption, "|", patterns(clip, scene, scene.caption).describe())

# %% [markdown]
# Lines between 65 patches are hard to read; as heat over the picture the class token's weights are easy. **Predict:** one map is for a query about one
# object, the other for a query about another. How will they differ?

# %% slideshow={"slide_type": "slide"}
from IPython.display import display

queries = [thing.phrases()[0] for thing in scene.objects[:2]]
for query in queries:
    display(mi.attribute(clip, scene, query, "attention"))

# %% [markdown]
# **Look:** not at all. The image encoder has not seen the query. An attention map is about what was *computed*, not about what you asked: if you ask CLIP for
# a map of "where the circle is" and get its attention, you get the same map for the square.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Somebody else's code
#
# Code of this kind stands in a well-known introduction, with GPT-2 in the place of our model: run with a cache, take the attention of
# every head, give it to a view (in a live notebook, CircuitsVis draws this one, too).
#
# **Predict**, before you read on: is this the picture from above?

# %% slideshow={"slide_type": "slide"}
from dataclasses import replace

import torch

_, cache = model.replacement.run_with_cache(model.tokens(text))
scores = torch.stack([cache[f"blocks.{layer}.attn.hook_attn_scores"][0] for layer in range(4)])
replace(found, pattern=scores.numpy())

# %% [markdown]
# It is a fine picture, one could write about it, and it is wrong. **Find out why**, before you run the next cell: what must be true of attention
# weights, and is it true of these?

# %%
seen = torch.isfinite(scores)  # a token cannot look ahead: there the score is -inf
print("between", scores[seen].min().item(), "and", scores.max().item())
print("sums of rows:", scores[3, 2].where(seen[3, 2], 0).sum(-1))

# %% [markdown]
# Negative weights, weights of 8, rows that do not sum to 1: these are the scores *before* the softmax. A view draws any numbers; ours colours
# what is above 1 like 1, and what is below 0 like 0. `hook_attn_scores` and `hook_pattern` are one word apart. Mended:

# %%
by_hand = scores.softmax(-1)
print("sums of rows:", by_hand[3, 2].sum(-1))
print("largest difference from patterns():", abs(by_hand.numpy() - found.pattern).max())

# %% [markdown]
# **Look back** at head 3.0 in the wrong picture: most of what it can see is dark. A score says little by itself; only differences within a row count.
#
# With a network the same line shows GPT-2, for which such code is written; where there is none, one sentence says so and Atlas goes on. (What this cell shows
# depends on what you have, so this copy stores nothing for it: run it.)

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
gpt2 = mi.load("gpt2", otherwise="atlas")
patterns(gpt2, text).show(mode="lines")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Believe it?
#
# The weights are right now. What do they say about the answer? Set each head's output to zero, and see which share of the answer's probability is lost.
#
# **Predict:** will heads with a sharp pattern matter more than heads with a blurred one? Will every head matter at all?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.counterfactual import sweep, zero

sweep(model, text, kind="z", positions=None, change=zero(), metric="lost", progress=False)

# %% [markdown]
# **Look:** layers 0 and 1 could be left out. Their heads attend like any other, and *write nothing*: their output matrix is zero. We made them so, and in this
# model it can be read off; in others a head may write next to nothing, and no attention pattern shows it.
#
# ## What a head passes on
#
# What a token gets from another is weight × value, sent through the output matrix. So weigh each weight by the length of what it carries:
# α · ‖v W_O‖ ([Kobayashi and others 2020](https://arxiv.org/abs/2004.10102)). **Predict:** which pictures will be empty?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.attention import gradient_weighted, norm_weighted, rollout

norm_weighted(model, text).show(layer=3, head=2)

# %% [markdown]
# **Look:** the silent heads are gone. And of the others, most of layer 2 pass on less for the same weight than those of layer 3: all but 2.1, the one that the
# map before showed to matter most.
#
# Two more repairs. **Gradient-weighted** attention asks which weights *this answer's* logit would follow: weight × gradient, where positive. **Rollout** asks
# what reaches a token through *all* layers: it multiplies the patterns, each mixed half and half with the token itself, because the residual stream passes it on
# ([Abnar and Zuidema 2020](https://arxiv.org/abs/2005.00928)). Where does the last token get *Dursley* from?

# %%
import pandas as pd

ways = {"raw": found}
ways |= {kind.__name__: kind(model, text) for kind in (norm_weighted, gradient_weighted, rollout)}
last = {name: a.pattern[3].mean(0)[-1] for name, a in ways.items()}  # layer 3, mean over heads, at the last token
pd.DataFrame(last, index=found.tokens).pipe(lambda table: table / table.sum()).round(2)

# %% [markdown]
# **Look:** three columns agree here, and rollout says something else: it counts the silent layers like any other, and so follows weights by which nothing is
# passed on. Would a column that agrees with two others be right?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Ask the answer key
#
# The two keys of notebook 01: the **model key** replaces every word by all others that could stand there and sees how far *this* model's number moves; the
# **world key** says which words should matter. Each way of reading attention gets its scores; *chance* is a random map.
#
# **Predict:** which row wins? And will it be the same one for pictures?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.attention import compare_with_key
from mi_workshop.teach.patching import capital_questions

columns = ["pointing", "mass", "tau", "pointing_world", "auc"]
questions = capital_questions(model.world)[0][:8]
compare_with_key(model, [(question, None) for question in questions])[columns].round(2)

# %%
scenes = Scenes().sample(8, "validation")
compare_with_key(clip, [(scene, scene.caption) for scene in scenes])[columns].round(2)

# %% [markdown]
# **Look:** *pointing* is how often the highest weight lies on what changes the number most, *mass* the share of the weights there, *tau* the agreement of the rankings; the last
# two columns ask for what *should* matter. The winner of the first table is among the last in the second, and the leader of the second is no better
# than chance in the first. (For pictures, only the two ways with a gradient know the query: × gradient, and *relevance*, which takes it through all layers.)
# Neither table tells you the other: what a way of reading attention is worth is a question for each model. With so few inputs do not read the second digit.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What if it had looked elsewhere?
#
# Attention was invented for models like the next one: it reads a story word by word, forwards and backwards, and its answer is a weighted mean over the
# words, the weights being its attention. It trains while you wait.

# %%
from mi_workshop.attention import brush
from mi_workshop.models.attention_rnn import train
from mi_workshop.worlds import Reviews, Rooms

rooms = train(Rooms(), epochs=3)
reviews = train(Reviews(), n=2000, epochs=3)
print("right answers:", *(round(m.accuracy(m.world.sample(500, "test")), 3) for m in (rooms, reviews)))

# %%
story = "Sandra went to the garden. John moved to the office. Sandra travelled to the kitchen. Where is Sandra?"
patterns(rooms, story)

# %% [markdown]
# It looks at the place in the sentence that says so. Is this *why* it says kitchen? Change it: in a live notebook drag a bar onto another
# word, or try the buttons. Python can do it, too. **Predict:** all weight goes to *office*. And if it goes to *John*?

# %% slideshow={"slide_type": "slide"}
view = brush(rooms, story)
view.weights = [word == "office" for word in view.words]
view

# %% [markdown]
# **Look:** the answer follows the weights. Now a review: *the acting ... often moving ... the ending was clever*. **Predict:** every word gets the same
# weight. How far will the prediction move?

# %% slideshow={"slide_type": "slide"}
review = reviews.world.sample(3, "test")[1]
view = brush(reviews, review)
view.weights = [1] * len(review.words)
view

# %% [markdown]
# **Look:** the weights have moved almost as far as they can, the prediction hardly at all. Try *Permute*: is there any order that turns it? The state of each word
# has read its neighbours, and much of the review stands in each of them.
#
# Same model, same attention, two tasks: in one the answer hangs on the weights, in the other it does not.
