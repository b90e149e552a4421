# %% [markdown] slideshow={"slide_type": "slide"}
# # Seeing how a model thinks
#
# Tracing a transformer's reasoning, live, on a laptop, without a network
#
# > **22 minutes, a talk. Runs offline on two CPU cores in {measured}; needs neither token nor GPU.**
# >
# > Afterwards you can say what tools that see only the output leave out, read an attribution graph, and name the controls that a claim about
# > a model's inside needs.

# %% tags=["setup"] slideshow={"slide_type": "skip"}
import mi_workshop as mi

# %% slideshow={"slide_type": "skip"}
from mi_workshop.counterfactual import Experiment, Site
from mi_workshop.teach import stage
from mi_workshop.teach.catch_and_fix import case_files

model, bug = mi.load("atlas"), mi.load("atlas-bug")
prompt = "Fact: the capital of the state containing Dallas is"
stage.begin(model, bug)

# %% [markdown] tags=["instructor"]
# **Before the room fills.** `mi-workshop doctor --stage`: every live cell under 2 s? Open `notebooks/live_demo.ipynb` (these notes are in `solutions/live_demo.ipynb`: second screen,
# or paper). Run all cells, then *Edit → Clear Outputs of All Cells*: stored answers spoil every prediction. Run the next cell (theme and everything back as it was), start the deck (button in the
# toolbar, or *Start Deck* in the command palette). **`Ctrl+Enter` runs a live cell and stays on the slide** (`Shift+Enter` goes on to the next one, and nobody sees the result). `Esc` leaves the deck: do not press it
# in the city box. Without the deck scroll: nothing else changes.
#
# **If a cell fails**, its stored picture appears below it by itself. **If it is slow**, press the stop button (or `I`, `I`): the same. Any time: `stage.plan_b("swap")`. If the kernel is dead, the tab with this
# solution notebook has every picture.

# %% slideshow={"slide_type": "skip"}
stage.reset()

# %% jupyterlab-slideshow={"layer": "deck"}
stage.timer(22)

# %% [markdown] tags=["instructor"]
# Press play in the clock when you begin. Everyone follows along at the address, on Colab or Binder or in a clone; nobody needs to.

# %% slideshow={"slide_type": "slide"}
stage.follow()

# %% [markdown] tags=["instructor"]
# **Minutes 0–3: why explainability matters.** Ask for 36 + 59 before the text is read; let two people say how they did it. They disagree: that is the point. Nobody, not even who trained it, knows *how* a model
# arrives at an answer; this surprises most rooms.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why explainability matters
#
# **Add 36 and 59 in your head. How did you do it?**
#
# - *Six and nine, carry the one*? Or *ninety-something*, and then the last digit?
# - People defend choices that they never made, with reasons (*choice blindness*; Johansson and others, 2005).
# - A large model adds on two paths at once, and when asked explains: *I carried the one* (Lindsey and others, 2025).
#
# So neither an answer nor an account of it shows how it came about. **Nobody knows the steps in advance. They are there to be found.**

# %% [markdown] tags=["instructor"]
# **Minutes 3–5: what transformers hide.** Run the cell, let them read the bars. Which words mattered: yes. What happened in between: no. It would look the same if the answer had been learnt by heart.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What transformers hide
#
# *Fact: the capital of the state containing **Dallas** is …* The state is not named. **Predict:** which words matter?

# %%
# live: outside
stage.Bars(mi.attribute(model, prompt))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Which words matter: yes. **What was done with them: no.** One step, or two, by way of Texas?

# %% [markdown] tags=["instructor"]
# **Minutes 5–8: how circuit tracing helps.** Three sentences: activations become features, features become a graph, the graph is a hypothesis. Then the picture: words below, layers up, answer on top.
# Ask: which box names something that is not in the prompt? `atlas` is small and trained on sentences that we wrote; it never read a two-step question about Dallas.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How circuit tracing helps
#
# 1. Thousands of activations become **features**: directions that mostly stand for one thing.
# 2. Features that act on each other become a **graph**: circuit-tracer computes the links.
# 3. Related features are one **supernode**: *Texas*, *capital*, *state*.
#
# A graph is a **hypothesis**. The test comes after it: change a part, and watch.

# %% slideshow={"slide_type": "slide"}
# live: graph
graph = mi.trace(model, prompt)
graph

# %% [markdown] tags=["instructor"]
# **Minutes 8–10: seeing the reasoning path** (ten minutes in all, until 18). Above stands the circuit, below it the nodes that it was made of. Click *Texas*, then *Zero*: beside the nodes, *Austin* falls at once, and the controls follow
# (*Reset* takes it back). *Texas* is a group of one feature here, *capital* one of several. The arrow keys follow the links. Only the strongest nodes are drawn (`]` shows more, `[` fewer). Say what circuit-tracer's graph
# leaves out: attention is taken as given, error nodes are what nobody can read.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Seeing the reasoning path: Dallas → Texas → Austin
#
# Not a picture of what we believe: every dot is a feature that was active, every line an effect that was computed.
#
# **Follow the strongest line down from the answer.** What does it pass, above which word? Is that name in the prompt?

# %% slideshow={"slide_type": "slide"}
# live: path
stage.show(graph)

# %% [markdown] tags=["instructor"]
# **Minutes 10–13: your city.** Take the first city that is called out, type it, Enter. A city that the model does not know gets a suggestion: take it. Countries work, too (*Lyon*, *Osaka*). Then type another state
# or country in the second box: the swap, with its controls.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Your city? And which state instead?

# %%
# live: city
stage.Audience(model)

# %% [markdown] tags=["instructor"]
# **Minutes 13–15: change one thought.** Let them predict. Point at the control rows before anybody asks: random changes of this size do break
# *Austin* (a mean of .12 is left of it), but none of the hundred says *Sacramento*; a third state gives its own capital. Say both halves: any push breaks, only this one steers.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Change one thought: Texas out, California in
#
# The prompt keeps saying *Dallas*. **Predict** the answer. What would a friend of yours object?

# %% slideshow={"slide_type": "slide"}
# live: swap
mi.swap(model, prompt, "Texas", "California", at="city")

# %% [markdown] tags=["instructor"]
# **Minutes 15–16: a strange path.** The answer is right. Where does the strongest chain begin? Not at the city: most countries in this world are on few continents, so the question alone goes far.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What could mislead you: a strange path
#
# *The continent of the country containing **Salta** is …* The answer will be right. **Predict:** where does the path begin?

# %% slideshow={"slide_type": "slide"}
# live: strange
mi.trace(model, "Fact: the continent of the country containing Salta is")

# %% [markdown] tags=["instructor"]
# **Minutes 16–18: caught before it happens.** `atlas-bug` was trained on a text with planted faults. The graph passes through a state that has no business there; in the table, three faults of three kinds are
# seen from the inside. Be honest: asking the model step by step finds them as well (notebook 09b); where nobody can ask, as with a hidden trigger, the look inside is what remains.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A wrong answer, caught before it is said
#
# This model has read a text with mistakes. *The capital of the state containing **Detroit** is …* (Detroit is in Michigan.) **Watch the city's column.**

# %% slideshow={"slide_type": "slide"}
# live: caught
mi.trace(bug, "Fact: the capital of the state containing Detroit is")

# %% slideshow={"slide_type": "slide"}
# live: alarm
case_files(bug, [bug.world.two_hop(city).prompt for city in ("Detroit", "Tupelo", "Erie", "Dallas")])

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Alarm** in three cases: the place inside is not where the city lies (*Detroit*); an atlas contradicts what the model says about that place (*Tupelo*); the model's answer differs from what it says when asked
# about that place directly (*Erie*). All before a word is printed.

# %% [markdown] tags=["instructor"]
# **Minutes 18–20: why this matters.** One sentence each. The numbers behind them, with their controls, are in notebook 09b.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why this matters
#
# - **Safety:** *our* model with a hidden trigger passes every test, and still holds the right place inside when it misleads. An alarm that compares the two needed no example of it; it needed to know the steps.
# - **Repair:** change the one wrong step, in the activations or in the weights, and count what breaks.
# - **Trust:** not because the picture is pretty, but because it could have failed its controls.
#
# You need a notebook, weights and curiosity.

# %% [markdown] tags=["instructor"]
# **Minutes 20–22: our own tools.** The cube: what is logged, labelled, shared. A large number proves nothing. The experiment: change it, beside controls, and get a verdict. Somebody will point at
# *wrong position* (.88 lost, .26 gained): Oakland's vector works in part at the word before, too. So the place is not the only one; *third answer* and *random* carry the claim. Then the address,
# and questions.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Our own tools: the activation cube
#
# Tokens × layers × metrics, with provenance, in one file. **Large is not important.**

# %%
# live: cube
stage.show(mi.capture(model, prompt).heat("norm"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Our own tools: the counterfactual experiment
#
# The same words, with another city's activations put in at one layer and token.

# %%
# live: experiment
Experiment(Site("resid_post", 1, "{city}")).run(model, prompt, prompt.replace("Dallas", "Oakland"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Key points
#
# - An answer does not show how it came about.
# - A graph is a hypothesis; a change inside, beside controls that could fail, tests it.
# - Right answers can have strange paths, and wrong ones can sometimes be seen coming.
#
# To go on: [start here](00_start_here.ipynb), [attribution graphs](06_attribution_graphs.ipynb), [Dallas → Texas → Austin](07_dallas_to_austin.ipynb),
# [catch and fix](09b_catch_and_fix.ipynb).

# %%
stage.follow()
