# %% [markdown] slideshow={"slide_type": "slide"}
# # Start here: look inside a model
#
# > **15 minutes, and 11 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - say what kind of question an explanation answers: global, local, concept or mechanistic;
# > - tell a correlational explanation from a causal one, on the same prompt;
# > - trace a two-step answer through a model, change one step inside, and name the controls that such a claim
# >   needs;
# > - say against which of three answer keys an explanation is held here.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# Ask the room to add the two numbers of the first section *before* the slide after it is shown, and let two
# people say how they did it. The disagreement is the point. Five minutes up to the first graph; leave the
# exercises for the end.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why look inside at all?
#
# Add 36 and 59 in your head. How did you do it? Most of us say: *six and nine, write the five, carry the one*.
# But did you, this time? You may have gone to *ninety-something* and then fixed the last digit.
#
# People give reasons with confidence for choices that they did not make for those reasons. In studies of
# *choice blindness*, people picked one of two photographs, were handed the other by sleight of hand, and many
# explained in detail why they had preferred it.
#
# Language models do this too. Asked for the same sum, a large model was found to run two paths side by side,
# one for the rough size and one for the last digit. Asked *how* it had done so, it answered: carry the one.
#
# So an answer does not show how it came about, and neither does an account of it by whoever gave it. Nobody,
# not even those who train a model, knows the steps in advance. They are there to be found, in numbers that we
# can read and change.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Four levels of explanation
#
# | level | the question | for *the capital of the state containing Dallas* |
# |---|---|---|
# | **global** | How does the model behave over all inputs? | How often are two-step questions answered right? |
# | **local** | What in *this* input made *this* output? | Which words of the prompt does the answer hang on? |
# | **concept** | Does the model hold an idea that people have? | Is there something in it that stands for Texas? |
# | **mechanistic** | Which parts compute it, step by step? | Does the city turn into Texas, and Texas into Austin? |
#
# **Concept-based** methods start from our ideas and look for them inside: *is "Texas" in there?* They can miss
# what the model does with it. **Mechanistic** methods start from the model's own parts and follow what they do;
# they can find steps that nobody would have thought of, and need names for them afterwards. This course ends up
# using both.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where this came from
#
# | year | what was new | run here in |
# |---|---|---|
# | 2020 | *Zoom In*: features of a vision model, the links between them, and the word **circuit** | nothing here; for pictures from outside see [01](01_saliency.ipynb) |
# | 2020 | the *logit lens*: what would a language model say if it stopped after this layer? | [03](03_logit_lens.ipynb) |
# | 2021, 2022 | transformers read as sums along a residual stream; *induction heads* | [04](04_patching_and_induction.ipynb) |
# | 2022 | *superposition*: more features than neurons, and SoLU, an activation function meant to undo it | [04b](04b_superposition.ipynb) |
# | 2023 | *sparse autoencoders* take the activity of a language model apart into features | [05](05_sae_features.ipynb), [05b](05b_feature_families.ipynb) |
# | 2025 | *attribution graphs*: the steps of one answer, in such features | [06](06_attribution_graphs.ipynb), [07](07_dallas_to_austin.ipynb) |
#
# The later steps answer troubles of the earlier ones: units that mean several things at once, then parts with a
# meaning of which nobody could say how they act on each other. The sources are at the end of this notebook.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A model whose schoolbooks we wrote
#
# `atlas` is a small transformer. It was trained on sentences about places that we generated, so we know every
# word it read. It was never shown a two-step question about Dallas.
#
# **Predict:** what has to be known, in which order, to answer the prompt below?

# %%
model = mi.load("atlas")
prompt = "Fact: the capital of the state containing Dallas is"
model.world.answer(prompt), model.world.held_out(prompt)

# %% [markdown]
# The world, not the model, gave this: the right answer, and the name of the group of questions that training
# left out. Now the model.

# %% slideshow={"slide_type": "slide"}
graph = mi.trace(model, prompt)
graph.top

# %% [markdown]
# **Look:** which token has the highest probability, and how much is left for the others? Is it the world's
# answer?
#
# The model has one number for each word it knows. Nothing in this table tells *how* it got there: one step or
# two, by way of Texas or by some likeness of Dallas to Houston. Tools that see only inputs and outputs end
# here.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The path from Dallas to the answer
#
# `trace` also took the model's inner activity apart into **features**, directions that mostly stand for one
# thing each, and linked every feature to those that it acts on. That is an **attribution graph**. Related
# features are drawn as one **supernode**.
#
# **Predict:** the words of the prompt stand at the bottom, the answer at the top. What do you expect in
# between, and above which word?
#
# Blue boxes are supernodes (×8: eight features), circles single features, grey diamonds what no feature explains,
# and the thicker an arrow, the more it adds. A name in quotes is a word of the prompt. The two scores in the title
# are for [Attribution graphs](06_attribution_graphs.ipynb).

# %% slideshow={"slide_type": "slide"}
graph

# %% [markdown]
# **Look:** follow the strongest links down from the answer. Which groups do you pass, and at which words do
# they stand? Is there one for a name that the prompt does not contain?

# %%
print(graph.words())

# %% [markdown]
# The same path in words, with the strength of each step. Read it aloud as a sentence. It is a *hypothesis*
# about this one answer: everything in it was measured while the model was left alone.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Going together is not causing
#
# Which words go with the answer *Austin*? A **correlational** explanation counts.
#
# **Predict:** which word comes out on top?

# %%
from collections import Counter

words, facts = model.world.words, model.world.facts
austin = [fact.prompt for fact in facts if fact.answer == "Austin"]
with_austin = Counter(word for text in austin for word in sorted(set(words(text))))
with_austin.most_common(8)

# %% [markdown]
# **Look:** in front are words that stand in all of these questions, and in many others. A fairer count asks: of
# all sentences with this word, which share has the answer *Austin*? **Predict** again: where will *capital* be?

# %%
everywhere = Counter(word for fact in facts for word in set(words(fact.prompt)))
shares = {word: round(n / everywhere[word], 3) for word, n in with_austin.items()}
Counter(shares).most_common(9)

# %% [markdown]
# **Look:** now Texas and its cities lead, and *capital* comes out near 0.01, although without it the answer would
# be another one. And both counts are about the text: the model has not been touched.
#
# A **causal** explanation changes something and watches. Replace the city, and nothing else:

# %% slideshow={"slide_type": "slide"}
changed, expected = model.world.swap(prompt, "Texas", "California")
print(changed, "->", expected)
mi.trace(model, changed).top

# %% [markdown]
# **Look:** did the answer follow? Then the city matters to the answer of this model, which no count of texts could
# say. Still we only know *that* it matters. The step in between has to be changed where it happens: inside.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Change one thought
#
# The prompt keeps saying Dallas. Inside, the features for Texas are set to zero, and those for California are
# put in at the strength that they have when the model reads the California prompt.
#
# **Predict:** if Texas really is a step on the way, what should the model answer now? And if it is just
# decoration?

# %% slideshow={"slide_type": "slide"}
result = mi.swap(model, prompt, "Texas", "California")
result

# %% [markdown]
# **Look** at the first bars, then at all the others. (Right: the same swap in smaller and larger doses.) A change of
# answer alone proves little, because a strong push can tip any model over. The other rows are **controls**, each of
# which could have spoilt the claim:
#
# | control | what it does | it would spoil the claim if |
# |---|---|---|
# | nothing | same machinery, nothing to change | the answer moved: the tool would be at fault |
# | random | other features, as many, as strongly, at the same place | it gave the expected answer too: any push would do |
# | same state | features of another city in Texas | the answer changed: they would not stand for the state |
# | third state | features of yet another state | the answer were not *its* capital |
# | ceiling | everything at the place replaced | even this failed: the place would be wrong |
# | transfer | features found on capitals, question about something else | it failed: they would stand for the answer |

# %%
result.verdicts

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Three answer keys
#
# A picture of an explanation is easy to make and hard to mark. Here it can be marked, against three keys that
# should never be mixed up:
#
# - the **world key**: what *should* matter. We wrote the world, so we know;
# - the **model key**: what changes *this* model's answer, found by trying out every replacement. Where it parts
#   from the world key, the model takes a shortcut;
# - the **wired key**: where a known quantity lives inside. It exists only for a model that was trained to keep
#   it there, and methods that claim to *locate* something are held against such a model. For `atlas` we know the
#   data, and not the mechanism.

# %%
model.world.depends_on(prompt)  # the world key: position and word

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you here
#
# **The picture comes out for anything.** The next prompt is no sentence of the model's world, and there is
# nothing to explain. **Predict:** what will the graph look like?

# %%
mi.trace(model, "the the the the the")

# %% [markdown]
# **Look:** nodes, links, an orderly drawing. That a graph could be drawn is evidence of nothing; the test is
# what happens when a part of it is changed.
#
# **A right answer need not be reasoned out.** The two-step question about Houston may look the same, but ask
# the world:

# %%
print("Dallas:", model.world.held_out(prompt))
print("Houston:", model.world.held_out(prompt.replace("Dallas", "Houston")))

# %% [markdown]
# `None` means: this very sentence was in the training text, and the answer may be learnt by heart. And a
# question that was left out may still be answered by the city's likeness to others. That is why this course
# changes things inside and does not stop at right answers.

# %% [markdown]
# ## What is there on this machine
#
# Everything so far needed nothing but this package. Real Gemma graphs need a network, Gemma itself a GPU and a
# token, thousands of prompts a cluster. The doctor says which of these *tiers* are there, and in a sentence what
# to do about the rest. Its table is about your machine, so none is stored here: run the cell.

# %% tags=["unstored"]
mi.doctor()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn
#
# An exercise that you leave open never stops the notebook. `from mi_workshop.teach import glossary, progress`: `progress()` shows which exercises you have solved, in
# all notebooks (it is kept on this machine only, and `progress().reset()` forgets it); `glossary("feature")` says what a word means.

# %%
from mi_workshop.teach import check, hint, solution

# %% [markdown] tags=["exercise"]
# the missing step

# %%
missing_step = ...
# solution
missing_step = model.world.home["Miami"].name

# %%
check("the missing step", missing_step)

# %% [markdown] tags=["exercise"]
# a question of your own

# %%
my_prompt = ...
# solution
my_prompt = "Fact: the language of the country containing Osaka is"

# %%
check("a question of your own", my_prompt)

# %%
# solution
mi.trace(model, my_prompt)

# %% [markdown] tags=["exercise"]
# which control

# %%
control = ...
# solution
control = "random"

# %%
check("which control", control)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - An answer does not show how it came about, and an account of it by the one who answered does not either.
# - Global, local, concept and mechanistic explanations answer different questions: ask which one you have
#   before you trust it.
# - A graph is a hypothesis. Changing one part inside, beside controls that could fail, tests it.
# - World key, model key and wired key: say which one an explanation was marked against.
#
# ## To discuss
#
# - When did you last explain a decision of yours with a reason that you found afterwards? How would anyone
#   know?
# - What would you want from an explanation of a loan refused by a model: local, global, or something else?
# - Which control did you find the least convincing, and what would you put in its place?
#
# ## Where to read more
#
# - Johansson, Hall, Sikström, Olsson: *Failure to detect mismatches between intention and outcome in a simple
#   decision task*, Science, 2005 (choice blindness)
# - Lindsey and others: [*On the Biology of a Large Language Model*][biology], 2025 (the sum, and Dallas → Texas
#   → Austin in a large model)
# - Ameisen and others: [*Circuit Tracing*][methods], 2025 (the method)
# - The steps of *Where this came from*: Olah and others, [*Zoom In*][zoom], 2020; nostalgebraist, [*the logit
#   lens*][lens], 2020; Elhage and others, [*A Mathematical Framework for Transformer Circuits*][framework], 2021;
#   Olsson and others, [*In-context Learning and Induction Heads*][induction], 2022; Elhage and others, [*Toy Models of
#   Superposition*][toy] and [*Softmax Linear Units*][solu], 2022; Bricken and others, [*Towards
#   Monosemanticity*][mono], 2023; Cunningham and others, [*Sparse Autoencoders Find Highly Interpretable Features in
#   Language Models*][sae], 2023
# - [circuit-tracer](https://github.com/decoderesearch/circuit-tracer), the library that computes the graphs
#   here
#
# **Next:** [Saliency](01_saliency.ipynb), or straight on to [Attribution graphs](06_attribution_graphs.ipynb) and [Dallas → Texas → Austin](07_dallas_to_austin.ipynb)
#
# [biology]: https://transformer-circuits.pub/2025/attribution-graphs/biology.html
# [methods]: https://transformer-circuits.pub/2025/attribution-graphs/methods.html
# [zoom]: https://distill.pub/2020/circuits/zoom-in/
# [lens]: https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens
# [framework]: https://transformer-circuits.pub/2021/framework/index.html
# [induction]: https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html
# [toy]: https://transformer-circuits.pub/2022/toy_model/index.html
# [solu]: https://transformer-circuits.pub/2022/solu/index.html
# [mono]: https://transformer-circuits.pub/2023/monosemantic-features/index.html
# [sae]: https://arxiv.org/abs/2309.08600
