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

rooms = train(Rooms(), progress=False)
story = "John went to the bedroom. Sandra moved to the bedroom. Where is John?"
answer_keys(rooms, story, "bedroom", pairs=9).pairs

# %% [markdown]
# **Look** for the pair *Sandra*, second *bedroom*. Each alone moves the answer little; together they move it by several times as much: John has moved on.
# (The world would not write every combination: no story of the training set puts certain people in certain places, so some are left out.)
# Now a method that takes one word away at a time:

# %%
attribute(rooms, story, "bedroom", "occlusion")

# %% [markdown]
# **Look:** the first *bedroom* gets nearly everything, *Sandra* and the second *bedroom* next to nothing. The method did nothing wrong: it asked one question
# at a time. No single number for each word can say "these two, but only together".

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
# **Look:** guided backpropagation changes least at first: with the output layer random it draws almost the same picture, and so does not tell you what
# that layer does. Even maps of a wholly random network keep some likeness to the trained one's: the picture itself shines through.
#
# The other check: a model that learned **random labels** by heart, 128 pictures or 300 stories. Its maps should be unlike ours. The control learned the true labels of
# as many: two models differ anyhow. (Training them takes longer than we have, so this table is stored; `label_check` makes it.)

# %%
from mi_workshop import results

stored = results.read("saliency")
checked = stored["sanity"].xs("labels", level="check")
checked["mean"].unstack("layer").round(2)

# %% [markdown]
# **Look** at `scenes-cnn`, and be surprised: for most methods random labels make maps that are *almost as like* ours as true labels do (gradient: .39 and .43). Grad-CAM and occlusion
# tell the two apart clearly, SmoothGrad just; for the others the intervals overlap (`checked` has them; six pictures). Perhaps 128 pictures teach the control too little, too. On the stories
# the means lie further apart, but with six stories half of the intervals still overlap. *Passing* would be little anyway: that a map depends on the training does not make it right.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Limits: two counterexamples
#
# Two sentences that everybody reads into a map. *"It is positive: more of it would help."* And: *"It is zero: it does not matter."* We search our models for
# a case against each. Parts with a positive attribution, and what the answer does when their contrast to the baseline grows by a tenth:

# %%
from mi_workshop.saliency.limits import dose, more_hurts, zero_matters

more_hurts(honest, pictures).head(4).round(2)

# %%
dose(honest, *pictures[3], "background")

# %% [markdown]
# **Look:** the attribution of the background is positive, and yet from the input on *any* more of it lowers the answer. Integrated gradients says what was gained on the
# way from the baseline to the picture; it does not say how the road goes on.
#
# Now zero. Parts that the model key calls decisive, and how hot the map is there, as a share of its hottest pixel. The baseline is white:

# %%
zero_matters(shortcut, pictures, ["integrated_gradients"], "white").head(4).round(2)

# %%
attribute(shortcut, *pictures[4], "integrated_gradients", "white")

# %% [markdown]
# **Look:** almost nothing at the marker, which decides. It is white, like the baseline: a method that asks "what if this were white?" must answer "nothing would change". With a grey baseline
# the same marker is the hottest place of the map. *Zero* always means: compared with this baseline. (Bilodeau et al. prove it for methods
# whose scores add up, such as this one: in general neither sentence can be inferred from them.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The full table
#
# Every method, every score, eleven kinds of input: that takes half an hour, so it is stored. Inputs, seeds and the rule of decision were committed before the test pictures were opened.
# Two rows know nothing of any model: *(noise)* is a random map, *(edges)* draws the outlines of the picture.
#
# **Predict:** which methods name the marker of `scenes-shortcut`? And which name it in `scenes-cnn`, which does not use it?

# %%
from mi_workshop.saliency.verdicts import verdicts

print(stored)
verdicts(stored).round(2)

# %% [markdown]
# **Look:** by the rule that we had committed (a map names the part that is hottest *on average*) every real method exposes the Clever Hans, on the same pictures on which it leaves
# `scenes-cnn` in peace. The edges cry wolf: they draw the marker whoever uses it. So that is solved? Change nothing but how the map is *read*: the part with the highest *sum*.

# %%
verdicts(stored, score="names_marker_by_sum").round(2)

# %% [markdown]
# **Look:** now only integrated gradients, gradient SHAP and gradient × input find it. The other maps are spread so widely that the large background outweighs any marker.
# Neither reading is the wrong one. We chose ours on validation pictures, because by the sum pure noise names the background for its size; but *which methods expose the shortcut* depended on
# that choice more than on the method. A third reading, the single hottest pixel:

# %% slideshow={"slide_type": "slide"}
overview(stored["scores"], "scenes-shortcut", "agreeing marker", scores=["pointing", "mass", "tau_per_pixel", "tau", "pointing_world", "insertion", "deletion", "sensitivity", "seconds"])

# %% [markdown]
# **Look** down *pointing*: Grad-CAM's hottest pixel lies beside the marker in nearly all pictures, for its map is eight pixels coarse. Then along a row: no method is dark everywhere. And
# down *pointing (world)*: hardly a map points at the object that *should* decide. That is right: here a faithful map cannot be a plausible one.

# %% slideshow={"slide_type": "slide"}
overview(stored["scores"], score="tau_per_pixel")

# %% [markdown]
# **Look** across: the order of the methods changes from model to model. Kernel SHAP agrees with the key of `atlas` almost perfectly (.98), and on `Reviews` (.29) it is far behind the plain
# gradient (.63); relevance propagation is best on CLIP, in pictures and in words, and even so .38 on words is little. Whoever recommends *a* method should say: for which model?
#
# What this table does not say: these are small models, 32 inputs each, one baseline, and the keys answer one question (what happens if this part were another?). On the two sets of notes the baseline
# happens to get nearly the same answer as some texts: insertion, deletion and infidelity, which are relative to that difference, have means that a single note decides. Read the medians there, in `stored["scores"]`.
