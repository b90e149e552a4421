# %% [markdown] slideshow={"slide_type": "slide"}
# # The logit lens
#
# > **25 minutes, and 20 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - read off what a model would say if it stopped after any layer, with the logit lens and the tuned lens;
# > - follow a token's rank and probability through the layers;
# > - split the answer's logit over attention heads and MLPs;
# > - say why a lens can miss what is there, and show what does not matter.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# The talk is *What would it say here?*, *Where is Texas?*, the other model, and the two patches: twelve minutes. Let the room bet on
# where Texas appears before every figure; they will lose twice, in opposite directions, and that is the lesson. The tuned lens and the
# attribution stand by themselves if time is short.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What would it say if it stopped here?
#
# Every layer adds to a vector, the *residual stream*, and after the last layer a *normalisation* (every vector is brought to the same
# length) and a matrix, the *unembedding*, turn that vector into a score for each token. The **logit lens** applies this last step after *every* layer.
#
# **Predict:** the answer needs two steps, Dallas → Texas → Austin. At which token, and after which layer, will *Texas* appear? And
# *Austin*?

# %%
model = mi.load("atlas")
prompt = "Fact: the capital of the state containing Dallas is"

# %% slideshow={"slide_type": "slide"}
lens = mi.logit_lens(model, prompt)
lens

# %% [markdown]
# **Look** at a column from bottom to top: it is one token's way through the model. Where do the frames begin? Words of the
# question are settled early, the answer in the last step. In a live notebook, point at a cell to see what comes second.
# And Texas? It stands in no cell.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where is Texas?
#
# A cell shows the winner alone. Perhaps Texas comes a close second at *Dallas*. **Predict** its rank among the 916 tokens.

# %% slideshow={"slide_type": "slide"}
lens.trajectory(["Texas", "Austin", "is"], at="Dallas")

# %% [markdown]
# **Look:** how near to the top does Texas come, after which layer, and what happens to it later? What is said *at Dallas* is the next
# word, *is*. Now at the end of the question: **predict** which of the two rises first, Texas or Austin.

# %%
lens.trajectory(["Texas", "Austin"], at="is")

# %% [markdown]
# **Look:** the story of two steps would have Texas first and Austin after it. Is that what the curves show? A lens that
# disagrees with the story is a result. Do not tune it until it agrees.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One city is an anecdote
#
# The rank of the state or country, at the city, over all 75 capital questions about held-out cities. **Predict:** was Dallas
# typical?

# %%
from mi_workshop.teach.logit_lens import home_ranks

home_ranks(model)

# %% [markdown]
# **Look:** compare the median after layers 0 and 1 with the rank of Texas, and with chance, which is about 458. The lens is neither
# blind nor sharp here: it leans towards the right place, and rarely puts it first.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the final normalisation does
#
# It brings every vector to the same length before it is read. **Predict:** the embeddings of `atlas` are made very
# short. How sure will the lens be of what it reads there, with it and without? (Knowing nothing is ln 916 = 6.82 nats.)

# %%
bare = mi.logit_lens(model, prompt, norm=False)
_, cache = model.replacement.run_with_cache(model.tokens(prompt))
table = lens.entropy[["is"]].rename(columns={"is": "with norm"}).assign(without=bare.entropy["is"])
table["length"] = cache.accumulated_resid()[:, 0, -1].norm(dim=-1)  # of [layer, d_model]
table.round(2)

# %% [markdown]
# **Look:** the shortest vector is read as if it were as long as the longest. Without normalisation the lens admits that
# nothing is said yet. The tokens of the bottom row of the grid were an enlargement of almost nothing.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The tuned lens
#
# Early layers need not speak the language of the last one. The **tuned lens** learns, for each layer, one affine map into that
# language: trained here and now, on the text that the model was trained on, to come as close as it can to the model's own output (in KL divergence).
# The figure is about questions that training never saw.
#
# **Predict:** after which layers will it help?

# %% slideshow={"slide_type": "slide"}
tuned = mi.tuned_lens(model)
tuned

# %% [markdown]
# **Look:** the gap between the curves is what a change of language explains. What is left, no affine map has found: in
# `atlas` the first two layers see only their own token, so that at *is* there is nothing of Dallas to find.

# %% slideshow={"slide_type": "slide"}
tuned_view = mi.logit_lens(model, prompt, tuned=tuned)
tuned_view

# %% [markdown]
# **Look** at the last column: after which layer does Austin lead now? And at *Dallas*: the map was trained to tell what the model
# will *say*, and there it will say *is*. Is Texas easier to find than before?

# %%
import pandas as pd

pd.DataFrame({"plain": lens.rank("Texas")["Dallas"], "tuned": tuned_view.rank("Texas")["Dallas"]})

# %% [markdown]
# **Look:** nearer after layers 0 and 1, and still not first; at the end both are the same lens. A map of a vector that has seen nothing
# but *Dallas* can only guess what follows *Dallas* in the whole text. Where *Texas* follows it, you will see below.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Who wrote Austin?
#
# The residual stream is a sum, and so is each logit, once the scale of the last normalisation is held as it is: embedding, every attention head, every
# MLP, biases. This is **direct logit attribution**. **Predict:** is it a head or an MLP that writes Austin, and in which layer?

# %% slideshow={"slide_type": "slide"}
mi.direct_logit_attribution(model, prompt, "Austin")

# %% [markdown]
# **Look:** the bars add up to the logit exactly. But a logit alone means little: what raises every city alike changes no answer.
# Ask for a difference: why Austin, and not Sacramento?

# %%
mi.direct_logit_attribution(model, prompt, "Austin", versus="Sacramento")

# %% [markdown]
# **Look:** which components stay, and which lose their part? Those that stay tell Texas's capital from California's.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same lens on another model
#
# `atlas-global` read the same text, and its attention is free from the first layer on. One line changes. **Predict:** where will Texas be?

# %% slideshow={"slide_type": "slide"}
open_model = mi.load("atlas-global")
open_lens = mi.logit_lens(open_model, prompt)
open_lens

# %% [markdown]
# **Look** at *Dallas*: there it is, first, after layers 0 and 1, and then Austin at *is*. Is it so at other cities?

# %%
home_ranks(open_model)

# %% [markdown]
# This is the picture that a paper would print. Now let us test both pictures.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you
#
# **Not seen, and there.** In `atlas` the lens did not put Texas first at *Dallas*. Take the vector at that one token, after layer 1,
# from the same question about Oakland, which is in California (`patched??` shows the hook). **Predict** the answer.

# %%
from mi_workshop.teach.logit_lens import patched

oakland = prompt.replace("Dallas", "Oakland")
patched(model, prompt, oakland, layer=1, at="Dallas")

# %% [markdown]
# What decides the answer was there, all of it, although no cell of the lens says *Texas*. (Is it the state, or just which city it is? This
# patch cannot tell, it moves both. The swap in [Start here](00_start_here.ipynb) moved the state's features alone, and the answer followed.)
#
# **Seen, and not used.** In `atlas-global` the lens put Texas first at the same token after the same layer. **Predict** again.

# %%
patched(open_model, prompt, oakland, layer=1, at="Dallas")

# %% [markdown]
# The answer stays: after layer 1 nothing that stands at *Dallas* is used for it. What decides is at the last token already:

# %%
patched(open_model, prompt, oakland, layer=1, at="is")

# %% [markdown]
# It is so in every state's question, not in this one alone: the model's card counts them. Why then does the lens say Texas?
# It reads what *would be said next* at this token, and in the training text *Texas* does follow *Dallas*, in letters. The rank of *Texas* there:

# %%
mi.logit_lens(open_model, "Letter to Dallas").rank("Texas")["Dallas"]

# %% [markdown] slideshow={"slide_type": "slide"}
# **Another basis.** How far do the tuned lens's maps turn a layer's vectors? A cosine of 1 would mean that the layer
# already speaks the language of the last. **Predict** the order of the layers.

# %%
tuned.table.round(2)

# %% [markdown]
# The lower the layer, the more the plain lens reads foreign words as if they were its own. But a map that is *trained* may also find
# what the model itself never uses, or guess from how often a word occurs: a low KL does not show that the model takes this step.
#
# **Direct is not all.** The attribution at *is* gave almost nothing to MLP 0 and MLP 1. Yet the patch at *Dallas* replaced
# what these two had written there, and the short embedding under it, and it changed the answer: through later heads, which the
# attribution credits with it.
#
# **What is imposed.** That the state is at the city in `atlas`, and that nothing reaches *is* before layer 2, was built in. It
# serves here as a known answer that a lens can be held against; it is no finding about transformers.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %%
from mi_workshop.teach import check, hint, solution

# %% [markdown] tags=["exercise"]
# where Austin takes the lead

# %%
point = ...
# solution
point = mi.logit_lens(model, prompt, mid=True).rank("Austin")["is"].eq(1).idxmax()

# %%
check("where Austin takes the lead", point)

# %% [markdown] tags=["exercise"]
# what speaks against it

# %%
component = ...
# solution
difference = mi.direct_logit_attribution(model, prompt, "Austin", versus="Texas")
component = difference.table.set_index("component").value.idxmin()
difference

# %%
check("what speaks against it", component)

# %% [markdown] tags=["exercise"]
# a city that the lens can read

# %%
question = ...
# solution
asked = [s for s in model.world.facts if s.stratum == "city:validation"]
likeliest = [mi.logit_lens(model, s.prompt).top(1, s.slots["city"], 1)[0][0] for s in asked]
found = next(s for s, token in zip(asked, likeliest) if token == model.world.home[s.slots["city"]].name)
question, city = found.prompt, found.slots["city"]
mi.logit_lens(model, question)

# %%
check("a city that the lens can read", question)

# %% tags=["solution"]
donor = model.world.swap(question, model.world.home[city].name, "California")[0]
print(model.world.answer(question), "→", patched(model, question, donor, layer=1, at=city))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - The logit lens reads every layer with the model's last step; the tuned lens learns one affine map per layer first.
# - It shows what *would be said here*. What a token *holds* for others to use can lie in directions that it does not read.
# - Follow ranks over many prompts; a top token in one grid is an anecdote.
# - Attribution splits a logit exactly, but counts only what is written straight into it: ask for differences.
# - Seen is not used, and unseen is not absent. Only an intervention tells.
#
# ## To discuss
#
# - Which of the two models would have made the better figure in a paper, and which claim under it would have been false?
# - A tuned lens finds the answer three layers before the plain one. Did the model know it there?
# - For a large model nobody has the answer key. Which of the checks of this notebook are still possible?
#
# ## Where to read more
#
# - nostalgebraist: [*interpreting GPT: the logit lens*][lens], 2020
# - Belrose and others: [*Eliciting Latent Predictions from Transformers with the Tuned Lens*][tuned], 2023
# - Elhage and others: [*A Mathematical Framework for Transformer Circuits*][framework], 2021: the residual stream as a sum
#
# **Next:** [Patching and induction](04_patching_and_induction.ipynb)
#
# [lens]: https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens
# [tuned]: https://arxiv.org/abs/2303.08112
# [framework]: https://transformer-circuits.pub/2021/framework/index.html
