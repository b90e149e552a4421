# %% [markdown] slideshow={"slide_type": "slide"}
# # Activation cubes: log it, see it, share it, and do not trust it
#
# > **40 minutes, and 21 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - read any number inside any PyTorch model with a hook of your own, and say what a library does better;
# > - capture a labelled cube of prompts × layers × tokens, look at it from five sides and hand it to a neighbour;
# > - subtract one prompt from another, and know what the norm of a difference is not;
# > - show with an ablation that a large cell may do nothing, and a small one everything;
# > - run the same capture over thousands of prompts, stop it, and go on.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# After [patching](04_patching_and_induction.ipynb). If time is short: the hook by hand, one heat map, "What a large cell does not prove".
# %% [markdown] slideshow={"slide_type": "slide"}
# ## Log it: a hook by hand
#
# A model computes millions of numbers for one sentence and throws all of them away but the last few. PyTorch lets us look at them as they go by: a **forward hook** is a
# function of ours that is called whenever a module has put something out. Here one for the [residual stream](00_start_here.ipynb) after each of the four layers of `atlas`, keeping the
# *norm*, the length of the vector, at every token.

# %% slideshow={"slide_type": "slide"}
model = mi.load("atlas")
prompt = "Fact: the capital of the state containing Dallas is"
kept, blocks = {}, model.replacement.blocks
for i in range(4):
    point = blocks[i].hook_resid_post  # the stream after layer i
    point.register_forward_hook(lambda module, inputs, x, i=i: kept.update({i: x[0].norm(dim=-1)}))
model.logits(model.tokens(prompt))
{layer: [round(n, 1) for n in norms.tolist()] for layer, norms in kept.items()}

# %% [markdown]
# Seven lines, and it works. Now ask another question, as one does.
#
# **Predict:** what will `kept` hold after the next cell? And how long is each list?

# %%
model.logits(model.tokens("Fact: the capital of Alabama is"))
[len(norms) for norms in kept.values()]

# %% [markdown]
# The hooks are **still there**: they go on writing, over what we had, until the model is thrown away. What else do our seven lines not say? Which token a number belongs to. Which model it was,
# with which weights. And had we kept `x` itself instead of its norm, a thousand prompts would have filled the memory. Away with them:

# %%
for i in range(4):
    blocks[i].hook_resid_post._forward_hooks.popitem()  # the one that came last

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Log it properly
#
# `mi.capture` hooks the modules that we name, computes the metrics as soon as a module has put something out, lets the rest go, and takes every hook off again, also after an error. The result
# is an **activation cube**: [xarray](https://docs.xarray.dev) underneath, every axis with its name, every token with its text.

# %% slideshow={"slide_type": "slide"}
sites = ["resid_post", "attn_out", "mlp_out"]
cube = mi.capture(model, prompt, sites, raw=["resid_post", "pattern"], features=5)
cube.data

# %% [markdown]
# Its attributes say where it comes from. With them you can capture it again in ten years, or notice that somebody else's cube is of another model.

# %%
{name: cube.provenance[name] for name in ("model", "weights", "dtype", "code", "prompts", "date")}

# %% [markdown]
# ### Other ways of looking in
#
# Hooks are one way among several. Each of these five can stand in `mi.capture(..., backend=...)`, and those that can read this model give the same numbers; what they cost and what they cannot see differs.
#
# **Predict:** which of them has to keep every tensor until the end?

# %%
ways = mi.cube.compare_backends(model, prompt)
ways

# %%
import textwrap

for name, row in ways.table.iterrows():
    seen = f"{row.sees} of {ways.modules} modules, {row.bytes / 1024:.0f} KB; misses" if row.sees else "cannot read it."
    print(textwrap.fill(f"{name}: {seen} {row.misses}", 90, subsequent_indent="    "))

# %% [markdown]
# **Look:** two of the five cannot read `atlas` at all. They can read others: a GPT-2 of transformers (here a tiny one that nobody trained), or a picture classifier that always runs
# the same modules. How many modules does each of them see?

# %%
import torch
from transformers import GPT2Config, GPT2LMHeadModel

tiny = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=9, n_embd=8, n_layer=3, n_head=2))
gpt2 = mi.cube.compare_backends(tiny, torch.tensor([[1, 2, 3]]), budget=0)

# %%
import numpy as np
import pandas as pd

black = np.zeros((64, 64, 3), "uint8")
cnn = mi.cube.compare_backends(mi.load("scenes-cnn"), black, "modules", budget=0)
pd.DataFrame({name: found.table.sees for name, found in {"atlas": ways, "tiny GPT-2": gpt2, "scenes-cnn": cnn}.items()})

# %% [markdown] slideshow={"slide_type": "slide"}
# ## See it
#
# One prompt: layers upwards, tokens across, the norm of the residual stream as shade. **Predict:** which token will have the largest norm?

# %% slideshow={"slide_type": "slide"}
cube.heat("norm", "resid_post")

# %% [markdown]
# **Look:** the first token, `<bos>`, is far larger than everything else, and punctuation and little words come next. (Large is the dark end of the scale.) In large models the first token is, too (Sun and others, below). Keep the question: is that where the answer is made?
#
# The same numbers, as one line per token through the layers:

# %%
cube.traces("norm", "resid_post")

# %% [markdown]
# A slider through the layers, with the features that are strongest at each token. Move it to layer 1 and read what is at *Dallas*.

# %%
cube.scrub()

# %% [markdown] slideshow={"slide_type": "slide"}
# All of it at once: planes are layers, marks are the strongest features of each token, lines between planes are where attention carries something from one token to another. Turn it with the mouse.

# %% slideshow={"slide_type": "slide"}
cube.stack()

# %% [markdown]
# **Look:** a beautiful picture, and it has persuaded many. What does it *prove*? So far: that some numbers are larger than others.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What a large cell does not prove
#
# A cell that matters should be missed when it is gone. So we take each cell out, one after the other, and see how much of the answer's probability goes with it. (Click a cell in the heat map above: it is this experiment, with its controls.)
#
# **Predict:** the rank correlation between *large* and *missed*. Near 1? Near 0?

# %% slideshow={"slide_type": "slide"}
matters = cube.matters("norm", "resid_post")
matters

# %% [markdown]
# **Look:** no better than chance (`p` says so: with the tokens shuffled it is mostly as far off). But the norm grows with depth, so compare within a layer: in layer 0 *Dallas* and *capital* are the
# largest, and they matter; in layer 2 `<bos>` and *of* are, and they do not, while *Dallas* is the smallest, and nearly everything hangs on it. Ranked within each layer, hardly any correlation is left (below).
# Crosses are left out of the count: the last token, where the answer is read off, and cells of the last layer that nothing reads any more.

# %%
print(matters)
matters.table.head(6)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Compare two prompts
#
# A better question than *where is it large?* is *where does it change, when the question changes?* Cubes of the same model can be subtracted.

# %% slideshow={"slide_type": "slide"}
other = mi.capture(model, prompt.replace("Dallas", "Oakland"), sites, raw=["resid_post", "pattern"], features=5)
difference = cube - other
difference.heat("norm", "resid_post")

# %% [markdown]
# Nothing anywhere but at the city, from layer 0 on, and at the last token, from layer 2 on. But beware: this is the *difference of norms*. Two vectors of the same length may point in opposite directions.
# What we mean is the *norm of the difference*, and for that we need the vectors themselves, which is what `raw` kept.

# %%
difference.measured("norm").heat("norm", "resid_post")

# %% [markdown]
# **Look:** at the city in layer 3 the lengths hardly differ, and the vectors are as far apart as ever. And does *that* cell matter? Patch it and see: `sweep(model, prompt, other)` of [notebook 04](04_patching_and_induction.ipynb) says
# no. By then everything has been read from it. Different is not used, either.
#
# Prompts that do not fit, or cubes of different models, are refused, with the reason:

# %%
try:
    cube - mi.capture(mi.load("atlas-twin"), prompt, sites, raw=["resid_post", "pattern"])
except mi.cube.CubeError as error:
    print(error)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Share it
#
# A cube is written as [Zarr](https://zarr.dev), which any language can read: numbers, names and plain text, nothing that could run when it is opened. As one file it goes to your neighbour by mail.

# %% slideshow={"slide_type": "slide"}
cube.write("my_cube.zarr.zip")
theirs = mi.Cube.read("my_cube.zarr.zip", model=model)
theirs - cube

# %% [markdown]
# Nothing was read before it was needed, and the difference is zero to the last digit. With `model=` the weights are compared with the hash in the file, and views can run experiments again.
#
# For one prompt there is also the *ActivityCube* JSON of [modelrecon's tracer](https://github.com/modelrecon/mr-recon-tracer), in which *energy* is the norm. We read theirs and write ours; here every module of `atlas`:

# %%
mi.capture(model, prompt, "modules").write("my_cube.json")
mi.Cube.read("my_cube.json")

# %% [markdown]
# One of its entries, as it stands in the file, each field cut short:

# %%
import json

with open("my_cube.json") as file:
    entry = json.load(file)["layers"][3]
{field: str(value)[:90] for field, value in entry.items()}

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A corpus as one cube
#
# What is usual? One prompt cannot tell. `mi.fleet` runs the same call over as many as you like, on the cores of this machine or on a cluster (one argument: its address), and
# writes results as they come. Here inside this notebook (`workers=0`), over every two-hop question of the world.

# %% slideshow={"slide_type": "slide"}
questions = [s.prompt for s in model.world.facts if s.kind == "two_hop"][:1500]
corpus = mi.fleet.capture(model, questions, "my_corpus", ["resid_post", "attn_out"], workers=0)
corpus

# %% [markdown]
# Run that cell again: what is done is not done twice, not even after a crash. `corpus` is lazy; numbers come from the disk when a question needs them.

# %%
corpus.statistics("norm", "resid_post", by="token").loc[3].nlargest(6, "mean").round(1)

# %% [markdown] slideshow={"slide_type": "slide"}
# So `<bos>` is large in every prompt: a fact about the model, none about Dallas. A histogram shows how norms are spread over the corpus, and marks those of our own prompt:

# %% slideshow={"slide_type": "slide"}
corpus.histogram("norm", "attn_out", prompt=questions.index(prompt))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What could mislead you here
#
# - **Size.** See above: in the residual stream of `atlas` the norm says nothing about the effect. Every published picture of "where the model is active" owes you the ablation beside it.
# - **The metric.** Mean and standard deviation over units depend on the coordinates; the residual stream has no preferred ones.
# - **Layers of different size.** The norm grows with depth in most models; a colour scale over all layers shows depth, whatever else there is.
# - **The ablation.** Setting to zero puts the model where it never is. `matters` says which ablation it used; try `change=`.
# - **Padding.** Prompts of different lengths are run apart here and missing tokens are *missing*. Tools that pad count the padding.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# where they part

# %%
from mi_workshop.teach import check, hint, solution

parted = (difference, ...)
# solution
parted = (difference, 2)
difference.measured("norm").select(token="last", site="resid_post")["norm"].values.round(2)

# %%
check("where they part", parted)

# %% [markdown] tags=["exercise"]
# a metric of your own

# %%
top_share = ...
# solution
top_share = lambda x: x.square().amax(-1) / x.square().sum(-1)
mi.capture(model, prompt, metrics={"top_share": top_share}).heat()

# %%
check("a metric of your own", top_share)

# %% [markdown] tags=["exercise"]
# a better lamp

# %%
lamp = ("resid_post", ...)
# solution
lamp = ("attn_out", "norm")
mi.capture(model, prompt, *lamp).matters()

# %%
check("a better lamp", lamp)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - A hook reads anything; taking it off, naming what it read and letting go of the rest is the work.
# - An activation cube is a labelled array with its provenance. Write numbers and text, never objects.
# - Large, different and used are three things. Only an intervention with its controls speaks of the third.
# - Capture computes metrics as the data flow, so the corpus may be large and the memory small.
#
# ## To discuss
#
# - A monitoring product flags prompts whose "activation energy" is unusual. What would you want to see before you believe it?
# - Which of the numbers in a cube would still mean something for another model? For the same model, fine-tuned?
# - You find in a stranger's cube that two weights hashes differ. What may you still compare?
#
# ## Where to read more
#
# - [xarray](https://docs.xarray.dev), [Zarr](https://zarr.dev), [Dask](https://docs.dask.org), the libraries underneath
# - Sun and others: [*Massive Activations in Large Language Models*](https://arxiv.org/abs/2402.17762), 2024: why the first token is larger than everything in large models
# - `docs/cluster.md` in the repository: the same on a cluster, and what a million prompts would cost
#
# **Next:** [Counterfactuals](09_counterfactuals.ipynb)
