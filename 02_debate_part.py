# ruff: noqa
# %% [markdown] slideshow={"slide_type": "slide"}
# ## The debate
#
# In 2019 one paper said in its title that [attention is not explanation][jain], and another answered that [attention is not not explanation][wiegreffe].
# Both trained models like ours, a BiLSTM with additive attention, on reviews and hospital notes. They could only compare explanations with each other.
# On *Rooms* we know which sentence the answer follows from, so we can run their experiments and then ask the key.
#
# Two models from different seeds, trained here and now:

# %%
from mi_workshop import debate
from mi_workshop.models.attention_rnn import train
from mi_workshop.worlds import Rooms

world = Rooms()
model, other = train(world, seed=0), train(world, seed=1)
stories = world.sample(200, "validation")

# %% [markdown]
# **Do measures of importance agree?** In each story the words are ranked by attention, by |gradient × input| and by what leaving a word out does to the prediction.
# Kendall's τ is 1 where two rankings are the same and 0 where they have nothing in common.
#
# **Predict:** which pair will agree best? How well should two *good* measures agree?

# %% slideshow={"slide_type": "slide"}
debate.correlations(model, stories, other)

# %% [markdown]
# **Look:** attention agrees little with either, and on that the first paper rests. But gradient and leave-one-out do not agree well either, and neither does the attention
# of two models that differ in nothing but the seed. Most words of a story do not matter at all, and τ counts their order as much as that of the two that do.
#
# **Can the weights be others, and the answer the same?** First each story's weights in 100 random orders, then weights that are *sought*: as far from the model's as can be
# while the prediction moves by less than 0.01. (Distance of weights: Jensen-Shannon divergence, JSD, from 0 to 0.69. Distance of predictions: total variation, TVD, from 0 to 1.)
#
# **Predict:** how far will the answer move when the weights are shuffled? And for how many stories is there an adversary?

# %%
_, moved = debate.permuted(model, stories)
print(f"shuffled: the prediction moves by {moved.median(0).values.mean():.2f} TVD")
adversary = debate.adversarial(model, stories)
print(f"far other weights for {(adversary.jsd > 0.35).float().mean():.0%} of the stories")

# %% slideshow={"slide_type": "slide"}
adversary

# %% [markdown]
# **Look:** same prediction, another heat map. (The story shown is the one with the farthest weights; in most stories of *Rooms* there is no room to go that far.)
# Is that much? The second paper asks how far apart two models are that nobody manipulated:

# %%
twins = debate.compare(model, other, stories)
print(f"JSD: two seeds {twins.jsd.mean():.2f}, the adversary {adversary.jsd.mean():.2f}")

# %% [markdown]
# **Are the weights worth something to another model?** Take the LSTM away: an MLP reads each word by itself, blind to its context, and can only weigh words. Give it weights to use,
# and see how far they carry it. (Wiegreffe and Pinter's diagnostic; F1 is the mean over places.)
#
# **Predict:** will the weights of the LSTM help?

# %%
from mi_workshop.models.attention_rnn import uniform

for name, weights in {"uniform": uniform, "the LSTM's": model.weights}.items():
    mlp = train(world, attention=weights, encoder="mlp")
    print(f"{name}: F1 {debate.f1(mlp, stories):.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The full table
#
# One data set, one seed: an anecdote. Five seeds on four data sets take longer than a lesson; they were run once by `python -m training.debate`, and stored:

# %%
from mi_workshop.debate_verdicts import f1_table, key_table, stored_correlations, trade_off, verdicts
from mi_workshop.results import read

stored = read("debate")
stored

# %% slideshow={"slide_type": "slide"}
stored_correlations(stored)

# %% [markdown]
# The same shuffling, by the largest weight of a passage; how far the prediction moved (TVD):

# %%
stored["permuted"].round(2)

# %% [markdown]
# **Look:** on *Rooms* shuffling ruins the answer. In the notes half of the passages hardly notice, even where one word has most of the weight, and a quarter does: a mean hides both.

# %% slideshow={"slide_type": "slide"}
f1_table(stored)

# %%
f1_table(stored, few=True)

# %% [markdown]
# **Look:** with 4,000 training passages the LSTM reaches F1 1 on three data sets whatever its attention: there the table says nothing about attention. With 600 (the second table) learned attention is ahead on all four.
# The MLP, which has nothing but the weights, does far better with those of the LSTM than with uniform ones or its own. On *Reviews* that is so for some seeds only: look at the interval. It does worst on average with the weights
# of an adversary trained to attend elsewhere (below). (Mind the yardstick: always answering *anemic* gives F1 0.68, never doing so gives 0. With the adversaries' weights some MLPs learned just that.)
#
# The published table, on other data, for orientation and not for comparison (Wiegreffe and Pinter 2019, Table 3):

# %%
stored["published"]

# %% [markdown]
# **Train the adversary.** An adversary sought story by story is no model. Wiegreffe and Pinter train one: predict as the base model does, and attend elsewhere, with a weight λ on the second.
#
# **Predict:** what will it cost?

# %% slideshow={"slide_type": "slide"}
trade_off(stored)

# %% [markdown]
# **Look:** further up is farther attention, further left is more the same prediction. On *Rooms* and the notes a model with λ = 0.01 attends elsewhere altogether and predicts nearly as before. On *Reviews* most of them learn to attend
# elsewhere and not to predict: a TVD near 0.5 is a coin's. (λ was chosen on validation passages of *Rooms* and *Anemia*; another one for *Reviews* would be a choice after the fact.) And there two *seeds* can be as far
# apart as any adversary (squares): what varies by itself needs no adversary.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the keys say
#
# Until here explanations were compared with explanations. On *Rooms* there are keys: the sentence on which *this* model's answer depends (model key: every word is replaced by every
# other that the world would put there), and the one that the answer follows from (world key).
#
# **Predict:** how often does attention, which agrees with so little, point to the right sentence?

# %%
debate.pointing(model, stories[:50]).groupby("measure", sort=False).mean().round(2)

# %% [markdown]
# **Look:** nearly always, as gradient and leave-one-out do. Three measures whose rankings have little in common name the same sentence: they part in the order of the rest. And the adversary that was trained to look elsewhere? **Predict:** where does it look?

# %% slideshow={"slide_type": "slide"}
adversary = debate.train_adversary(model, strength=0.01)
debate.compare(model, adversary, stories, ("the model's own", "the trained adversary's"), shown=0)

# %% [markdown]
# **Look:** at another word of the *same* sentence. An LSTM writes what it has read into the states beside it, so that the word beside *garden* can know as much of it. JSD calls that as far as can be.
# For an MLP, which sees only the word, such weights are worthless: that is what the diagnostic found.
#
# The same for five seeds, for models with other attention, and on the other data sets, where the planted words are known (AUC: how surely a planted word
# gets more weight than another; 0.5 is chance):

# %% slideshow={"slide_type": "slide"}
key_table(stored)

# %% [markdown]
# **Look:** on *Rooms* attention points to the sentence that the answer depends on, in the trained adversary, too. Uniform weights point nowhere; that model's answers depend on sentences all the same, and leaving words out finds
# them. The MLP's own attention is right in about half of the stories, and its answers in little more. On the notes attention finds the planted words better than the gradient does, on *Reviews* worse.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Who is right?
#
# Each claim has a threshold that was written down before the test passages were opened, and is supported where the whole 95 % interval over seeds lies on its side.

# %% slideshow={"slide_type": "slide"}
import pandas as pd

pd.set_option("display.max_colwidth", None)
verdicts(stored)

# %% [markdown]
# **Look:** neither title follows. The first paper's rankings disagree here, too; but on *Rooms* all three name the same sentence, and disagree about the rest. Other weights for the same answer exist for nearly every passage on three data sets,
# and for a minority of the stories on *Rooms*, where the task needs attention. Shuffling does move the answers, if not in every passage. The second paper's diagnostic holds: the weights carry something that another model can use, clearly on three data sets. Yet a
# model can be trained to answer as well and attend elsewhere. What attention points to is a *state* of the LSTM and not a word; whether that explains depends on what was asked.
#
# "Mixed" over all data sets mostly means that data sets differ. (With five seeds an interval can reach beyond what is possible, as a share above 1.)

# %% [markdown]
# ## To discuss
#
# - Two measures agree on the sentence and disagree on the ranking (τ). Which of the two would you report, and for whom?
# - The trained adversary attends to *journeyed* and answers as before. Is its heat map wrong? What would you have to know about the model to say so?
# - Where every model reaches F1 1, uniform attention is "as good". What does that say about attention, and what about the data set?
#
# [jain]: https://arxiv.org/abs/1902.10186
# [wiegreffe]: https://arxiv.org/abs/1908.04626
