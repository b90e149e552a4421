# %% [markdown] slideshow={"slide_type": "slide"}
# # Sparse features: see a dictionary learn the concepts that we know are there
#
# > **60 minutes, and 46 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - train a sparse autoencoder in seconds, read its losses, and choose its width and its sparsity;
# > - score each feature against the concepts of the world: precision, recall, and an intervention;
# > - judge a feature as a scientist does: over its whole range, by a rule that predicts, against controls;
# > - say what training bought that a random dictionary does not have.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# In one lesson of 45 minutes: parts 1, 2 and the game. Play the game *before* you show the answer key, on the projector, by tables.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## Part 1: a dictionary learns
#
# Features lie in [superposition](04b_superposition.ipynb), more of them than dimensions. If only a few are present at a time, they can be taken apart again:
#
# $$x \approx b + \sum_i f_i(x)\, d_i$$
#
# A **sparse autoencoder** learns the directions $d_i$ and the activations $f_i(x) \ge 0$ from nothing but activations: it has *more* features than $x$ has dimensions, must
# rebuild $x$, and pays for every activation (L1). $b$ is taken off before the encoder and put back by the decoder: the tied bias. In a good decomposition, the activations can be
# described, changing one of them has an effect that can be predicted, and little of the model's loss is lost. First the activations, of every token of the training text:

# %%
model = mi.load("atlas")
x = mi.dictionary.activations(model, "blocks.2.hook_resid_post")  # [token, d_model]
x.shape

# %% [markdown]
# Then the parts, the directions at random to begin with:

# %%
import torch

x = x / (x - x.mean(0)).norm(dim=1).mean()
W_dec = torch.nn.functional.normalize(torch.randn(512, 128), dim=1)
parts = [0.3 * W_dec.T, torch.zeros(512), W_dec, x.mean(0)]
optimizer = torch.optim.Adam([part.requires_grad_() for part in parts], lr=5e-3)

# %% [markdown]
# And this is the whole of it. **Predict:** what would the features do if the last term of the loss were left out? And what if the decoder's norm were left out of it?

# %% slideshow={"slide_type": "slide"}
for _ in range(200):
    (W_enc, b_enc, W_dec, b_dec), batch = parts, x[torch.randint(len(x), (512,))]
    features = torch.relu((batch - b_dec) @ W_enc + b_enc)
    error = (features @ W_dec + b_dec - batch).pow(2).sum(1).mean()
    loss = error + 0.05 * (features * W_dec.norm(dim=1)).sum(1).mean()
    optimizer.zero_grad(), loss.backward(), optimizer.step()
l0 = (features > 0).sum(1).float().mean()  # active features per token
print(f"squared error {error:.3f}, {l0:.0f} of 512 features per token")

# %% [markdown]
# Without the price, a token may use all features, and nothing is taken apart. Without the norm, activations would shrink and directions grow, and sparsity cost nothing.
#
# The same, faster and with its successors, is one line. **BatchTopK** has no price: it keeps the strongest activations of the batch, so that a token has `k` on average, and after
# training one threshold for all. In a live notebook the curves grow while you watch. **Predict:** which of the four will still move at the end?

# %% slideshow={"slide_type": "slide"}
sae = mi.dictionary.train(model, layer=2, width=512, kind="batchtopk", k=8, steps=600)

# %% [markdown]
# **Look:**
# - *Unexplained variance* falls at once and then slowly, at a fixed number of features per token.
# - A *dead* feature has not fired for a hundred steps. Dead ones get a second chance: they learn what the others leave over.
# - *Loss recovered*: the reconstruction is put in the place of the activations, and the model goes on with it. 0 is what the mean would do, 1 is the model itself.
#
# Most of the variance is not most of the loss. **Predict:** more than 99 % of the variance explained; how much of the loss is recovered? And how many times as large as the
# model's own loss is the loss with the reconstruction?

# %% slideshow={"slide_type": "slide"}
mi.dictionary.quality(model, sae)

# %% [markdown]
# **Look:** 98 % recovered, and yet the loss is about three times the model's own. What the last percent of the variance holds may be little for the dictionary, and all for an answer. The
# sentences are held out, the model and the dictionary were never trained on them. (*Dead* here means: fires nowhere in the whole text.)
#
# Mind what "held out" means here. Up to layer 1, `atlas` reads each token by itself: there are 804 different activations in the whole training text, and a held-out
# sentence brings no new one. At layer 2 there are 9,909, and held-out sentences do bring new ones. A dictionary of 2,048 features for 804 activations would be a list.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Which kind?
#
# | kind | what makes it sparse | what it costs |
# |---|---|---|
# | L1 ([Bricken and others 2023](https://transformer-circuits.pub/2023/monosemantic-features)) | a price on activations | shrinks all of them, the strong ones too |
# | TopK ([Gao and others 2024](https://arxiv.org/abs/2406.04093)) | the k strongest of each token | as many for an easy token as for a hard one |
# | BatchTopK ([Bussmann and others 2024](https://arxiv.org/abs/2412.06410)) | the strongest of a batch | needs a threshold afterwards |
# | JumpReLU ([Rajamanoharan and others 2024](https://arxiv.org/abs/2407.14435)) | a threshold per feature, learned | its gradient is an estimate |
#
# An error without a number of features says nothing: a dictionary that may use more of them always rebuilds better. So the kinds are compared along a line. **Predict** the order at 8 features per token.

# %% slideshow={"slide_type": "slide"}
mi.dictionary.frontier(layer=2)

# %% [markdown]
# **Look:** same activations, batches, steps and seed for all, each with four settings; what is stored says which. With few features per token TopK is ahead. From eight on it is plain L1, which all others were made to
# replace. This is an order for *this* world and *this* budget: 600 steps, of which JumpReLU's slow thresholds would want many more, and with starts and learning rates that were tried on the same layer. A frontier is a
# fair picture only if everybody had the same attention; ask for that when you see one in a paper.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### A transcoder is the same thing
#
# It reads one place and writes another: here what goes into an MLP, and what comes out. So its features say what the layer *does*, not what the stream *holds*; the graphs of
# [Dallas to Austin](07_dallas_to_austin.ipynb) are made of them. (All layers at once, each feature writing to the later ones too, is a cross-layer transcoder: `mi.dictionary.train_cross_layer`.)

# %%
where = {"site": "ln2.hook_normalized", "writes": "hook_mlp_out"}
mlp = mi.dictionary.train(model, 2, 256, **where, steps=200, progress=False)
mi.dictionary.quality(model, mlp)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What could mislead you here
#
# A curve that ends well is no proof that it went well. This learning rate is far too high. **Predict:** will it crash?

# %%
mi.dictionary.train(model, 2, 512, steps=60, learning_rate=0.5, progress=False).history

# %% [markdown]
# It does not, and no message comes. Only the curves tell: the "unexplained" variance is many times the variance itself, and hardly a feature fires. (*Dead* stays at 0: it counts a hundred silent
# steps, and there were only 60.) (If a loss becomes infinite, or no number, training stops, says at which
# step and why, and keeps the last good weights.) Two more that no curve shows:
# - **Shrinkage.** L1 makes every activation too small, and the norm of what is rebuilt with them.
# - **Loss recovered flatters.** The mean of all activations is so bad a stand-in that 98 % is easy; count the nats that are still missing, too (e to that many is the factor by which
#   the perplexity grows).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn: part 1

# %% [markdown] tags=["exercise"]
# find the bugs

# %%
from mi_workshop.teach import check, hint, solution
from mi_workshop.teach.dictionary_exercises import BUGGY

print(BUGGY)

# %%
mended = ...
# solution
from mi_workshop.teach.dictionary_exercises import MENDED

names = {"torch": torch, "nn": torch.nn}
exec(MENDED, names)
mended = names["SparseAutoencoder"]

# %%
check("find the bugs", mended)

# %% [markdown] tags=["exercise"]
# the price of a feature

# %%
sparse = ...
# solution
sparse = mi.dictionary.train(model, 2, 128, "l1", l1=0.05, steps=300, batch=512, progress=False)

# %%
check("the price of a feature", sparse)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Part 2: the answer key
#
# Is a feature interpretable? In a real model somebody looks at examples and says yes. Here the question has an answer: the world lists its **concepts**, and knows at each
# token of the training text which of them hold. A feature that *is* a concept fires where the concept holds, and nowhere else:
#
# - **precision**: of the tokens at which the feature fires, the share at which the concept holds;
# - **recall**: of the tokens at which the concept holds, the share at which the feature fires;
# - **F1**: both in one number, near the smaller of the two.
#
# Every feature gets the concept that fits it best. That is a choice among a thousand, and the best of a thousand is good by luck. So the concept is chosen on one half of the
# sentences, and every score comes from the other half. These are the concepts:

# %%
from mi_workshop.concepts import concepts

families = concepts(model).table.groupby("family", sort=False)
families.agg(concepts=("name", "size"), for_example=("name", "last"))

# %% [markdown]
# **Predict:** for which families will the dictionary of layer 1 have features? For how many features will the best concept be right at more than four firings of five?

# %% slideshow={"slide_type": "slide"}
sae = mi.dictionary.load("atlas", layer=1, width=512)
key = mi.dictionary.feature_key(model, sae)
key

# %% [markdown]
# **Look:**
# - Left, each circle is a feature. Most lie at the right edge, at every height: they fire wherever their concept holds, *and elsewhere*.
# - **Monosemanticity** is the mean F1, a number with an interval. "By chance" is the same with the tokens shuffled.
# - Right, the families. A feature of this layer knows the token, and the place that a city belongs to. Not what was said before it or what has to be answered: up to here each
#   token has been read by itself (see [the lens](03_logit_lens.ipynb)). A dictionary cannot find what is not there yet.
#
# **Predict:** the next feature stands for a place, and has a poor precision. It fires at many tokens that have nothing to do with the place. *How strongly?*

# %% slideshow={"slide_type": "slide"}
good = key.table.query("family == 'place' and concept == tuned_concept and tuned > 0.9")
place = good.precision.idxmin()
mi.feature(model, 1, place, kind=sae)

# %% [markdown]
# **Look:** where it fires strongly, the label holds; where it fires weakly, it does not. Above a threshold this feature is nearly perfect. `tuned` in `key.table` is the F1 with such a
# threshold, chosen on the first half for each feature. Is that not the fairer number? We thought so at first. But it lifts everything: the strongest activations of *any* direction share
# a token (see `directions` in the table below, and the orange marks). So the number shown is F1 as the feature fires.
#
# Is it high? A number needs a rival: a **random dictionary**. Random directions, each with a threshold that lets it fire as often as one of the features. Nobody trained it.
#
# **Predict** its mean F1, as it fires and `tuned`.

# %% slideshow={"slide_type": "slide"}
rival = mi.dictionary.feature_key(model, mi.dictionary.units_of(model, sae, "random"))
for found in (key, rival):
    means = found.table[["f1", "tuned", "weighted"]].mean().round(2)
    print(found.of.kind, means.to_dict())
print(rival)

# %% [markdown]
# **Look:** as they fire, a dictionary that nobody trained scores as high (.73 against .70). With a threshold of its own for each unit, or weighted by strength, the trained one is ahead
# (.85 against .76, .73 against .68). So the verdict hangs on a choice that looked harmless. After layer 1 the token itself still stands in the residual stream, large and plain, and whatever reaches
# furthest along *any* direction is some token. Others found the same in large models: dictionaries of *random networks* get explanations
# that score well ([Heap and others 2025](https://arxiv.org/abs/2501.17727)). **A score for interpretability means nothing without the same score for a rival.**
#
# So what did training buy? Ask what the features *do*. Take one out, its activation times its direction, in questions that the model was not trained on. If it stands for
# Ghana, questions about Ghana must suffer, and no others. The control writes as much, at the same tokens, in a random direction.

# %% slideshow={"slide_type": "slide"}
from mi_workshop.circuits.corpus import validation_text

effects = mi.dictionary.ablations(key, text=validation_text)
print("random dictionary:", mi.dictionary.ablations(rival, text=validation_text))
effects

# %% [markdown]
# **Look:** right, what the feature writes costs its own questions several times what a random direction of that size costs. Left, other questions lose next to nothing, but that is cheap:
# where a feature does not fire nothing is changed. "Another active unit" is the harder control: at the token of a city everything that fires has to do with that city, and taking any of
# it hurts. And read the printed line: the random dictionary, right as it may be about its concepts, hardly does anything to any answer. It writes little, and what it writes costs what a
# random direction costs.
#
# Taking away breaks things, and much can break a thing. The other way is harder to get by accident. Put a place's feature *in*, at a city of another place, and
# predict the answer: the capital, language or region of the feature's place. The table has the six features with the largest gain:

# %% slideshow={"slide_type": "slide"}
boosted = mi.dictionary.boosts(key)
columns = ["gain", "random", "other", "top", "random_top", "other_top"]
print(boosted[columns].mean().round(2).to_dict())
boosted.round(2).sort_values("gain").tail(6)

# %% [markdown]
# **Look:** `gain` is what the predicted answer wins, in nats, beside a random direction of that size (`random`) and the feature of another place (`other`); `top`, how often it becomes the model's answer. (The
# controls gain too: whatever breaks a question's own answer raises all others.) These features are handles, and we knew beforehand what turning them would do.
#
# Now everything side by side: three sizes of dictionary, and all the rivals. Stored, since it takes minutes. **Predict:** where do the neurons stand?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.dictionary.overview import overview

overview(layer=1)

# %% slideshow={"slide_type": "slide"}
overview(layer=2)

# %% [markdown]
# **Look:** no column alone makes the case.
# - By F1 the *random* dictionary is not behind in either layer (the intervals overlap), and layer 1's neurons are as good as its features. But neurons find few concepts, and one of them taken out changes hardly any answer.
# - The cross in the third panel is a random direction of the same size at the same tokens: the number to beat. One of the rivals cannot be told from the
#   dictionary by the first two panels at all: the exercise is about it.
# - In layer 2 the widest dictionary finds the most concepts and has the lowest mean F1 of the three: many of its features are pieces for which we have no name ([next notebook](05b_feature_families.ipynb)).
# - The last panel rebuilds from as many units per token, without any encoder. In layer 2 nothing comes near a dictionary. In layer 1 the dictionaries lose half of it and more, though with their own encoders they recover
#   nearly all (see the model card). What a table leaves out is part of its result.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What could mislead you: the key
#
# - The key knows the concepts that *we listed*. A feature may be right about something that we have no name for, and is then called impure.
# - F1 depends on the text. A concept that holds at three tokens of the corpus is found or missed by luck; those with fewer than two in either half are left out.
# - The beginnings of sentences recur, in both halves: "held out" is kinder here than it sounds.
# - "Found" asks for one feature per concept. Three features that share a place have each a poor recall, and between them miss nothing.
# - An effect on answers is seen only for the questions that we ask. A feature with no effect may have a twin that stands in for it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn: part 2

# %% [markdown] tags=["exercise"]
# a flattered feature

# %%
flattered = ...
# solution
flattered = int(key.table.query("tuned >= 0.9 and f1 < 0.5").index[0])

# %%
check("a flattered feature", flattered)

# %% [markdown] tags=["exercise"]
# right and useless

# %%
impostor = ...
# solution
impostor = "shuffled"

# %%
check("right and useless", impostor)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Part 3: judging as a scientist
#
# The usual way to find out what a feature means: look at its strongest examples and say what they have in common. It feels convincing. Is it?
#
# For every feature we take the single concept that explains its strongest examples best. Then we ask at what share of the 20 strongest tokens that concept
# holds, and at what share over the *whole range* of activations: five ranges, each counts the same, however few tokens it has.
#
# **Predict:** of the features that look 90 % pure at the top, how many are as pure over the whole range?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.dictionary import interpret, interpret_all, misleading_top

misled = misleading_top(model, sae)
misled

# %% [markdown]
# **Look:** each dot is a feature. Below the diagonal the top flatters. On the right the feature with the largest gap, from its strongest example down: ✓ where the
# top's hypothesis holds. Whoever had stopped after six lines would have written a paper about the wrong concept.
#
# This is not a fault of dictionaries. Neurons do the same, and here is the page of the one with the largest gap:

# %%
neurons = misleading_top(model, "neuron", layer=1)
print(neurons)
mi.feature(model, 1, neurons.shown, kind="neuron")

# %% [markdown]
# **Look:** by its strongest examples this is a neuron for *Hecho*, and hardly any of its other firings are at that word. [Neuroscope](https://neuroscope.io) shows such a page for each neuron
# of many models, with the strongest examples only; ours shows the whole range.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Explanations that are scored
#
# An explanation is worth what it *predicts*. Bills et al. (2023) let a large model explain a neuron from examples, let it predict activations on text that was
# not used, and correlate prediction and truth: the **simulation score**. Paulo et al. (2024) ask only *where* it fires: the **detection score** (balanced accuracy; chance is 0.5).
#
# We need no large model, because the world lists its concepts. A search puts together rules of at most three of them (*A and not B*, *A or B or C*) from
# example sentences: the strongest, some from each range, some silent ones. It sees half of the sentences, and is scored on the other half.
#
# **Predict:** the feature that misled us above: which rule will the search find, and will it predict the weak activations?

# %% slideshow={"slide_type": "slide"}
interpret(model, sae, misled.shown)

# %% [markdown]
# **Look:** below each word *true | predicted*, from 0 to 10. "Worst error" shows the tokens at which the rule is most wrong: an explanation that hides them is advertising.
#
# Now all features at once, with controls that could have failed. **Predict** the score of: the rule of *another* feature; a rule fitted to *shuffled* activations (the search
# has thousands of rules to choose from: will it find one by chance?); the best *single token*; a rule from the strongest examples *alone*.

# %% slideshow={"slide_type": "slide"}
judged = interpret_all(model, sae)
judged

# %% [markdown]
# **Look:** on the right every dot above the line is a feature that is understood better from its whole range than from its top. Some lie below: examples are a sample, and a search
# can be unlucky too. On average the gain is small: .015 of a score of .88. By this score rules from the top alone do nearly as well, although by the purity above the top misled most of the time. Two
# measures, two answers. (The interval in the words below says whether the mean could be luck.)

# %%
print(judged)
columns = ["rule", "simulation", "detection", "f1", "top"]
judged.table.sort_values("simulation")[columns].iloc[[0, 1, 2, -3, -2, -1]].round(2)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Are features easier to explain than neurons?
#
# The same search, the same scores, for the MLP neurons of the same layer, and for random directions that fire as often as the features do.
#
# **Predict** the order of the three. By how much does a *random* direction lose?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.dictionary import compare_units

compare_units(model, sae)

# %% [markdown]
# **Look**, and do not look away: random directions are far from zero, and neurons of this small model are no worse than features by the simulation score. Three things could be true: these neurons are
# nearly monosemantic (Atlas has few concepts, and a ReLU is a privileged basis); a disjunction of three places counts as an "explanation"; the score rewards strong activations, and features are
# less sharp at their weak ones. The number of literals, precision and recall tell more than one score does: `compare_units(model, sae).table`. And the order is not the same everywhere: try the dictionary of `layer=2`, where neurons have more to do.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What could mislead you here
# - **Balanced accuracy forgives false alarms.** A unit is silent at nearly every token; *a place* "detects" a Greece neuron with 0.94 (exercise below). Report precision beside it.
# - **Held out is not independent.** Held-out sentences begin like those that were looked at, and before its first difference a sentence's activations are *equal*.
# - **The vocabulary is ours.** A search can only find what the list of concepts can say. A low score means "not in these words", not "meaningless".
# - **A rule that predicts is not a cause.** It says when a feature fires, not what it does (see the answer key: ablation).

# %% [markdown] slideshow={"slide_type": "slide"}
# ### With a large model, if you have one
#
# Any OpenAI-compatible endpoint: Ollama or llama.cpp on your computer, or a hosted one (its key in the variable or Colab secret `MI_WORKSHOP_EXPLAINER_KEY`). It is asked for a sentence, then for levels on held-out
# sentences, and scored like the rule, beside the rule's score at the same tokens. Without one, a sentence says so and the search goes on.

# %% tags=["unstored"]
from mi_workshop.dictionary import endpoint

local = endpoint("http://127.0.0.1:11434/v1", "llama3.2")
print(interpret(model, sae, misled.shown, explainer=local))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Class activity: guess the concept
#
# An unknown unit, its strongest examples. Every table says what it is: pick concepts from the list and join them, or just write words (they are kept, not scored). Then **weak** activations are shown, and you may
# revise. Then the score, beside the rule of the search. Three rounds; they get harder. Alone: be two players, one who never revises.

# %% slideshow={"slide_type": "slide"}
from mi_workshop.teach.guess_the_concept import guess_the_concept

game = guess_the_concept(model, sae, players=("table 1", "table 2"))
game

# %% [markdown] tags=["instructor"]
# Ten minutes. Let the tables commit aloud before "Show weak activations": the change of mind is the lesson, and `game.score()` keeps the score of the first guess (`first`) beside the last. Another class, other units:
# `seed=1`. Every button is also a call: `game.guess("Texas or a city of it", "table 3")`, `game.next()`, `game.score()`.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn: part 3

# %% [markdown] tags=["exercise"]
# a rule that survives

# %%
rule = ...
# solution
rule = "the token at position 1"

# %%
check("a rule that survives", rule)

# %% [markdown] tags=["exercise"]
# a score that forgives

# %%
forgiven = ...
# solution
forgiven = "a place in Europe"

# %%
check("a score that forgives", forgiven)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - A dictionary is an *assumption*: that activations are sums of few directions. Its loss says how well the sum fits, not whether the directions mean anything.
# - "Interpretable" is a number here because the world lists its concepts. It means nothing without the same number for a rival: neurons, random directions, a dictionary that nobody trained.
# - What training buys shows in interventions and in the loss that is recovered.
# - The strongest examples flatter every feature. Sample the whole range, predict what was held out, and intervene.
#
# ## To discuss
#
# - A dictionary leaves part of the loss unexplained (the lecture: about 20 %). What could be in there, and how would you find out?
# - A large model explains the features of a smaller one, and another large model grades it. What can go wrong, and what would convince you?
# - Your table and the search disagree, and the search scores higher. Would you change your mind? What if its rule is *Iran or Ghana or Delaware*?
# - A feature that we have no word for: how would this notebook's answer key judge it?
#
# ## Where to read more
#
# - Bricken and others: [*Towards Monosemanticity*][mono], 2023
# - Gao and others: [*Scaling and Evaluating Sparse Autoencoders*][topk], 2024
# - Rajamanoharan and others: [*Jumping Ahead: JumpReLU Sparse Autoencoders*][jump], 2024
# - Bussmann and others: [*BatchTopK Sparse Autoencoders*][batchtopk], 2024
# - Bills and others: [*Language models can explain neurons in language models*][bills], 2023
# - Paulo and others: [*Automatically Interpreting Millions of Features in Large Language Models*][paulo], 2024
# - Heap and others: [*Sparse Autoencoders Can Interpret Randomly Initialized Transformers*][heap], 2025
# - [SAELens][saelens], the library for dictionaries of real models
#
# **Next:** [Families of features](05b_feature_families.ipynb)
#
# [mono]: https://transformer-circuits.pub/2023/monosemantic-features
# [topk]: https://arxiv.org/abs/2406.04093
# [jump]: https://arxiv.org/abs/2407.14435
# [batchtopk]: https://arxiv.org/abs/2412.06410
# [bills]: https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html
# [paulo]: https://arxiv.org/abs/2410.13928
# [heap]: https://arxiv.org/abs/2501.17727
# [saelens]: https://github.com/decoderesearch/SAELens
