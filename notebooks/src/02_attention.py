# %% [markdown] slideshow={"slide_type": "slide"}
# # Attention
#
# > **50 minutes, and 26 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
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

# %% [markdown]
# And does the model say what this head looks at?

# %%
model.top(text, 1)

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
# a map of "where the circle is" and get its attention, you get the same map for the cross.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Somebody else's code
#
# Code of this kind stands in a well-known introduction, with GPT-2 in the place of our model: run with a cache, take the attention of
# every head, give it to a view (in a live notebook, CircuitsVis draws this one, too).
#
# **Predict**, before you read on: is this the attention from above, now drawn as tiles (a row for each token that looks)?

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
replace(found, pattern=by_hand.numpy())

# %% [markdown]
# **Look back** at head 3.0 in the wrong picture: most of what it can see is dark. A score says little by itself; only differences within a row count.
#
# With a network the same line shows GPT-2, for which such code is written, drawn by CircuitsVis; where there is none, one sentence says so and Atlas goes on. (What this cell shows
# depends on what you have, so this copy stores nothing for it: run it.)

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
gpt2 = mi.load("gpt2", otherwise="atlas")
patterns(gpt2, text).show()

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
# And sharpness? Of layer 3, heads 3.0 and 3.1 look as sharply as 3.2, and taking one of them out costs 0.01 where 3.2 costs 0.30.

# %% [markdown] slideshow={"slide_type": "slide"}
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

ways = [patterns, norm_weighted, gradient_weighted, rollout]
last = {way.__name__: way(model, text).pattern[3].mean(0)[-1] for way in ways}
table = pd.DataFrame(last, index=found.tokens)  # layer 3, mean over heads, last token
(table / table.sum()).round(2)

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
# ## What could mislead you: it could have looked elsewhere
#
# Attention was invented for models like the next one: it reads a story word by word, forwards and backwards, and its answer is a weighted mean over the
# words, the weights being its attention. It trains while you wait.

# %%
from mi_workshop.attention import brush
from mi_workshop.models.attention_rnn import train
from mi_workshop.worlds import Reviews, Rooms

rooms = train(Rooms(), epochs=3)
reviews = train(Reviews(), n=2000, epochs=3)
right = [round(m.accuracy(m.world.sample(500, "test")), 3) for m in (rooms, reviews)]
print("right answers:", *right)

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
# **Look:** the weights have moved far (0.83 of 1), the prediction hardly at all (0.05). Try *Permute*: is there any order that turns it? The state of each word
# has read its neighbours, and much of the review stands in each of them.
#
# The same architecture, trained on two tasks: in one the answer hangs on the weights, in the other it does not.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The debate
#
# In 2019 one paper said in its title that [attention is not explanation](https://arxiv.org/abs/1902.10186), and another answered that [attention is not not explanation](https://arxiv.org/abs/1908.04626).
# Both trained models like ours, a BiLSTM with additive attention, on reviews and hospital notes. They could only compare explanations with each other.
# On *Rooms* we know which sentence the answer follows from, so we can run their experiments and then ask the key.
#
# `rooms` is one of two models; the other differs in nothing but the seed:

# %%
from mi_workshop import debate

world = rooms.world
other = train(world, seed=1, epochs=3)
stories = world.sample(200, "validation")

# %% [markdown]
# **Do measures of importance agree?** In each story the words are ranked by attention, by |gradient × input| and by what leaving a word out does to the prediction.
# Kendall's τ is 1 where two rankings are the same and 0 where they have nothing in common.
#
# **Predict:** which pair will agree best? How well should two *good* measures agree?

# %% slideshow={"slide_type": "slide"}
debate.correlations(rooms, stories, other)

# %% [markdown]
# **Look:** attention agrees little with either, and that is one half of the first paper's case. But gradient and leave-one-out do not agree well either, and neither does the attention
# of two models that differ in nothing but the seed. Most words of a story do not matter at all, and τ counts their order as much as that of the two that do.
#
# **Can the weights be others, and the answer the same?** First each story's weights in 100 random orders, then weights that are *sought*: as far from the model's as can be
# while the prediction moves by less than 0.01. (Distance of weights: Jensen-Shannon divergence, JSD, from 0 to 0.69. Distance of predictions: total variation, TVD, from 0 to 1.)
#
# **Predict:** how far will the answer move when the weights are shuffled? And for how many stories is there an adversary?

# %%
_, moved = debate.permuted(rooms, stories)
print(f"shuffled: the prediction moves by {moved.median(0).values.mean():.2f} TVD")
adversary = debate.adversarial(rooms, stories)
print(f"far other weights for {(adversary.jsd > 0.35).float().mean():.0%} of the stories")

# %% slideshow={"slide_type": "slide"}
adversary

# %% [markdown]
# **Look:** same prediction, another heat map. (The story shown is the one with the farthest weights; in most stories of *Rooms* there is no room to go that far.
# And look where they went: to the *garden* of Julie's sentence. The same word, the wrong sentence.)
#
# Now the same for a review: the first of the sample in which more than half of the model's own weight is on one word, and this word was planted. **Predict:** where
# will the weight go?

# %% slideshow={"slide_type": "slide"}
rated = reviews.world.sample(40, "validation")
strongest = zip(rated, *reviews.weights(rated).max(-1))
clear = next(r for r, weight, at in strongest if weight > 0.5 and int(at) in r.evidence)
debate.adversarial(reviews, [clear])

# %% [markdown]
# **Look:** from the word that decides to words that say nothing, in other sentences, and the answer stays. Is that much? The second paper asks how far apart two models are that nobody manipulated:

# %%
twins = debate.compare(rooms, other, stories)
print(f"JSD: two seeds {twins.jsd.mean():.2f}, the adversary {adversary.jsd.mean():.2f}")

# %% [markdown]
# **Are the weights worth something to another model?** Take the LSTM away: an MLP reads each word by itself, blind to its context, and can only weigh words. Give it weights to use,
# and see how far they carry it. (Wiegreffe and Pinter's diagnostic; F1 is the mean over places.)
#
# **Predict:** will the weights of the LSTM help?

# %%
from mi_workshop.models.attention_rnn import uniform

for name, weights in {"uniform": uniform, "the LSTM's": rooms.weights}.items():
    mlp = train(world, attention=weights, encoder="mlp")
    print(f"{name}: F1 {debate.f1(mlp, stories):.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The full table
#
# One data set, one seed: an anecdote. Five seeds on four data sets take longer than a lesson; they were run once by `python -m training.debate`, and stored:

# %%
from mi_workshop.debate_verdicts import f1_table, key_table, stored_correlations
from mi_workshop.results import read

stored = read("debate")
stored

# %% slideshow={"slide_type": "slide"}
stored_correlations(stored)

# %% [markdown]
# The same shuffling, by the largest weight of a passage; how far the prediction moved (TVD):

# %%
stored["permuted"].round(2)

# %% [markdown]
# **Look:** on *Rooms* shuffling ruins the answer. In the notes half of the passages hardly notice, even where one word has most of the weight, while a quarter of those changes by 0.4 or more: a mean hides both.

# %% slideshow={"slide_type": "slide"}
f1_table(stored)

# %%
f1_table(stored, few=True)

# %% [markdown]
# **Look:**
#
# - With 4,000 training passages the LSTM reaches F1 1 on three data sets whatever its attention: there the table says nothing about attention.
# - With 600 (the second table) learned attention is ahead on all four.
# - The MLP, which knows of the context only what the weights tell it, does far better with those of the LSTM than with uniform ones or its own. On *Reviews*
#   that is so for some seeds only: look at the interval.
# - It does worst on average with the weights of an adversary trained to attend elsewhere (below).
#
# (Mind the yardstick: always answering *anemic* gives F1 0.68, never doing so gives 0. With the adversaries' weights some MLPs learned just that.)
#
# The published table, on other data, for orientation and not for comparison (Wiegreffe and Pinter 2019, Table 3):

# %%
stored["published"]

# %% [markdown]
# **Train the adversary.** An adversary sought story by story is no model. Wiegreffe and Pinter train one: predict as the base model does, and attend elsewhere, with a weight λ on the second.
#
# **Predict:** what will it cost?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.debate_verdicts import trade_off, verdicts

trade_off(stored)

# %% [markdown]
# **Look:** further up is farther attention, further left is more the same prediction. On *Rooms* and the notes a model with λ = 0.01 attends elsewhere altogether and predicts nearly as before. On *Reviews* most of them learn to attend
# elsewhere and not to predict: a TVD near 0.5 is a coin's. (λ was chosen on validation passages of *Rooms* and *Anemia*; another one for *Reviews* would be a choice after the fact.) And there two *seeds* can be as far
# apart as any adversary (squares): what varies by itself needs no adversary.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the keys say
#
# Until here explanations were compared with explanations. On *Rooms* there are keys: the sentence on which *this* model's answer depends (model key: every word is replaced by every
# other that the world would put there), and the one that the answer follows from (world key).
#
# **Predict:** how often does attention, which agrees with so little, point to the right sentence?

# %%
debate.pointing(rooms, stories[:50]).groupby("measure", sort=False).mean().round(2)

# %% [markdown]
# **Look:** nearly always, as gradient and leave-one-out do. Three measures whose rankings have little in common name the same sentence: they part in the order of the rest. And the adversary that was trained to look elsewhere? **Predict:** where does it look?

# %% slideshow={"slide_type": "slide"}
adversary = debate.train_adversary(rooms, strength=0.01)
debate.compare(rooms, adversary, stories, ("the model's own", "the trained adversary's"), shown=0)

# %% [markdown]
# **Look:** at another word of the *same* sentence. An LSTM that reads in both directions writes what it has read into the states of other words, so that the state of *journeyed*, three words
# before *garden*, can know it too. JSD calls that as far as can be.
# For an MLP, which sees only the word, such weights are worthless: that is what the diagnostic found.
#
# The same for five seeds, for models with other attention, and on the other data sets, where the planted words are known (AUC: how surely a planted word
# gets more weight than another; 0.5 is chance):

# %% slideshow={"slide_type": "slide"}
key_table(stored)

# %% [markdown]
# **Look:**
#
# - On *Rooms* attention points to the sentence that the answer depends on, in the trained adversary, too.
# - Uniform weights point nowhere; that model's answers depend on sentences all the same, and leaving words out finds them.
# - The MLP's own attention is right in about half of the stories, and its answers in little more.
# - On the notes attention finds the planted words better than the gradient does, on *Reviews* worse.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Who is right?
#
# Each claim has a threshold that was written down before the test passages were opened, and is supported where the whole 95 % interval over seeds lies on its side.

# %% slideshow={"slide_type": "slide"}
pd.set_option("display.max_colwidth", None)
verdicts(stored)

# %% [markdown]
# **Look:** neither title follows.
#
# - The first paper's rankings disagree here, too; but on *Rooms* all three name the same sentence, and disagree about the rest.
# - Other weights for the same answer exist for nearly every passage on three data sets, and for a minority of the stories on *Rooms*, where the task needs attention.
# - Shuffling does move the answers, if not in every passage.
# - The second paper's diagnostic holds: the weights carry something that another model can use, clearly on three data sets.
# - Yet a model can be trained to answer as well and attend elsewhere.
#
# What attention points to is a *state* of the LSTM and not a word; whether that explains depends on what was asked.
#
# "Mixed" over all data sets mostly means that data sets differ. (With five seeds an interval can reach beyond what is possible, as a share above 1.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# a head that looks in vain

# %%
from mi_workshop.teach import check, hint, solution

prompt = "Fact: the capital of the state containing Dallas is"
idle = ...
# solution
others = mi.counterfactual.resample(capital_questions(model.world)[0])
print(sweep(model, [prompt], kind="z", positions=None, change=others, metric="lost").mean[:, 0].round(2))
idle = (2, 3)

# %%
check("a head that looks in vain", idle)

# %% [markdown] tags=["exercise"]
# the same answer by other weights

# %%
elsewhere = ...
# solution
passage = world.parse(story)
alone = torch.eye(len(passage.words))
kitchen = [rooms.predict([passage], w[None])[0][0, world.classes.index("kitchen")] for w in alone]
elsewhere = (rooms, story, alone[max(range(10), key=lambda i: kitchen[i])])

# %%
check("the same answer by other weights", elsewhere)

# %% [markdown] tags=["exercise"]
# attention by hand

# %%
mended = ...
# solution
q, k = (cache[f"blocks.3.attn.hook_rot_{name}"][0] for name in "qk")
products = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
ahead = torch.ones(products.shape[1:]).triu(1).bool()
mended = products.masked_fill(ahead, -torch.inf).softmax(-1)

# %%
check("attention by hand", mended)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - Attention weights sum to 1 and come *after* the softmax; a picture does not say which of the two it shows.
# - A weight says where a head looks, not what it carries, nor whether anybody needs it: weigh by values, ablate.
# - Where models mix information before they attend, a weight points to a *state*, not to a word.
# - "Is it an explanation?" is many questions: the same ranking, the same sentence, the only way to this answer, of use to another model. The numbers differ, and so do the answers.
# - A data set that a model solves with any attention cannot tell you what attention is for.
#
# ## To discuss
#
# - Two measures agree on the sentence and disagree on the ranking (τ). Which of the two would you report, and for whom?
# - The trained adversary attends to *journeyed* and answers as before. Is its heat map wrong? What would you have to know about the model to say so?
# - Where every model reaches F1 1, uniform attention is "as good". What does that say about attention, and what about the data set?
#
# ## Where to read more
#
# - Jain, Wallace: [*Attention is not Explanation*][jain], 2019
# - Wiegreffe, Pinter: [*Attention is not not Explanation*][wiegreffe], 2019
# - Abnar, Zuidema: [*Quantifying Attention Flow in Transformers*][rollout], 2020
# - Kobayashi and others: [*Attention is Not Only a Weight*][norm], 2020
# - Vig: [*A Multiscale Visualization of Attention in the Transformer Model*][vig], 2019: BertViz
#
# **Next:** [The logit lens](03_logit_lens.ipynb)
#
# [jain]: https://arxiv.org/abs/1902.10186
# [wiegreffe]: https://arxiv.org/abs/1908.04626
# [rollout]: https://arxiv.org/abs/2005.00928
# [norm]: https://arxiv.org/abs/2004.10102
# [vig]: https://arxiv.org/abs/1906.05714
