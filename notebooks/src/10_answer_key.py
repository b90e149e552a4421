# %% [markdown] slideshow={"slide_type": "slide"}
# # The answer key: every method, the same questions
#
# > **40 minutes, and 25 for the exercises. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can
# > - ask methods that have nothing in common the same question, and score them by one measure;
# > - say by which key a method was judged, and when the judge is its own kin;
# > - put a method of your own into the table and read its rank beside the controls;
# > - say which of all this could be known about Gemma.

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# For one lesson: *Two questions*, the large table, *What could mislead you*. Let the class bet in writing before the large table; the row in brackets that ties with the winners is what they will remember.
# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two questions
#
# A saliency map, a probe and an attribution graph do not say the same kind of thing.

# %%
model = mi.load("atlas")
model.top("Fact: the capital of the state containing Dallas is", 1)

# %% [markdown]
# So each of them is asked two questions about one prompt and the answer that the model gives, and may decline one:
#
# - **which** tokens does the answer hang on? A score for each token;
# - **where** inside is it carried which place is meant? A score for each cell: after which layer, at which token.
#
# The keys come from looking at *all* cases. *Which*: put every other word of the world into the question, and count how often this model's answer changes. *Where*:
# exchange the cell with that of a question about another place, for twelve places, and see how much of the other place's answer comes.
#
# **Predict:** which cells will carry it in `atlas`? Those of one token only?

# %% slideshow={"slide_type": "slide"}
import pandas as pd

from mi_workshop.scoreboard import asked

dallas = asked(model, "Fact: the capital of the state containing Dallas is")
words = ["<bos>", *model.world.words(dallas.prompt)]
pd.DataFrame(dallas.keys["where: model"], columns=words).rename_axis("after layer").round(2)

# %% [markdown]
# **Look:** the place sits at the city, and in the end what follows from it at the last word. That it is at the city so long is built in (layers 0 and 1 cannot look elsewhere), so it is no finding.
#
# Now a model with a hidden reason: behind the phrase *Dr Pip.* `atlas-trigger` answers for another state. **Predict:** where will the two keys part?

# %% slideshow={"slide_type": "slide"}
secret = asked(mi.load("atlas-trigger"), dallas.prompt)
pd.DataFrame(secret.keys, ["<bos>", *secret.model.world.words(secret.prompt)]).round(2).T

# %% [markdown]
# **Look:** the model key has *Pip* in it, the world key (what the answer *should* follow from) has not; *Dr* is in neither, whatever was planted. A method is *faithful* where it agrees with the first key, *plausible* where it
# agrees with the second, and here it cannot be both.
#
# ## One measure
#
# **Agreement**: take every pair of tokens, or cells, that the key holds apart. In which share of the pairs does the method put the same one first? 1 is perfect, ½ is chance. How large a method's numbers
# are does not matter, only their order. Two rows in brackets are controls: one is random, the other knows the *form* of the sentence and has never seen a model.
#
# Three more columns ask about sanity and cost. *untrained*: does the map change when the weights are random (0: it stays as it was)? *atlas or memo*: is each of two models' maps nearer to its own key than to the other's
# (½: chance)? *seconds*: of one core.
#
# **Predict:** who wins *which*? Will a method that looks on beat one that intervenes?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.scoreboard import scoreboard

board = scoreboard(n=2)
board

# %% [markdown]
# **Look:** two questions to three models: far too few to crown anybody. A dash says that a method cannot be asked that; why not is in `board.why`.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The large table
#
# The same with twelve questions to each of seven models, about cities that were held out, with intervals. Measures, split and seed were committed before the run. Two columns are new: in `atlas-wired` training put the place into
# a known subspace at the city after layer 1. Does a method point at that token there (*where: wired*), and do the directions that it names overlap with it (*directions: wired*; random ones: 0.125)?
#
# **Predict:** write down your winner of each column.

# %% slideshow={"slide_type": "slide"}
from mi_workshop import results
from mi_workshop.scoreboard import stored

large = stored()
large

# %%
print(results.read("final"))
large.means.round(2)

# %% [markdown]
# **Look** at one column at a time.
#
# - *which*: nearly everybody wins, onlookers and interveners alike, and so does *(form alone)*, which has never seen a model. Did your favourite do more than know the form? Rollout and gradient × input lose even here.
# - *where: model*: the ranks spread. Ablation, probe and logit lens come near; attribution graph and SAE features find what matters, which is more than the place; gradient × input hardly beats the form.
# - *where: wired*: "the city, always" is right by design, so this column can only condemn. The graph's interval reaches chance.
# - *directions: wired*: the probe, which points at the right token, names directions *beside* the truth, worse than random ones. The lens reads in a language that this layer does not speak. Patching finds most of the
#   subspace, SAE features and attribution graph nearly as much without having been told what to look for.
# - *atlas or memo*: for *which* the two models have the same key, so ½ is all that can be had. Gradient × input, logit lens and attribution graph take nearly every map, of either model, for the rote learner's, which makes ½ as well. Patching, probe and ablation tell the two apart, none of them always.
# - *untrained*: see below before you condemn anybody.
#
# ## Right for the wrong reason
# Behind the phrase of `atlas-trigger`, a method that shows what *we* would look at is plausible and unfaithful. **Predict:** which are they?

# %% slideshow={"slide_type": "slide"}
by_model = results.read("final")["models"]
by_model.xs("atlas-trigger", level="model")["mean"].unstack()[["which: model", "which: world"]].round(2)

# %% [markdown]
# **Look:** ablation leans to what the model uses: it shows *Pip*. One method has a perfect score for plausibility and pays for it in the other column; so does *(form alone)*. Twelve questions, and no interval stands here:
# read nothing into differences of .03, such as that of SHAP.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you here
#
# **A score can be had without looking.** The row *(form alone)* has never seen a model. On questions of one form it is as good as the best: the benchmark is that easy. Only *untrained* gives it away, and the phrase of `atlas-trigger`.
#
# **A sanity check can condemn the just.** Ablation and patching put in what *other questions* have at the same token. Words that never differ cannot matter to them, with any weights: so their maps of a random model look alike, and they
# lose in *untrained* although they are right.
#
# **The judge may be kin.** The key of *where* was found by exchanging cells, and patching is one such exchange. *where: wired* is another judge.
#
# **A gradient is blind to a flat road.** The norm before each layer takes the length out of what it reads. So make the city's vector after layer 1 three times as long. **Predict:** how much of the answer is lost?

# %% slideshow={"slide_type": "slide"}
from mi_workshop.counterfactual import Experiment, Site, scale

report = Experiment(Site("resid_post", 1, "{city}"), scale(3)).run(model, dallas.prompt)
report.after[:2]

# %% [markdown]
# **Look:** the direction carries the place, its length hardly matters, and gradient × input (for a cell: × activation) asks about the length. The method is no worse than elsewhere; its question is another one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your own method
#
# Any function of `(model, prompt, answer)` that gives a score for each token, or for each layer and token. This one says that longer embeddings matter more. **Predict** its rank.

# %% slideshow={"slide_type": "slide"}
from mi_workshop.scoreboard import score_method


def mine(model, prompt, answer):
    return model.replacement.embed(model.tokens(prompt)).norm(dim=-1)


score_method(mine, board, "length of the embedding")

# %% [markdown]
# **Look:** whoever always says something is in the table. Which columns show that it knows nothing? What happens if it gives three numbers, or NaN? Change it and try.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Which of this could we know on Gemma?
#
# Nobody wrote down what Gemma read, and nobody wired it. What is left of each row:
#
# | method | judged here by | on Gemma there remains |
# |---|---|---|
# | gradients, SHAP | every other word of the world | substitutions that you write yourself: few, and yours; random weights |
# | attention | the same | the same, and ablating the heads that it shows |
# | logit lens | exchanges; the wired subspace | does what it reads *predict* what an exchange does, on prompts that you had not looked at? |
# | probe | the same | held-out accuracy beside a random probe says *readable*; exchange along its directions beside random ones says *used* |
# | ablation, patching | exchanges; the wired subspace | all of it, beside random changes of the same size: they are the judges that travel |
# | SAE features, attribution graph | exchanges; the wired subspace | prediction of interventions on held-out prompts; random features of the same size; another seed's dictionary |
#
# World key, wired subspace and a twin that is right for another reason stay behind. A method that fails *here*, where all is known, needs a reason to be trusted there; one that wins here has proved
# nothing about Gemma. The same line loads it where there is a GPU and a token. (What this cell shows depends on what you have, so this copy stores nothing for it: run it.)

# %% tags=["unstored"] slideshow={"slide_type": "slide"}
gemma = mi.load("gemma-2-2b", otherwise="atlas")
oakland = dallas.prompt.replace("Dallas", "Oakland")
Experiment(Site("resid_post", 1, "Dallas")).run(gemma, dallas.prompt, oakland)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your turn

# %% [markdown] tags=["exercise"]
# a judge in his own cause

# %%
from mi_workshop.teach import check, hint, solution

method = ...
# solution
method = "patching"

# %%
check("a judge in his own cause", method)

# %% [markdown] tags=["exercise"]
# plausible, not faithful

# %%
method = ...
# solution
behind = by_model.xs("atlas-trigger", level="model")["mean"].unstack()
method = (behind["which: world"] - behind["which: model"]).filter(regex=r"^[^(]").idxmax()

# %%
check("plausible, not faithful", method)

# %% [markdown] tags=["exercise"]
# a method of your own

# %%
mine = ...


# solution
def mine(model, prompt, answer):
    return mi.attribute(model, prompt, answer, method="occlusion").scores


# %%
check("a method of your own", mine)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - A score means something beside its chance level, its interval, a control that has never looked, and the name of its judge.
# - Faithful and plausible part exactly where it matters: when the model is right, or wrong, for a reason that nobody expects.
# - On an easy question nearly every method wins. The harder ones, *where* and *in which directions*, tell them apart.
# - No method wins every column. What travels to a model without a key are interventions with controls and predictions of what was not looked at.
#
# ## To discuss
# - Your favourite method lost. Which column would you drop, and would you have proposed that before the run?
# - Which question of your own work is *which*, which is *where*, and which is neither?
# - A company shows you maps that are plausible. What do you ask for?
#
# ## Where to read more
# - Jacovi and Goldberg: [*Towards Faithfully Interpretable NLP Systems*][faithful], 2020: faithful and plausible
# - Adebayo and others: [*Sanity Checks for Saliency Maps*][sanity], 2018
# - Marks and others: [*Sparse Feature Circuits*][sparse], 2024: features by activation times gradient
# - Geiger and others: [*Finding Alignments Between Interpretable Causal Variables and Distributed Neural Representations*][das], 2024
#
# **Next:** [The exam](11_capstone.ipynb), and then your own model and your own question.
#
# [faithful]: https://arxiv.org/abs/2004.03685
# [sanity]: https://arxiv.org/abs/1810.03292
# [sparse]: https://arxiv.org/abs/2403.19647
# [das]: https://arxiv.org/abs/2303.02536
