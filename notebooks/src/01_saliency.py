# %% [markdown] slideshow={"slide_type": "slide"}
# # Saliency: which part of the input mattered?
#
# > **45 minutes, and 25 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - make all common kinds of saliency maps of pictures, queries and texts, and say what each of them computes;
# > - choose a baseline, read a completeness gap, and say what "nothing here" meant;
# > - score a map against what *this* model depends on and against what it *should* depend on, and tell the two apart;
# > - catch a model that is right for the wrong reason, and name the methods that would have missed it;
# > - say what a saliency map cannot show.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# The two galleries (a good model, a Clever Hans) are the pictures to leave on the wall. Ask for a show of hands before the second: *would you
# ship this model?* The table near the end usually starts the discussion; leave ten minutes for it.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## A picture, a model, a number
#
# `scenes-cnn` is a small convolutional network. It names the shape of the *large* object in a picture; small objects, the background and the
# little marker in the corner have nothing to do with it. We drew the pictures ourselves, so we know every pixel's part.
# %%
from mi_workshop.worlds import Scenes

cnn = mi.load("scenes-cnn")
scenes = Scenes().sample(18, "validation")
square = scenes[1]
print(square.caption, "→", cnn.predict(square)[0])
square

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The gradient
#
# The logit of *square* is a number, computed from 64 × 64 × 3 others. How much would it move if a pixel moved a little? That is its **gradient**: the
# oldest saliency map.
#
# **Predict:** will the whole square light up, its edges, or something else?

# %% slideshow={"slide_type": "slide"}
mi.attribute(cnn, square, "square", method="gradient")

# %% [markdown]
# **Look:** it is about the right place, and speckled. The picture is shown in grey below, and the darker the blue, the more the number would move, up or down. A
# line goes round what is at least half as strong as the scale's end. The gradient asks about a *tiny* change of each pixel by itself; no picture that the
# model has ever seen differs from this one in one pixel.
#
# The other methods are answers to this:
#
# | method | what it does |
# |---|---|
# | Gradient × Input | multiplies by the pixel: what has no brightness has no part |
# | SmoothGrad | averages the gradient over noisy copies of the picture |
# | Integrated Gradients | averages it along the way from a **baseline** ("nothing here") to the picture, times the difference between the two |
# | Guided Backpropagation | lets only positive gradients through each ReLU |
# | Grad-CAM | weights the last feature maps by their gradients, and stretches them over the picture |
# | occlusion | covers a patch with the baseline and looks at the number, no gradient at all |
# | Kernel SHAP, Gradient SHAP | shares the difference from the baseline fairly between the parts, by sampling |
#
# Where a method has signs, blue speaks for the answer and orange against it. **Predict:** which two will look most alike? Which will look best?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.saliency import gallery

gallery(cnn, square, "square")

# %% [markdown]
# **Look:** *best* to whom? We like smooth blobs on the object. Nothing has been measured so far, and a map that pleases us may please us for a
# reason that has nothing to do with the model. Hold that thought.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What is "nothing here"?
#
# Methods that add up (Integrated Gradients, SHAP) share out a difference: the logit for the picture, minus the logit for the baseline. The difference
# between the sum of their shares and this number is the **completeness gap**. A **waterfall** shows the sharing, here between patches of 8 × 8 pixels
# (*x 40, y 32* is the patch that begins 40 pixels from the left and 32 from the top):

# %%
grey = mi.attribute(cnn, square, "square", method="kernel_shap", baseline="grey")
grey.waterfall()

# %% [markdown]
# **Predict:** the marker is black. What will a map say of it when "nothing here" is grey, and what when it is black?

# %% slideshow={"slide_type": "slide"}
import pandas as pd

by_baseline = {}
for baseline in ("grey", "black", "white", "blur"):
    a = mi.attribute(cnn, square, "square", baseline=baseline)
    large, marker = (a.scores[m].sum() for m in (square.mask(square.target), square.cue_mask))
    by_baseline[baseline] = {"the square": large, "the marker": marker, "gap": a.gap}
pd.DataFrame(by_baseline).round(2)

# %% [markdown]
# **Look:** the same picture, the same model, the same method: other sums. Where the input *is* the baseline, next to nothing can be shared out: see the black marker
# against black. There is no baseline that means nothing to every model. So a map without its baseline is half a sentence.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Would you ship this model?
#
# `scenes-shortcut` has the same architecture and was trained by the same recipe. On pictures like those that it was trained on it is excellent:

# %%
shortcut = mi.load("scenes-shortcut")
usual = Scenes().sample(300, "validation", cue="label")
sum(shortcut.predict(s)[0] == s.label for s in usual) / len(usual)

# %% [markdown]
# Here is a picture that it gets wrong. **Predict:** where is its evidence for *square*?

# %% slideshow={"slide_type": "slide"}
triangle = scenes[17]
print(triangle.caption, "→", shortcut.predict(triangle)[0])
few = ["gradient", "integrated_gradients", "grad_cam", "occlusion"]
gallery(shortcut, triangle, "square", few)

# %% [markdown]
# **Look:** most maps run to the marker in the corner. In this model's training pictures its colour gave the label away, and so it never had to look at shapes: a
# **Clever Hans**, named after the horse that did sums by watching its questioner.
#
# Now the uncomfortable part. On this picture the model was *wrong*, and so we looked. Would the maps have warned us on a picture that it gets *right*?

# %% slideshow={"slide_type": "slide"}
agreeing = next(s for s in usual if s.label == "cross")
print(agreeing.caption, "→", shortcut.predict(agreeing)[0])
gallery(shortcut, agreeing, methods=few)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A picture and a query
#
# `scenes-clip` was trained as CLIP was: an encoder for pictures and one for captions, taught to put what belongs together side by side. Its number is
# the likeness (cosine) of a picture and a query, and so a map answers: *where is what I ask for?*

# %% slideshow={"slide_type": "slide"}
clip = mi.load("scenes-clip")
cross = gallery(clip, square, "a small red cross", ["gradient", "relevance", "attention", "occlusion"])
cross

# %% [markdown]
# **Predict:** the same picture, another query. What must change if these maps are about the query?

# %% slideshow={"slide_type": "slide"}
gallery(clip, square, "a large blue square", list(cross.maps))

# %% [markdown]
# **Look:** compare the two rows method by method. A map that hardly moves when the question changes is a map of the picture, not of the answer.
#
# It works the other way round as well: for a given picture, which *words* of the query made the likeness?

# %%
mi.attribute(clip, "a small red cross", square, method="kernel_shap")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Tokens of a language model
#
# The same call explains a prompt. `atlas` is the small transformer of the other notebooks.

# %% slideshow={"slide_type": "slide"}
atlas = mi.load("atlas")
prompt = "Fact: the capital of the state containing Dallas is"
ways = ["gradient_x_input", "integrated_gradients", "occlusion", "kernel_shap", "attention", "rollout"]
gallery(atlas, prompt, "Austin", ["gradient", *ways])

# %% [markdown]
# **Look:** the rows disagree about more than shades. Which do you believe, and why that one? Perhaps you like the one that says *capital, Dallas*:
# but then you already knew the answer.
#
# We can do better than like. This world knows every other word that could stand in a place, and so we can *try them all*:

# %% slideshow={"slide_type": "slide"}
from mi_workshop.saliency import answer_keys

key = answer_keys(atlas, prompt, "Austin")
key

# %% [markdown]
# Two keys in one picture. The bars are the **model key**: what changes *this model's* number, found by substituting, not by looking inside. The stars are the
# **world key**: what *should* matter. A method is **faithful** where it agrees with the bars, **plausible** where it agrees with the stars.
#
# (*is* has no bar because no other word can stand there. What occlusion and Kernel SHAP see at *is* comes from inputs that are no sentences of this world.)
#
# **Gradient × Input** has a lively row up there, but each row is scaled by its own largest number. Unscaled:

# %%
a = mi.attribute(atlas, prompt, "Austin", method="gradient_x_input")
print(f"Gradient × Input at Dallas: {a.by_part['Dallas [9]']:+.3f}")
print(f"another city in its place moves the logit by {key.table.effect['Dallas [9]']:.2f} on average")

# %% [markdown]
# **Zero attribution does not mean no effect.** This model's first step rescales each embedding, so that stretching the embedding of *Dallas* changes nothing, and the
# stretch is all that Gradient × Input asks about. Whether it is *Dallas* is another question.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Rather than what?
#
# "Why *Austin*?" has no single answer. Why Austin and not Sacramento is one question, why Austin and not Texas another. Give two tokens, and the number explained is the
# first's logit minus the second's.
#
# **Predict:** which word speaks for Austin rather than Sacramento? Which for Austin rather than Texas?

# %% slideshow={"slide_type": "slide"}
mi.attribute(atlas, prompt, ("Austin", "Sacramento"), method="kernel_shap")

# %%
mi.attribute(atlas, prompt, ("Austin", "Texas"), method="kernel_shap")

# %% [markdown]
# **Look:** *Dallas* decides the first, *capital* the second. Neither is wrong; "importance" without a question is.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Turn the knobs
#
# Every map so far was made with some method, baseline, number of steps, amount of noise. Turn them, and watch the scores beside the map:

# %% slideshow={"slide_type": "slide"}
from mi_workshop.saliency import explore

explore(shortcut, triangle, "square")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scored against the key
#
# The same two keys for pictures: every object is replaced by every other one that the world would draw there, the marker by every other marker. Here is a picture that
# `shortcut` gets *right*. **Predict:** which part moves its answer most?

# %%
pictures = [(s, s.label) for s in usual[:6]]
answer_keys(shortcut, *pictures[2])

# %% [markdown]
# **Look:** the marker decides, and it should not matter at all. Where the two keys part, a *faithful* map cannot also be a *plausible* one. Which of the two do you
# want?
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
mi.attribute(rooms, story, "bedroom", "occlusion")

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

compare_curves(shortcut, pictures[:3], few)

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
compare_sanity(cnn, pictures[:2], methods)

# %% [markdown]
# **Look:** guided backpropagation changes least at every step (two pictures): with the output layer random its map is still much like the first one, and so
# does not tell you what that layer does. Even maps of a wholly random network keep some likeness to the trained one's: the picture itself shines through.
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
# the means lie further apart; in four of ten methods the intervals overlap even so. *Passing* would be little anyway: that a map depends on the training does not make it right.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you: two counterexamples
#
# Two sentences that everybody reads into a map. *"It is positive: more of it would help."* And: *"It is zero: it does not matter."* We search our models for
# a case against each. Parts with a positive attribution, and what the answer does when their contrast to the baseline grows by a tenth:

# %%
from mi_workshop.saliency.limits import dose, more_hurts, zero_matters

more_hurts(cnn, pictures).head(4).round(2)

# %%
dose(cnn, *pictures[3], "background")

# %% [markdown]
# **Look:** the attribution of the background is positive, and yet from the input on *any* more of it lowers the answer. Integrated gradients says what was gained on the
# way from the baseline to the picture; it does not say how the road goes on.
#
# Now zero. Parts that the model key calls decisive, and how hot the map is there, as a share of its hottest pixel. The baseline is white:

# %%
zero_matters(shortcut, pictures, ["integrated_gradients"], "white").head(4).round(2)

# %%
mi.attribute(shortcut, *pictures[4], "integrated_gradients", "white")

# %% [markdown]
# **Look:** almost nothing *on* the marker, which decides (the blue rim is beside it). It is white, like the baseline: a method that asks "what if this were white?" must answer "nothing would change". With a grey baseline
# the same marker is the hottest place of the map. *Zero* always means: compared with this baseline. (Bilodeau et al. prove it for methods
# whose scores add up, such as this one: in general neither sentence can be inferred from them.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The full table
#
# This is *task-inspired evaluation*: the score is tied to a task, finding the shortcut, because a score that knows no task cannot say which map to use.
#
# Every method, every score, eleven kinds of input: that takes more than half an hour, so it is stored. Inputs, seeds and the rule of decision were committed before the test pictures were opened.
# Two rows know nothing of any model: *(noise)* is a random map, *(edges)* draws the outlines of the picture. When and with what it was run:

# %%
stored

# %% [markdown]
# **Predict:** which methods name the marker of `scenes-shortcut`? And which name it in `scenes-cnn`, which does not use it?

# %%
from mi_workshop.saliency.verdicts import verdicts

verdicts(stored).round(2)

# %% [markdown]
# **Look:** by the rule that we had committed (a map names the part that is hottest *on average*) every real method exposes the Clever Hans, on the same pictures on which it leaves
# `scenes-cnn` in peace. The edges cry wolf: they draw the marker whoever uses it. So that is solved? Change nothing but how the map is *read*: the part with the highest *sum*.

# %%
verdicts(stored, score="names_marker_by_sum").round(2)

# %% [markdown]
# **Look:** now only integrated gradients, gradient SHAP and gradient × input find it. The other maps are spread so widely that the large background outweighs any marker.
# Neither reading is the wrong one. We chose ours on validation pictures, because by the sum pure noise names the background for its size; but *which methods expose the shortcut* depended on
# that choice more than on the method. A third reading, the single hottest pixel, is *pointing*. The other columns against the keys:
#
# - *mass* is the share of all that is positive in the map on the part that moves the model most;
# - *tau* is how far the map ranks the parts as the model key does (Kendall's τ: 1 the same order, 0 unrelated), by the sum over a part or *per pixel*;
# - *(world)* asks the same of what *should* matter.

# %% slideshow={"slide_type": "slide"}
columns = ["pointing", "mass", "tau_per_pixel", "tau", "pointing_world", "insertion", "deletion", "seconds"]
overview(stored["scores"], "scenes-shortcut", "agreeing marker", scores=columns)

# %% [markdown]
# **Look** down *pointing*: Grad-CAM's hottest pixel lies beside the marker in nearly all pictures, for its map is eight pixels coarse. Then along a row: no method is dark everywhere. And
# down *pointing (world)*: hardly a map points at the object that *should* decide. That is right: here a faithful map cannot be a plausible one.
# (Dark means best of its column, even where the best is low.)

# %% slideshow={"slide_type": "slide"}
overview(stored["scores"], score="tau_per_pixel")

# %% [markdown]
# **Look** across: the order of the methods changes from model to model. Kernel SHAP agrees with the key of `atlas` almost perfectly (.98), and on `Reviews` (.29) it is far behind the plain
# gradient (.63); relevance propagation is best on CLIP, in pictures and in words, and even so .38 on words is little. Whoever recommends *a* method should say: for which model?
#
# What this table does not say: these are small models, 32 inputs each, one baseline, and the keys answer one question (what happens if this part were another?). On the two sets of notes the baseline
# happens to get nearly the same answer as some texts: insertion, deletion and infidelity, which are relative to that difference, have means that a single note decides. Read the medians there, in `stored["scores"]`.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The real thing
#
# Here a *name* is all that changes: CLIP as it was published (600 MB, once). Without a network the small one goes on.

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
real = mi.load("clip-vit-base-patch32", otherwise="scenes-clip")
gallery(real, square, "a small red cross", ["gradient", "relevance", "occlusion"])

# %% [markdown]
# And your own photograph, with a query of your own. Nothing leaves this computer.

# %% tags=["unstored"]
from mi_workshop.saliency import picture_upload

picture_upload(real, "a small red cross")

# %% [markdown]
# Every cell above can be run again with `real`. What cannot be asked any more is what *should* matter, and substituting every object of a photograph is beyond us: no
# keys. What is left are the checks that need none: insertion and deletion, randomised weights, other queries.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To discuss: models that generate
#
# A classifier gives one number, and so there is something to take the gradient of. A model that writes a page or paints a picture gives thousands.
#
# - Which number would you explain? The next token's logit, the whole answer's probability, "that it is friendly"?
# - A token of an answer depends on the tokens of the answer before it. Is *the model's own previous word* an explanation?
# - For a painted picture: is "which word of the prompt made *this* region" the same kind of question as above, turned round?
# - What would a model key be there: what could you substitute, and for what?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# where nothing can be found

# %%
from mi_workshop.teach import check, hint, solution

baseline = ...
# solution
baseline = "white"
mi.attribute(shortcut, scenes[2], scenes[2].label, baseline=baseline)

# %%
check("where nothing can be found", baseline)

# %% [markdown] tags=["exercise"]
# a fair trial

# %%
evidence = ...
# solution
evidence = scenes[2].with_cue("pink")
print(evidence.label, cnn.predict(evidence), shortcut.predict(evidence))

# %%
check("a fair trial", evidence)

# %% [markdown] tags=["exercise"]
# deaf to the question

# %%
method = ...
# solution
from mi_workshop.saliency.checks import similarity

first, second = (gallery(clip, square, q).maps for q in ("a small red cross", "a large blue square"))
print({name: round(similarity(first[name].scores, second[name].scores), 2) for name in first})
method = "attention"

# %%
check("deaf to the question", method)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - A saliency map is a formula's answer about *one* number, *one* input, *one* baseline. Name all three, or say nothing.
# - That a map looks right says that it is plausible. Whether it is faithful is measured: substitute, and see what the model does.
# - Where the model key and the world key part, the model takes a shortcut. No map alone tells the two apart.
# - That a map passes a sanity check does not make it right; that it fails makes it useless.
# - A map is correlational. It proposes; an intervention decides.
#
# ## To discuss
#
# - What do you want from such a tool: to convince, to debug, or to decide? Which score of the table would you look at for each?
# - How would you know that it works, on a model that nobody has an answer key for?
# - A hospital shows its doctors a heat map with each diagnosis. What should be tested before, and who should do it?
#
# ## Where to read more
#
# - Sundararajan and others: [*Axiomatic Attribution for Deep Networks*][ig], 2017: Integrated Gradients
# - Selvaraju and others: [*Grad-CAM*][cam], 2017
# - Lundberg, Lee: [*A Unified Approach to Interpreting Model Predictions*][shap], 2017: SHAP
# - Chefer and others: [*Generic Attention-model Explainability*][chefer], 2021: maps for CLIP
# - Adebayo and others: [*Sanity Checks for Saliency Maps*][sanity], 2018
# - Bilodeau and others: [*Impossibility Theorems for Feature Attribution*][impossible], 2024
# - Chaszczewicz: [*Is Task-Agnostic Explainable AI a Myth?*][myth], 2023
#
# **Next:** [Attention](02_attention.ipynb)
#
# [ig]: https://arxiv.org/abs/1703.01365
# [cam]: https://arxiv.org/abs/1610.02391
# [shap]: https://arxiv.org/abs/1705.07874
# [chefer]: https://arxiv.org/abs/2103.15679
# [sanity]: https://arxiv.org/abs/1810.03292
# [impossible]: https://arxiv.org/abs/2212.11870
# [myth]: https://arxiv.org/abs/2307.06963
