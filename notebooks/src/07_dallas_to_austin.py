# %% [markdown] slideshow={"slide_type": "slide"}
# # Dallas → Texas → Austin
#
# > **35 minutes, and 20 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - read an attribution graph: nodes, links, error nodes, and the two scores that say how much of the model it
# >   covers;
# > - group nodes into supernodes by hand, and compare your grouping with one that was computed;
# > - swap one state for another inside the model, in three forms, and say what each form can show;
# > - say for every control what it rules out;
# > - put the published experiment on Gemma beside your own, and say what cannot be compared.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# The live part of the talk is from *The graph* to *The controls*: ten to twelve minutes. Let the room predict
# before each figure. If time is short leave out grouping by hand and the dose. Somebody will ask about Gemma:
# the table of *The same experiment on Gemma* is the answer, and runs offline.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The question
#
# To finish the prompt below, one has to know which state Dallas is in, and which city is that state's capital.
# The state is not named. A model could
#
# 1. take the two steps, Dallas → Texas → Austin, or
# 2. go from Dallas to Austin in one, because it has read the two together, or
# 3. answer as it would for a city that resembles Dallas.
#
# **Predict:** which of these do you expect of a small transformer? What would each look like inside?

# %%
model = mi.load("atlas")
prompt = "Fact: the capital of the state containing Dallas is"
print(model.world.answer(prompt), "|", model.world.held_out(prompt))

# %% [markdown]
# What stands after the bar names the group of questions that were kept out of training. No two-step question about Dallas
# was ever read, so number 2 cannot be had by rote. Number 3 can.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The graph

# %% slideshow={"slide_type": "slide"}
graph = mi.trace(model, prompt)
graph

# %% [markdown]
# **Look:** tokens run across, layers up. At which tokens does anything happen above the lowest layer? Where
# does the strongest path into the answer come from, and what stands halfway?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Nodes
#
# There are four kinds of nodes. A **token** of the prompt and an **answer** are what one would expect. A
# **feature** is one direction of a layer's *transcoder*, which was trained to do that layer's work with few
# features at a time. What the transcoder does not get right at a token and layer is an **error node**: it acts
# on what follows, and nobody knows what it means.

# %%
graph.nodes.feature_type.value_counts()

# %% [markdown]
# (In Neuronpedia's file format tokens are *embedding*, answers *logit*, and every feature is called *cross layer transcoder*; those of Atlas are
# per layer.)

# %%
features = graph.nodes[graph.nodes.feature_type == "cross layer transcoder"]
features.sort_values("influence")[["node_id", "activation", "influence", "label"]].head(8)

# %% [markdown]
# **Look:** a node's id reads *layer, feature, position*. `influence` counts up from the most important node, so
# small is strong. The labels were computed: what makes the feature fire over the whole training text, and which
# answers it raises. Nobody typed them in.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Links
#
# A link's weight is the direct effect of one node on another in this run, with the attention patterns held as
# they are.
#
# **Predict:** is there a link from the token *Dallas* straight to the answer?

# %%
answer = graph.nodes.node_id[graph.nodes.token_prob.idxmax()]
into = graph.links[graph.links.target == answer]
into.sort_values("weight", key=abs, ascending=False).head(8)

# %%
into[into.source.str.startswith("E_")].sort_values("weight", key=abs, ascending=False).head(2)

# %% [markdown]
# **Look:** tokens are sources whose name begins with `E_` (token number, then position). There is a link straight from *Dallas*: a hundred times
# weaker than that of the Texas feature, and negative. Which layer and position do the strongest sources have? A negative weight speaks *against* the
# answer. Take one source and look its own sources up the same way: you are walking down the graph.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How much of the model is in the picture?
#
# Two scores say how much weight the errors have. **Replacement**: what share of the influence on the answer
# goes all the way back to tokens through features, and not through errors. **Completeness**: what share of the
# input of nodes, weighted by their influence, comes from features and tokens rather than errors.
#
# **Predict:** what happens to both when only the strongest nodes are kept?

# %%
print("whole: ", graph.scores)
print("pruned:", graph.prune(node_threshold=0.8, edge_threshold=0.98).scores)
print("sparse:", graph.prune(node_threshold=0.4, edge_threshold=0.9).scores)

# %% [markdown]
# **Look:** do they fall or rise? A score is computed over what is left in the graph. Pruning throws out weak nodes,
# error nodes among them, so a sparse graph can score better than the whole one: what it does not show, it does
# not count. Whoever shows a small, legible graph owes these two numbers *and* how much was hidden.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Supernodes
#
# Several features can stand for nearly the same thing. Together they are a **supernode**. First by hand: take
# the strongest features at the city.
#
# **Predict:** the graph has a path by way of Texas. Will the strongest features at *Dallas* all stand for
# Texas?

# %%
city = graph.tokens.index("Dallas")
at_city = features[features.ctx_idx == city].sort_values("influence").head(6)
at_city[["node_id", "activation", "influence", "label"]]

# %%
mine = at_city.node_id.tolist()
graph.group("by hand", mine)

# %% [markdown]
# **Look:** what goes into your group, what comes out of it, and did the path to the answer keep its strength?
#
# Now the suggested groups. A feature *may stand* for a state if at least 30 % of its activation falls on it in two-step questions, for
# at least two attributes; the swap below uses all of these. It is *labelled* with its states (it may have several), and drawn as a supernode, only
# if at least half of its activation over the whole text falls on them, too.

# %% slideshow={"slide_type": "slide"}
suggested = graph.supernodes.get("Texas @Dallas", [])
print("both:", sorted(set(mine) & set(suggested)))
print("only by hand:", sorted(set(mine) - set(suggested)))
print("only suggested:", sorted(set(suggested) - set(mine)))

# %% [markdown]
# **Look:** what are the labels of those that only you took? Three of them may stand for Texas, and the swap will use them: two are too often active
# elsewhere to be labelled with it, and one shares its label with New Zealand, which makes it a supernode of its own. The other two may not.
# Where would you draw the line? Strong is not the same as *about the state*. And *Texas* is a supernode of a single feature here; *capital* is the
# better example of a group:

# %%
graph.supernodes["'capital' @capital"]

# %% [markdown]
# The rule of the suggested groups was fixed on other prompts, before this one was looked at. With these groups, the circuit in words:

# %%
print(graph.words())

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Ablate: take Texas away
#
# The graph was drawn while the model was left alone. The first test of a path is to cut it: set the Texas
# features at the city to zero and let everything after them be computed again.
#
# **Predict:** what will the model say when nothing takes the place of Texas? And if other features of the same layer, in the same
# number, are changed at the same token by as much?

# %% slideshow={"slide_type": "slide"}
mi.ablate(model, prompt, suggested)

# %% [markdown]
# **Look** at the right-hand picture: the line must stand apart from the bars, or the same harm would come from
# harming anything. Cutting can show that these features are *needed*. It cannot show that they *mean* Texas: for
# that, something else has to take their place.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The swap, in three forms
#
# The graph says that Texas is a step on the way. If so, exchanging it for another state should exchange the
# answer, with the prompt left as it is. The old state's features are set to zero; the new state's get the value
# that they have in its own prompt.
#
# - `city`: at the city's token only. Nothing is touched where the answer is said. The strictest form.
# - `state`: features of the state at any token.
# - `all`: also the features that *say the answer*. That copies part of the answer in, and so shows least.
#
# **Predict:** which form flips the answer most surely? Which would convince you most?

# %% slideshow={"slide_type": "slide"}
for form in ("city", "state", "all"):
    swapped = mi.swap(model, prompt, "Texas", "California", at=form)
    print(form, "| expected:", swapped.expected, "| now:", swapped.after[0])

# %% [markdown]
# **Look:** which forms reach the expected answer, and how sure is the model then? `state` and `all` agree to the last digit: Atlas has no
# features that say *Austin* or *Sacramento*, so there is nothing to copy here. It has some that say *Oregon* and *Virginia*:

# %%
salem = "Fact: the state containing Salem is"
for form in ("city", "state", "all"):
    swapped = mi.swap(model, salem, "Oregon", "Virginia", at=form)
    print(form, "| expected:", swapped.expected, "| now:", swapped.after[0])

# %% [markdown]
# **Look:** only the form that copies reaches the expected answer. If a weak form works and the strict one does not, the step has been
# *copied around*, not *found*.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The controls
#
# A changed answer may come from the push and not from what was pushed. Each control is the same operation with
# one thing different. **Predict** for each of them what a false claim would look like.

# %% slideshow={"slide_type": "slide"}
result = mi.swap(model, prompt, "Texas", "California", at="city")
result

# %%
result.edited

# %% [markdown]
# One Texas supernode, seven features changed: read which. **Look** at the rows of the controls one after the other.

# %%
result.controls["nothing"]

# %% [markdown]
# The prompt through the same machinery, with nothing to change. Anything but a tiny number would mean that the
# *tool* moves the answer.

# %%
result.controls["random"]

# %% [markdown]
# Random sets of features that have nothing to do with the state, the same in number, layer, position and size
# of push. Two rates, two questions. `flip_rate`: how often does a push of this size, here, break the answer at
# all? If often, the place is sensitive, and a *changed* answer proves little. `expected_rate`: how often does it
# give the *expected* one? Only that would make the swap worthless. This is the control that most published
# demonstrations leave out.

# %%
result.controls["same_state"], result.controls["third_state"]

# %% [markdown]
# Values from another city of Texas must *leave* the answer; values from a third state must give *that* state's
# capital. The first rules out that a foreign value as such breaks something, the second that California is a
# special case.

# %%
result.controls["ceiling"], result.controls["transfer"]

# %% [markdown]
# `ceiling`, in the figure *whole residual*, exchanges everything at that place: roughly what can be had there. It is no strict limit: here the
# swap even passes it. Transfer asks about
# another attribute with features found on capitals: if it fails, they stood for a *capital* and not for a
# *state*.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The dose
#
# **Predict:** as the swap is turned up (0 = nothing, 1 = the swap), does the answer slide or jump?

# %%
import pandas as pd

pd.DataFrame(result.dose)

# %% [markdown]
# **Look:** where is the natural strength on this scale? An effect that only appears at many times that strength
# is an effect on a model that no prompt would produce.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is it only states?
#
# The same question about a country has the same form, but other features.

# %%
abroad = "Fact: the capital of the country containing Lyon is"
mi.swap(model, abroad, "France", "Egypt")

# %% [markdown]
# **Look:** compare the rows with those for Texas. One pair of places is an anecdote. The model card has the
# rates over all pairs, with each control's own.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you
#
# **A finding that was built in.** In `atlas` the first two layers see only their own token, and a name's own vector
# is kept too short for later layers to read, so that what a city means has to be written there. That the state
# arises at the city is *imposed*, not found. `atlas-global` was trained as models usually are, with neither.
# **Predict:** where will features of Texas be?

# %%
open_model = mi.load("atlas-global")
mi.trace(open_model, prompt)

# %%
mi.swap(open_model, prompt, "Texas", "California", at="city")

# %% [markdown]
# **Look:** does the strict form still work? What it does in `atlas` is a fact about a model that we built so.
#
# Where is the state in that model, if not in these features? Patch the *whole* residual stream after one layer from
# another state's question, at the city or at the last token, and count the answers that follow:

# %%
from mi_workshop.counterfactual import sweep

states = [place for place in model.world.places.values() if place.kind == "state"]
asked = [model.world.two_hop(place.cities[0]).prompt for place in states]
found = sweep(open_model, asked, asked[7:] + asked[:7], positions=["{city}", "last"], metric="says_donor")
pd.DataFrame(found.mean[:, :, 0], columns=found.positions).rename_axis("after layer").round(2)

# %% [markdown]
# **Look:** up to which layer does the city's token carry it, and from which on the last one? Features are one way
# of looking; a model can carry something where they do not look, in its embedding for instance, which no
# transcoder replaces.
#
# **Errors.** Error nodes take part in the answer, and the swap leaves them as they were for Dallas. They can
# hold it back, and they can hide a path. How much do they send into this graph?

# %%
errors = graph.nodes.node_id[graph.nodes.feature_type == "mlp reconstruction error"]
from_errors = graph.links.source.isin(errors)
graph.links.weight.abs().groupby(from_errors).sum()

# %% [markdown]
# **Frozen attention.** The graph takes the attention patterns as given: it says what was moved, not why the
# model looked there. A step that consists in *looking elsewhere* does not show in it.
#
# **The form that copies.** `all` brings the features along that say the new answer. Its success is compatible
# with a model that has no step in between.
#
# **Likeness.** That Dallas was left out of the two-step questions does not prove two steps. A model that merely
# treats Dallas like Houston, whose questions it has read, gives the same answer. Ask the world about the two:

# %%
for place in ("Dallas", "Houston"):
    print(place, model.world.held_out(f"Fact: the capital of the state containing {place} is"))

# %% [markdown]
# (None: it was read in training.) What the swap adds is that something at the city stands for the *state*, over several attributes and with
# controls. It does not show that this is the only way in which the model answers.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same experiment on Gemma
#
# circuit-tracer's tutorial does it on Gemma-2-2B: supernodes chosen by people, each feature set to **minus twice** its own
# activation, and for a swap the other place's features to twice theirs. It prints what comes out and runs no control. Here are
# its numbers, and the same on Atlas, with Atlas's own supernodes and a hundred random changes of equal size beside each row.
#
# **Predict:** *capital* × -2 takes away what is asked for, and leaves Texas. What will the two models say? And with *state* × -2?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.teach.dallas_to_austin import published_beside

published_beside(model)

# %% [markdown]
# Changing the strength of features while a model runs, as each of these rows does, is called **steering**.
#
# **Look:** row by row, is it the same story? A model of a million parameters and one of two billion answer alike when the same
# step is taken away. The last column is what the published table lacks: how often a random change costs as much of the answer (.01 is
# the least that a hundred can show). A small number is not a large effect: *state* × -2 costs Atlas three points of a hundred; few random changes
# cost that much, that is all. One row of the table failed, and it was published too: British Columbia. Atlas has no
# territories, and its features do not group into *say a capital*: rows that cannot be asked stay empty.
#
# What is **not** comparable: the doses are multiples of each model's own activations, the supernodes were chosen in different
# ways, and the published graph is for *The capital*, the interventions for *the capital*.
#
# Now Gemma itself. With a network Neuronpedia runs it; without one the same call takes Texas out of Atlas. (Nothing is stored for
# the next three cells: run them.)

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
published = mi.hosted.graph("gemma-2-2b", "gemma-fact-dallas-austin", otherwise=graph)
texas = next(ids for label, ids in published.supernodes.items() if "Texas" in label)
published.ablate(texas)

# %% [markdown]
# **Look:** does Austin fall, and by more than with random features of the same tokens? Three random sets are few: each is a request.
# Now the dose of the table, minus twice its own activation, in the view:

# %% tags=["unstored"]
view = published.show()
view.interventions = [{"nodes": texas, "label": "Texas", "kind": "scale", "factor": -2.0, "to": ""}]
view.answers["error"] or view.answers["after"][:3]

# %% [markdown]
# With a GPU and a token the whole published table is run again here, with every control; otherwise Atlas goes on.

# %% tags=["unstored"]
gemma = mi.load("gemma-2-2b", otherwise="atlas")
published_beside(model, gemma, n_random=20)

# %% [markdown]
# | step of this notebook | on Atlas | on Gemma |
# |---|---|---|
# | right answer on questions never read | known | unknown: nobody knows what it read |
# | supernodes | a rule, fixed on other prompts | people, who saw the graph |
# | swap, beside random, same place, third place | all | random and third place: yes; same place: if you find the features |
# | transfer to other attributes | expected answers are known | only what you know yourself |
# | what the graph leaves to errors | little: the scores above | 30 % of the whole published graph, 70 % of the 22 features that people picked |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %%
from mi_workshop.teach import check, hint, solution

# %% [markdown] tags=["exercise"]
# another state

# %%
new_state = ...
# solution
new_state = model.world.home["Denver"].name
mi.swap(model, prompt, "Texas", new_state)

# %%
check("another state", new_state)

# %% [markdown] tags=["exercise"]
# move the state, not the answer

# %%
abbreviation = "Fact: the abbreviation of the state containing Dallas is"
prediction = ...
# solution
prediction = model.world.swap(abbreviation, "Texas", "California")[1]
mi.swap(model, abbreviation, "Texas", "California")

# %%
check("move the state, not the answer", prediction)

# %% [markdown] tags=["exercise"]
# the form that copies

# %%
form = ...
# solution
form = "all"

# %%
check("the form that copies", form)

# %% [markdown] tags=["exercise"]
# where nothing imposes it

# %%
word = ...
# solution
groups = mi.trace(open_model, prompt).supernodes
texas = {label: len(ids) for label, ids in groups.items() if "Texas" in label}
word = max(texas, key=texas.get).split(" @")[1]

# %%
check("where nothing imposes it", word)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - Nodes are tokens, features, errors and answers; a link is a direct effect with attention held fixed.
# - A legible graph leaves much out: give replacement and completeness with it.
# - A supernode is a claim about meaning. Say by which rule its members were chosen, and on which prompts.
# - A swap is evidence only beside the controls that could have spoilt it.
# - What the architecture imposes is not a finding.
#
# ## To discuss
#
# - Which control could a determined friend of the claim still explain away? Which one would you add?
# - Suppose that `city` failed and `all` worked. What would you write in the abstract?
# - The published graph of a large model has no answer key. Which of the steps of this notebook can still be
#   taken there?
#
# ## Where to read more
#
# - Lindsey and others: [*On the Biology of a Large Language Model*][biology], 2025: Dallas, Texas and Austin in
#   a large model
# - Ameisen and others: [*Circuit Tracing*][methods], 2025: how such graphs are computed, and what the two
#   scores mean
# - Dunefsky, Chlenski, Nanda: [*Transcoders Find Interpretable LLM Feature Circuits*][transcoders], 2024
#
# **Next:** [Activation cubes](08_activation_cubes.ipynb)
#
# [biology]: https://transformer-circuits.pub/2025/attribution-graphs/biology.html
# [methods]: https://transformer-circuits.pub/2025/attribution-graphs/methods.html
# [transcoders]: https://arxiv.org/abs/2406.11944
