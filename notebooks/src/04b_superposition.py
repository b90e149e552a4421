# %% [markdown] slideshow={"slide_type": "slide"}
# # Superposition: why neurons mean several things
#
# > **40 minutes, and 26 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - train a model that packs five features into two dimensions, and say when a model does so;
# > - tell a basis that means something from one that does not;
# > - compute when it pays for one neuron to respond to two things;
# > - explain what SoLU does to neurons and what the LayerNorm after it undoes, and measure both with an answer key.
# >
# > Two parts, each a lesson of its own. The cure that the field has settled on, dictionaries of sparse features, is the [next notebook](05_sae_features.ipynb).

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# Everything trains live: let the class vote before each figure. In half the time: the five features, the phase change, height and happiness, one neuron.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## Part 1: more features than neurons
#
# Read the neurons of a language model one by one, and most of them respond to several things that have nothing to do with each other: they are **polysemantic**. One explanation is the
# **superposition hypothesis**: the network represents more features than it has dimensions, as directions that are *almost* at right angles, and so behaves like a larger network that is
# squeezed into a small one. In a real model we cannot check that, because nobody knows what the features are. So let us build the smallest model in which we do.
# %% [markdown] slideshow={"slide_type": "slide"}
# **A toy** (Elhage et al. 2022). Five features, each a number between 0 and 1. Two hidden dimensions. The model writes the features into the two dimensions, h = Wᵀx, reads them back,
# x′ = ReLU(Wh + b), and is trained to get back what was put in. Feature 1 matters most, each further one 0.9 times as much. The **sparsity** is the chance that a feature is
# *absent* from an input.
#
# **Predict:** five features, two dimensions. If all of them are always present, how many can the model keep? And if each is there in one input of twenty?
# %% slideshow={"slide_type": "slide"}
from mi_workshop.superposition import Toys, train_toy

toys = train_toy(n_features=5, n_hidden=2, sparsity=[0, 0.8, 0.95], importance=0.9)
toys

# %% [markdown]
# An arrow is what a feature writes into the two dimensions. Below, a row says what all five *get* if that one feature is there: W Wᵀ, before bias and ReLU.
#
# **Look:**
# - *Dense* (left): two features, one dimension for each, as you would do it by hand. The other three are given up.
# - *Sparser*: four features in two pairs. Two opposite arrows on one line are a **digon**. The −1 in the table does no harm to a feature that is absent: the ReLU makes 0 of it.
# - *Sparse*: all five, at equal angles, a **pentagon**. Now every feature disturbs every other one a little, and the bias and the ReLU clean up, as long as few of them are present at once.
#
# Nobody asked for a pentagon. Watch it arise:

# %% slideshow={"slide_type": "slide"}
toys[2].animate()

# %% [markdown]
# **Look** at the last feature to find its place: the others have to make room, all at the same time.
#
# Each shape has a number. Ask how much of a dimension a feature has *to itself*, 1 if nothing else points its way:

# %%
toys[2].table.round(2)

# %% [markdown]
# Five features share two dimensions: 2/5 for each. A digon gives 1/2, and a triangle would give 2/3. **Predict:** three features in the plane. Will they make a triangle, or a digon and one
# alone? Sixteen random starts, from the lowest loss up:

# %% slideshow={"slide_type": "slide"}
starts = train_toy(3, 2, sparsity=0.4, restarts=16, best=False)
Toys([starts[0], starts[-1]])

# %%
starts.table.round(4)

# %% [markdown]
# **Look:** the triangle has the lowest loss, and most starts do not find it. What you see in *one* trained network may be an accident of its seed. (In the cells above the best of four starts is
# shown; say so when you show such pictures.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The phase change
#
# Now the smallest case: two features, *one* dimension. There are three things to do with the second feature: leave it out, give it the dimension, or let both share it. We train 225 models, from
# unimportant to important (upwards), and from rare to always there (to the right).
#
# **Predict:** walk from left to right at half the importance. Does the second feature fade, or does it drop out at once?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.superposition import phase_diagram

phases = phase_diagram()
phases

# %% [markdown]
# **Look:** its arrow hardly shortens, and then it is gone. That is a **phase change**: two different solutions, and at some density the other one becomes the cheaper. The orange line is a calculation
# that fits on a napkin (`phases.theory`): what is left out costs its variance; two that share cost something only where both are present, and that happens with the *square* of the density.
# That square is why superposition pays for rare features.

# %%
print(phases)

# %% [markdown]
# The napkin allows weights of 0, 1 and −1 only; the trained models may do better, and near the boundary they share a little longer.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Height and happiness on one axis
#
# The same with names. A model has one number for both. **Predict:** it is trained on inputs in which both are nearly always absent. What will it read for somebody who is tall *and* happy?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.superposition import one_axis

one_axis(("height", "happiness"))

# %% [markdown]
# **Look:** dense, the axis is for height; for happiness the model says about the same whatever is true. Sparse, both are read perfectly, each alone. Together they cancel: *neither tall nor happy*. The model
# knows nothing of this weakness, since it met the case in one input of four hundred.
#
# This is what interference means, and why it matters for safety: an average over ordinary inputs will not show it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Turn the knobs
#
# **Try:** five features; go down with the sparsity until the pentagon breaks. Then make the features less equal. Does that help or hurt the last ones?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.superposition import explore_toy

explore_toy()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is a neuron a natural unit at all?
#
# So far the hidden dimensions were plain numbers. Turn the plane by any angle, writing and reading alike, and the model is the same: its axes mean nothing, its basis is **not privileged**. The residual
# stream of a transformer is built like that. A nonlinearity on each hidden number makes its basis **privileged**: now the axes are special. Here are four features in four dimensions, room enough.
#
# **Predict:** in which of the two models does a single hidden number mean a single thing?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.superposition import bases

bases()

# %% [markdown]
# **Look:** both models are perfect, but only one of them can be read neuron by neuron. In the linear one each number is a mixture of four features, *without any superposition*: we look at it in the
# wrong basis. *Alignment*: how much of a feature lies on its strongest hidden number, 1 if all; a random direction has 0.78, and 0.90 behind
# a ReLU, which empties half of it. And a hundred random rotations: no difference on the left, ruin on the right.
#
# Two reasons, then, why a number inside of a network may mean several things: a basis that is not privileged, and superposition. With ReLUs *and* more features than neurons there is the second alone:

# %%
bases(n_features=6, n_hidden=4, sparsity=0.7, importance=0.8)

# %% [markdown]
# **Look:** on the right, some neurons have a feature of their own. One feature has *two* neurons, each of which it shares with another feature: polysemantic neurons in a privileged basis.
# Feature 6 is nearly given up.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When it pays for one neuron to respond to two things
#
# Is sparsity the cure, then? If only one feature is present at a time, there is no interference, and no need for superposition. Still, consider (after Bricken et al. 2023): one of four features is
# present, each as often, and is to be named. The model sees *one* neuron that is on or off.
#
# **Predict:** which is better, a clean neuron that is on for A only, or one that is on for A and B?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.superposition import one_neuron

neuron = one_neuron()
neuron

# %%
neuron.table.round(3)

# %% [markdown]
# **Look:** clean, ¾ ln 3 = 0.82; mixed, ln 2 = 0.69. Cross-entropy, by which language models are trained, pays for the whole bit, and the mixed neuron says one. Squared error does not care.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you
#
# - *The bit.* The two values hold for a neuron that is on or off. Ours is a ReLU: left to choose how strongly to fire for each feature, it puts all four on **one line of four levels** and loses next to nothing (the last
#   column of the figure). The lecture's argument is right about the bit; a real neuron may do something stranger still. Noise, or more features at once, would take it away again.
# - *The toy.* These features are independent, equally frequent, and we decided what they are. Real features are none of that. That toys do this shows that networks *can*; that language models
#   do it is another claim, and needs other evidence.
# - *The seed.* See the triangle.
# - *The names.* "0.5, so it is a digon" is a conclusion from one number. Look at the arrows where you can.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Part 2. Can neurons be made to mean one thing?
#
# If features share neurons because there are too few neurons, one could *train* the model to keep them apart. **Softmax linear units** (SoLU,
# [Elhage et al. 2022](https://transformer-circuits.pub/2022/solu/index.html)) try it with the activation function alone:
#
# $$\mathrm{SoLU}(x) = x \cdot \mathrm{softmax}(x)$$
#
# over all neurons of a layer. **Predict:** what becomes of (4, 1, 4, 1)? of (4, 0, 0, 0)? of (1, 1, 1, 1)?

# %% slideshow={"slide_type": "slide"}
from mi_workshop import neurons, solu

for x in [(4, 1, 4, 1), (4, 0, 0, 0), (1, 1, 1, 1)]:
    print(solu.Units(x))

# %% [markdown]
# **Look:** about (2, 0, 2, 0), (4, 0, 0, 0) and a quarter each. Two strong neurons share; one strong neuron has it all; four weak ones together get as
# much as one of them alone had. A feature that is spread over several neurons is punished, one that has its own neuron is not.
#
# Move the sliders. Neuron 2 grows, and neuron 1, whose own input has not changed, falls: **lateral inhibition**. Under GeLU no neuron hears its neighbours.

# %% slideshow={"slide_type": "slide"}
solu.explore((4, 1, 4, 1))

# %% [markdown]
# **Look** at the right: with the vector small, SoLU grows faster than the vector (*superlinear*). And look at the fourth curve. In models, a **LayerNorm**
# follows SoLU: without it they learned badly (in the paper; not run here). It undoes exactly this.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The published test, with an answer key
#
# `atlas-solu` is `atlas` trained again by the same recipe, with SoLU and its LayerNorm instead of ReLU. People were shown a neuron's strongest firings; a
# neuron counted as interpretable if **one hypothesis explained 80 %** of them: 35 % of neurons with GeLU, 60 % with SoLU, in the paper's models.
#
# Here the concepts of the world are the hypotheses, all 1,280 of them. And we ask two things that were not asked: do *random directions* pass
# as well? Do *random hypotheses*?
#
# **Predict:** what share of random directions will pass?

# %% slideshow={"slide_type": "slide"}
model, solu_model = mi.load("atlas"), mi.load("atlas-solu")
neurons.interpretable_neurons(solu_model)

# %% [markdown]
# **Look:** neurons are ahead of random directions, but not by much. No neuron is explained by random hypotheses: it is not luck.
#
# We counted *distinct inputs*, the ten strongest that differ. What if one takes the 50 strongest tokens of the *text* as they come?
# (`mid`: before the LayerNorm, `post`: after it.)

# %%
from mi_workshop import results

table = results.read("solu")["shares"].loc[(128, "solu_ln", 0)]
table[["share", "random directions"]].round(2)

# %% [markdown]
# **Look:** more than three quarters. But most tokens are repeats of a few words, so whatever fires for a word is "explained" by this word: before the LayerNorm
# random directions do *better* than neurons. A share without its control is half a sentence.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Against GeLU, in several sizes
#
# What counts, which text, which controls and what would count as a difference was written down before any of these models was measured (`training/solu.py`).

# %% slideshow={"slide_type": "slide"}
solu.sizes()

# %% [markdown]
# **Look:** in all three sizes one hypothesis explains more of SoLU's neurons than of GeLU's: 47 against 41 %, 55 against 36 %, 45 against 38 % (after the LayerNorm). The published direction, and each step is smaller than
# the published 25 points. It costs loss, .02 to .37 nats of the text, most in the middle size; one seed each, so trust the sign more than the sizes. And then the third panel: under SoLU **random directions** pass more often, too. At
# full size neurons are ahead of them by about as much under SoLU as under GeLU (6 and 8 points in what is stored; another draw of directions, as above, moves this by 2).
#
# How can a random direction get better? How much of a layer's (squared) activation is in its one strongest neuron?

# %%
{m.name: round(neurons.sparsity(m), 2) for m in (model, solu_model)}

# %% [markdown]
# Where one neuron shouts, a random mixture of all neurons hears mostly this one. SoLU did what it promises, it made the layer sparse. The share of
# "interpretable" units rewards sparsity, wherever one looks; that is not the same as neurons meaning one thing.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Where did the rest go?
#
# The paper's own doubt: SoLU might hide features that it cannot give a neuron to, in *small* activations, which the LayerNorm makes large again.
# So: how much of a neuron's firing is weak, and does its hypothesis hold there?

# %% slideshow={"slide_type": "slide"}
neurons.low_activations(solu_model)

# %% [markdown]
# **Look:** at the strongest firings the hypothesis holds nearly always; at the weakest, nearly never. And the weakest are most of all firings, and 31 to 41 % of all activation. Whoever
# looks at top examples has seen little of what the neuron does.
#
# Does the LayerNorm undo what SoLU did? When all pre-activations grow by 10 %, by which power does the strongest neuron grow (1 is linear)?

# %%
neurons.superlinearity(solu_model)

# %% [markdown]
# **Look:** before the LayerNorm it grows far more than linearly; after it, it hardly grows at all: what is weak everywhere is made as large as what is strong somewhere.
# Do weak neurons carry anything? Only the strongest *k* neurons of each layer are kept, all others set to 0:

# %%
kept = results.read("solu")["kept"]["right"]
kept.xs((128, 0), level=("d_model", "seed")).unstack("k")

# %% [markdown]
# **Look:** (*rest*: the others are set to 0, or to their median, where they idle; GeLU does not idle at 0.) One neuron per layer and token is enough for SoLU
# to answer nine questions out of ten, where GeLU and ReLU need eight. In our world little hides in small activations: facts have neurons to spare.
# Language has more to say, and there the paper did find features hidden in the small ones.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# room for five

# %%
from mi_workshop.teach import check, hint, solution

sparsity = ...
# solution
sparsity = 0.9
print(train_toy(6, 2, sparsity)[0])

# %%
check("room for five", sparsity)

# %% [markdown] tags=["exercise"]
# six for one neuron

# %%
fires = ...
# solution
fires = 3

# %%
check("six for one neuron", fires)

# %% [markdown] tags=["exercise"]
# shout it down

# %%
x = ...
# solution
x = (4, 8, 0, 0)
solu.Units(x)

# %%
check("shout it down", x)

# %% [markdown] tags=["exercise"]
# explained, is it?

# %%
illusion = ...
# solution
each = neurons.interpretable_neurons(solu_model).neurons.loc["post"]
illusion = each[each.interpretable & (each.precision < 0.1)].index[0]

# %%
check("explained, is it?", illusion)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - Where there are more features than dimensions, and each is rare, a model can keep them all, almost at right angles: superposition. Its price is interference.
# - It does not fade in: at some sparsity another solution becomes the cheaper one.
# - A number inside of a network may mean several things because its basis is not privileged, because of superposition, or because cross-entropy pays for it.
# - SoLU is an attempt to train models whose neurons are plainer. Whether it works is a measurement, with controls, and the LayerNorm after it belongs to it.
#
# ## To discuss
#
# - The toys' features are independent and equally frequent. Which feature of language is?
# - Would you give up some performance for a model that is easier to read? How much, and who should decide?
# - A model is safe on average over a million inputs. What does interference say about this?
#
# ## Where to read more
#
# - Elhage and others: [*Toy Models of Superposition*][toy], 2022
# - Elhage and others: [*Softmax Linear Units*][solu], 2022
# - Bricken and others: [*Towards Monosemanticity*][mono], 2023: when it pays for one neuron to respond to two things
#
# **Next:** [Sparse features](05_sae_features.ipynb)
#
# [toy]: https://transformer-circuits.pub/2022/toy_model/index.html
# [solu]: https://transformer-circuits.pub/2022/solu/index.html
# [mono]: https://transformer-circuits.pub/2023/monosemantic-features
