# %% [markdown] slideshow={"slide_type": "slide"}
# # Attribution graphs
#
# > **40 minutes, and 30 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - say how hidden activations become features, and features a graph;
# > - judge a feature by everything that fires it, not by its best examples;
# > - work in a graph: search, group, prune, and read off what is hidden;
# > - compare two graphs, and tell a surprising path from a misleading label;
# > - do the same on Gemma, hosted or on a GPU, and say what you can no longer know there.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# Sections 1 to 3 are the story of the talk: numbers, features, graph. Let the room work in the graph themselves
# for five minutes before you say anything about it: press *?* for the keys. The strange paths make the best discussion.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From hidden activations ...
#
# While a model reads, each token carries a vector of numbers from layer to layer. **Predict:** could you tell from these
# numbers what the model thinks of *Dallas*?

# %%
model = mi.load("atlas")
prompt = "Fact: the capital of the state containing Dallas is"
_, cache = model.replacement.run_with_cache(model.tokens(prompt))
cache["blocks.1.hook_resid_post"][0, 9, :24]  # [batch, position, d_model]: the first 24 of 128 numbers, at Dallas

# %% [markdown]
# **Look:** every number is in use, and none of them says anything by itself.
#
# ## ... to features
#
# A **transcoder** writes what an MLP does as a sum of few directions out of many. Each direction is a *feature*: its
# activation says how much of it is there. The same token again, in features:

# %% slideshow={"slide_type": "slide"}
graph = mi.trace(model, prompt)
features = graph.nodes[graph.nodes.feature_type == "cross layer transcoder"]
at_dallas = features[features.ctx_idx == graph.tokens.index("Dallas")].sort_values("influence")
at_dallas[["layer", "feature", "activation", "label"]].head(6)

# %% [markdown]
# **Look:** a handful of features is active instead of 128 numbers, and each has a label, which was computed from the text
# that the model was trained on. (`influence`, by which they are sorted, adds up from the strongest node: small is strong.) Is the label right? Take the strongest feature of Texas and look at what fires it.
#
# **Predict:** will everything that fires it be about Texas? Also what fires it weakly?

# %% slideshow={"slide_type": "slide"}
texas = at_dallas[at_dallas.label == "Texas"].iloc[0]
mi.feature(model, texas.layer, texas.feature)

# %% [markdown]
# **Look:** the page draws examples from the *whole* range of activation, not only the strongest. Where does the label stop
# holding? A list of top examples would have hidden that.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Features to a graph
#
# Freeze the attention patterns and the scale of each layer norm, and what one feature adds to another becomes one number: a
# *link*. All features, tokens, errors and answers with all links are the **attribution graph**.
#
# Work in it: click a node, drag, turn the wheel, type `/` to search, press `?` for the keys.
# **Find:** the features of Texas; what feeds them; what they feed.

# %% slideshow={"slide_type": "slide"}
view = graph.show()
view

# %% [markdown]
# In a live notebook you can **act**: choose the box *Texas*, then *Zero*, or swap it for another state. The new
# answers appear beside the old at once, and the controls after them. Python sees what you do, and can do it too:

# %%
view.selected = graph.supernodes["Texas @Dallas"]
view.interventions = [{"nodes": view.selected, "label": "Texas", "kind": "zero", "factor": 0.0, "to": ""}]
view.answers["after"][:3]

# %% [markdown]
# ## Nodes, supernodes, errors
#
# - **Features** are circles, **tokens** squares, **answers** stand on top.
# - **Error nodes** (diamonds) are what the transcoder left out at a token and layer. They act, and nobody can read them.
#   The model with transcoders in place of its MLPs, and these errors added back, is the **replacement model**.
# - **Supernodes** (boxes) are groups of features that somebody takes for one thing. They are part of the claim.
#
# **Predict:** of features, tokens, answers and errors, which are most?

# %%
graph.nodes.feature_type.value_counts()

# %% [markdown]
# (In Neuronpedia's file format tokens are *embedding*, answers *logit*, and every feature is called *cross layer transcoder*; those of Atlas are
# per layer.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How much can be left out?
#
# Nobody reads a graph of hundreds of nodes. Keep the features up to some influence, and count everything else as
# unexplained: how much of the way from the words to the answer is still there? Two scores say it. The **replacement score**: what share of
# the influence on the answer goes all the way back to tokens through features, and not through errors. The **completeness score**: what share
# of the input of nodes, weighted by their influence, comes from features and tokens rather than errors.
#
# **Predict:** what share do the ten strongest features carry?

# %%
import pandas as pd

ranked = features.sort_values("influence").node_id
kept = {n: graph.scores_of(ranked.head(n)) for n in (0, 5, 10, 20, 40, 80, len(ranked))}
pd.DataFrame(kept, index=["replacement", "completeness"]).T.rename_axis("features").round(2)

# %% [markdown]
# **Look:** where would you stop? Pruned graphs are often published with the scores of *what is left*, which leave out
# what was thrown away. In the same graph, `graph.prune()` says:

# %%
pruned = graph.prune()
scores = {"of what is left": pruned.scores, "hidden nodes count as errors": graph.scores_of(pruned.nodes.node_id)}
print(len(pruned.nodes), "of", len(graph.nodes), "nodes")
pd.DataFrame(scores, index=["replacement", "completeness"]).round(2)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two graphs beside each other
#
# Only the city differs. **Predict:** which features will both graphs have, and at which tokens?

# %% slideshow={"slide_type": "slide"}
oakland = mi.trace(model, prompt.replace("Dallas", "Oakland"))
compared = mi.compare(graph, oakland)
compared

# %%
ours = compared.table.dropna(subset="node_a").groupby("position").node_b.agg(["size", "count"])
ours.index = [graph.tokens[i] for i in ours.index]
ours.set_axis(["features of Dallas's graph", "of them in both"], axis=1)

# %% [markdown]
# **Look:** what one graph has alone stands at the city (14 of 29) or at the last word (15): the place, and what follows from it. What
# both have is the question, but even at the city 24 of 38 features are shared. That is a hypothesis about the parts of the circuit,
# for free. Notebook 07 tests it by swapping them.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is there a shared middle?
#
# Opposites in English, French and Spanish: in large models some features are active for the same concept whatever the
# language. Count features that two languages share at the word. The control is the same count for *different* words.
#
# **Predict:** in which layers, if any, do the two rows part?

# %%
from mi_workshop.teach.attribution_graphs import shared_features

shared_features(model)

# %% [markdown]
# **Look:** is there a gap, and is it large? A number that looks like sharing can be sharing between *any* two words of
# a language lesson. Say what the table shows, not what one hoped for.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Copying: what a graph does not show
#
# *Mr Potter thanked Mrs Watson. Mr Potter thanked Mrs ...* Somewhere the model looks back and copies the name.
#
# **Predict:** will the graph show how it knew where to look?

# %% slideshow={"slide_type": "slide"}
copying = mi.trace(model, "Mr Potter thanked Mrs Watson. Mr Potter thanked Mrs")
print(copying.top.head(2))
copying

# %% [markdown]
# **Look:** the strongest inputs come from the earlier name. *That* they were copied shows; *why the model looked there*
# does not: attention is frozen, so no link leads into a pattern. The blue boxes (*country*, *say New Jersey*) are labels that do not
# fit here: see *What could mislead you*. The features that copy are unlabelled. Sum up what each token sends into the answer:

# %%
into = copying.links[copying.links.target == copying.answers.node_id.iloc[0]]
at = into.source.map(copying.nodes.set_index("node_id").ctx_idx)
into.weight.groupby(at).sum().rename(dict(enumerate(copying.tokens))).nlargest(3).round(1)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A search for strange paths
#
# One prompt is an anecdote. Trace every eleventh held-out question and ask where its strongest chain begins.
#
# **Predict:** how often will it begin at the city?

# %% slideshow={"slide_type": "slide"}
asked = [s for s in model.world.facts if s.stratum == "city:validation"][::11]
graphs = [mi.trace(model, s.prompt) for s in asked]
rows = [
    (s.slots["city"], s.slots["attribute"], g.top.token[0] == s.answer, g.path()[0][0], g.path()[-1][1])
    for s, g in zip(asked, graphs)
]
pd.DataFrame(rows, columns=["city", "asked", "right", "begins at", "share of the answer's input"]).round(2)

# %% [markdown]
# **Look:** every question that begins elsewhere: what kind of answer does it ask for? A continent has few values, so the
# question alone goes far. *Right* and *by the path that I expected* are two things. But look at the share before you call a path strange.
# The chain runs over *labelled* groups only: at *Busan* the groups with a label are weak, and features without one, of which the city has many,
# cannot win, although the city as a whole feeds the answer more than *capital* does. Here is the first such graph:

# %% slideshow={"slide_type": "slide"}
strange = next(g for s, g in zip(asked, graphs) if s.slots["city"] not in g.words().split(" → ")[0])
strange

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you
#
# **Labels.** A label is a claim about the text that it was computed on. Trace a prompt in which no place occurs:

# %%
french = mi.trace(model, "Fait: le contraire de petit est")
places = [label for label in french.supernodes if label.split(" @")[0] in model.world.places]
print(french.top.token[0], "| features labelled with places:", places)

# %% [markdown]
# There are more concepts than features at a token, so some features serve two. "Look, it thinks of Iowa!" would be false.
#
# **Influence.** Influence sums the paths to the answer; it does not say that the answer *needs* the node. Set the ten
# strongest features to zero, and beside them change other features of the same layers, at the same positions, by as much. **Predict:** is
# there a difference? In a published graph of Gemma a different test gave none: keeping the 22 most influential features explained no more
# than keeping 22 random ones (.21 each).

# %%
mi.ablate(model, prompt, ranked.head(10).tolist())

# %% [markdown]
# **Look:** what comes instead is a full stop, and with great confidence: these ten are needed, and no other answer is at hand without them.
#
# **Errors and frozen attention.** Both carry part of the answer, and neither shows what it means. Compare how much each
# graph leaves to errors before you compare their paths:

# %%
{g.prompt: round(1 - g.scores.replacement, 3) for g in (graph, copying, french)}

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same on a large model
#
# Everything so far was Atlas: four layers, and a text that we know word by word. Now **Gemma-2-2B**: 26
# layers, and a text that nobody outside has seen. Its graph of our question has been published on
# [Neuronpedia](https://www.neuronpedia.org). The next cell fetches it and keeps it on this machine. Where there is no network,
# one sentence says so and the graph of Atlas stands in. (What the cells of this part show depends on what you have, so this copy
# stores nothing for them: run them.)
#
# **Predict:** what do you expect at *Dallas*? In which layers?

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
published = mi.hosted.graph("gemma-2-2b", "gemma-fact-dallas-austin", otherwise=graph)
published.show()

# %% [markdown]
# **Look:** are the steps the same? Click a feature: Neuronpedia knows texts that make it fire and what a language model wrote about
# them. The groups were made by people, who had seen the graph. One can also go from a meaning to features, by what was written about them;
# where there is no network one sentence says so.

# %% tags=["unstored"]
mi.hosted.search("gemma-2-2b", "Texas cities", otherwise=None)

# %% [markdown]
# In Atlas the same question needs no explanations: which features stand for Texas, by the training text?

# %%
model.features[model.features.places.map(lambda places: "Texas" in places)][["label", "density"]]

# %% [markdown]
# ## What differs
#
# **Predict:** which graph leaves more to errors? How far do twenty features go in each?

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
from mi_workshop.teach.attribution_graphs import beside

beside(atlas=graph, published=published)

# %% [markdown]
# | lesson | on Atlas | on Gemma |
# |---|---|---|
# | judge a feature by everything that fires it | the whole training text | the examples that somebody stored |
# | a label can be wrong | scored against the world | a guess, by a person or a model |
# | count what is left to errors | 6 to 12 % in the three above | 30 % of the whole published graph, 45 % when pruned: a path may run where nothing is drawn |
# | influence is not need: set it to zero, beside random changes | as many as there are, up to a hundred | the same with a GPU; three, hosted |
# | was it learned by rote? | we know what was held out | nobody can say |
#
# The second step, *is the path used?*, carries over unchanged:

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
texas = next(ids for label, ids in published.supernodes.items() if "Texas" in label)
published.ablate(texas)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your own prompts on Gemma
#
# With a network Neuronpedia traces up to 64 tokens for you, in about half a minute. The graph is public there.
#
# **Predict:** what will this graph share with the published one?

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
question = "Fact: The capital of the state containing Oakland is"
own = mi.hosted.generate("gemma-2-2b", question, otherwise=oakland)
mi.compare(published, own)

# %% [markdown]
# With a GPU and a Hugging Face token (on Colab: a T4, and the secret `HF_TOKEN`) Gemma itself runs here, and the same line that
# loaded Atlas loads it. It says beforehand what it downloads and how long that takes; without a GPU Atlas goes on.

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
gemma = mi.load("gemma-2-2b", otherwise="atlas")
traced = mi.trace(gemma, question.replace("The", "the"))
print(traced.describe())

# %% [markdown]
# From here every cell of this notebook can be run again on `gemma`: trace, prune, compare, ablate. What cannot be asked
# any more is *is it right?*

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %%
from mi_workshop.teach import check, hint, solution

# %% [markdown] tags=["exercise"]
# how many features

# %%
n = ...
# solution
n = next(n for n in range(len(ranked)) if graph.scores_of(ranked.head(n)).replacement >= 0.5)

# %%
check("how many features", n)

# %% [markdown] tags=["exercise"]
# an odd label

# %%
node_id = ...
# solution
node_id = french.supernodes[places[0]][0]
layer, index, position = map(int, node_id.split("_"))
mi.feature(model, layer, index)

# %%
check("an odd label", node_id)

# %% [markdown] tags=["exercise"]
# a strange path

# %%
strange_question = ...
# solution
strange_question = "Fact: the continent of the country containing Salta is"

# %%
check("a strange path", strange_question)

# %% [markdown] tags=["exercise"]
# a path, tested

# %%
tested = ...
# solution
city = own.nodes[(own.nodes.ctx_idx == len(own.tokens) - 2) & own.nodes.activation.notna()]
tested = own.ablate(city.sort_values("influence").node_id.head(5).tolist())
tested

# %%
check("a path, tested", tested)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - A transcoder turns an MLP's activations into features; with attention frozen, their effects on each other are a graph.
# - Judge a feature over the whole range of its activation, and its label on other text than the best examples.
# - Scores belong beside every graph, and what was left out counts.
# - Shared or strange paths need a control: other words, other prompts, random nodes.
#
# ## To discuss
#
# - Two graphs of one prompt, from two dictionaries, show different paths. What would you report?
# - A path begins at the question and not at the city, and the answer is right. Is the model guessing?
# - Which of these checks could be made on a graph that somebody else published?
#
# ## Where to read more
#
# - Ameisen and others: [*Circuit Tracing*][methods], 2025: how such graphs are computed, pruned and scored
# - Lindsey and others: [*On the Biology of a Large Language Model*][biology], 2025: opposites in three languages, and many more paths
# - Dunefsky, Chlenski, Nanda: [*Transcoders Find Interpretable LLM Feature Circuits*][transcoders], 2024
#
# **Next:** [Dallas → Texas → Austin](07_dallas_to_austin.ipynb)
#
# [biology]: https://transformer-circuits.pub/2025/attribution-graphs/biology.html
# [methods]: https://transformer-circuits.pub/2025/attribution-graphs/methods.html
# [transcoders]: https://arxiv.org/abs/2406.11944
