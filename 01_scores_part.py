# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scored against the key
#
# A map looks convincing or it does not. Is it *right*? For our models somebody knows. **World key**: what should matter, since we drew the pictures. **Model key**: what
# does matter *to this model*, found without any method of explanation: each part is replaced by every other one that the world would draw there, and we see
# how far the number moves.
#
# Here is a picture that `scenes-shortcut` gets right. **Predict:** which part moves its answer most?

# %%
from mi_workshop.saliency import answer_keys, attribute
from mi_workshop.worlds import Scenes

shortcut, honest = mi.load("scenes-shortcut"), mi.load("scenes-cnn")
pictures = [(s, s.label) for s in Scenes().sample(6, "validation", cue="label")]
answer_keys(shortcut, *pictures[2])

# %% [markdown]
# **Look:** the marker in the corner decides, and it should not matter at all. Right answers for the wrong reason: a **Clever Hans**. Where the two keys
# part, a *faithful* map (it agrees with the model key) cannot also be a *plausible* one (it agrees with the world key). Which of the two do you want?
#
# Two parts may matter only **together**. In this story the second sentence changes nothing: Sandra is where John is. **Predict:** what if *Sandra* becomes *John*?
# What if the second *bedroom* becomes *kitchen*? And both?

# %%
from mi_workshop.models.attention_rnn import train
from mi_workshop.worlds import Rooms

rooms = train(Rooms(), n=2000, progress=False)
story = "John went to the bedroom. Sandra moved to the bedroom. Where is John?"
answer_keys(rooms, story, "bedroom", pairs=9).pairs

# %% [markdown]
# **Look** for the pair *Sandra*, second *bedroom*. Each alone moves the answer little; together they move it by several times as much, for then John has moved on.
# Now a method that takes one word away at a time:

# %%
attribute(rooms, story, "bedroom", "occlusion")

# %% [markdown]
# **Look:** *Sandra* gets next to nothing. The method did nothing wrong: it asked one question at a time, and no single number for each word
# can say "these two, but only together".

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Without a key: put in, take out
#
# With a model that nobody has a key for, one can put the highest scores into an empty picture, or take them out of the whole one, and watch the answer
# (**insertion** and **deletion**). **Predict:** which method's curve will rise first?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.saliency.compare import compare_curves, compare_sanity, overview

compare_curves(shortcut, pictures[:3], ["gradient", "integrated_gradients", "grad_cam", "occlusion"])

# %% [markdown]
# **Look:** some curves climb *above 1*: half of a picture convinces the model more than the whole one. Half-covered pictures are like none that it was
# trained on; the curve is about those, too.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Sanity checks
#
# Does a map show what the model *learned*? Make its weights random, from the output down, and see whether the map notices (Adebayo et al. 2018).
# **Predict:** which of these methods will notice last?

# %% slideshow={"slide_type": "slide"}
methods = ["gradient", "gradient_x_input", "integrated_gradients", "guided_backprop", "grad_cam"]
compare_sanity(honest, pictures[:2], methods)

# %% [markdown]
# **Look:** guided backpropagation changes least: with the output layer random it draws almost the same picture, and so does not tell you what
# that layer does. Even maps of a wholly random network keep some likeness to the trained one's: the picture itself shines through.
#
# The other check: a model that learned **random labels** by heart. The control beside it learned the true ones, from as many stories: two models differ anyhow.

# %%
from mi_workshop.saliency import label_check, permuted

learned = {"random labels": permuted(Rooms()), "true labels": Rooms()}
others = {name: train(world, n=300, epochs=30, progress=False) for name, world in learned.items()}
stories = [(s, s.answer) for s in Rooms().sample(8, "validation")]
label_check(rooms, others, stories, "integrated_gradients").mean(axis=1).round(2)

# %% [markdown]
# **Look:** maps of the model with random labels have nothing in common with ours; those of the control do, though far from all. *Passing* this test is little:
# it says that a map depends on the training, not that it is right.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Limits: two counterexamples
#
# Two sentences that everybody reads into a map. *"It is positive: more of it would help."* And: *"It is zero: it does not matter."* We search our models for
# a case against each. Parts with a positive attribution, and what the answer does when their contrast grows by half:

# %%
from mi_workshop.saliency.limits import dose, more_hurts, zero_matters

more_hurts(shortcut, pictures).head(4).round(2)

# %%
dose(shortcut, *pictures[3], "marker")

# %% [markdown]
# **Look:** the marker has by far the most positive attribution of this picture, and more of it *lowers* the answer. Integrated gradients says what was gained on the way
# from the baseline to the picture; it does not say where the road goes on.
#
# Now zero. Parts that the model key calls decisive, and how hot the map is there, as a share of its hottest pixel. The baseline is white:

# %%
zero_matters(shortcut, pictures, ["integrated_gradients"], "white").head(4).round(2)

# %%
attribute(shortcut, *pictures[4], "integrated_gradients", "white")

# %% [markdown]
# **Look:** almost nothing at the marker, which decides. It is white, like the baseline: a method that asks "what if this were white?" must answer "nothing would change". With a grey baseline
# the same marker is the hottest place of the map. *Zero* always means: compared with this baseline. (Bilodeau et al. prove that no method of this kind can be trusted
# with either sentence in general.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The full table
#
# Ten methods, all scores, ten kinds of input: that takes longer than a lecture has, so the table comes from a run whose command, seeds and rule of decision were committed
# before its test pictures were opened.

# %%
from mi_workshop import results
from mi_workshop.saliency.verdicts import verdicts

stored = results.read("saliency")
print(stored)
