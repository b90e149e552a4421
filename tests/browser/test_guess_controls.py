"""The class activity in a real JupyterLab: a table picks concepts, guesses, sees weak activations and its score."""

from test_lab import CELLS, RUN_ALL, screenshot

SOURCE = [
    "import mi_workshop as mi\nfrom mi_workshop.teach.guess_the_concept import guess_the_concept",
    "game = guess_the_concept(mi.load('atlas'), rounds=1, layer=1)\ngame",
]


def test_a_round_with_the_mouse(lab, artifacts):
    """On a projector nobody types Python: the buttons, the list of concepts and the score must work as shown."""
    with lab.cells(*SOURCE) as page:
        page.evaluate(RUN_ALL)
        (stored,) = page.evaluate(CELLS)[1]["outputs"]
        assert {"image/png", "text/plain"} < set(stored["data"])
        game = page.locator(".jp-CodeCell .jp-Cell-outputWrapper").nth(1)
        game.get_by_text("Unit 1 of 1").first.wait_for()
        player, concept, guess = (game.get_by_role("combobox").nth(0), game.get_by_role("combobox").nth(1), game.get_by_role("textbox").last)  # fmt: skip
        player.fill("table <b>3")
        player.press("Tab")
        concept.fill("a place in Europe")
        concept.press("Tab")
        game.get_by_role("button", name="Add to the rule").click()
        page.wait_for_function(
            "Array.from(document.querySelectorAll('input')).some(i => i.value === 'a place in Europe')"
        )
        game.get_by_role("button", name="Guess", exact=True).click()
        game.get_by_text("Put down for table <b>3: a place in Europe.").first.wait_for()
        assert guess.input_value() == ""
        game.get_by_role("button", name="Show weak activations").click()
        game.get_by_text("silent").first.wait_for()
        size = game.get_by_text("silent").first.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
        assert size >= 18  # pixels: from the back of a room
        screenshot(page, artifacts / "guess-weak.png")
        game.get_by_role("button", name="Show the answer").click()
        game.get_by_text("rule search").first.wait_for()
        assert game.get_by_role("button", name="Next unit").is_disabled()
        screenshot(page, artifacts / "guess-answer.png")
