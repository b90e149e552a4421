"""The buttons of ``teach.guess_the_concept``: a rule is put together from a searchable list of concepts, or typed. Made of ipywidgets alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as w

from mi_workshop.widgets.saliency_controls import said
from mi_workshop.widgets.view import Pictured, Spoken

if TYPE_CHECKING:
    from mi_workshop.teach.guess_the_concept import Game

STYLE = {"description_width": "7em"}
NEXT = {"strong": "Show weak activations", "weak": "Show the answer", "answer": "Next unit"}


class GuessControls(Pictured, w.VBox):
    """``player``, ``text`` (the rule, or words), ``concept`` (searched by typing), ``join`` and the buttons ``add``, ``send`` and ``go`` are controls."""

    def __init__(self, game: Game) -> None:
        self.game = game
        wide = w.Layout(width="34em", max_width="100%")
        self.player = w.Combobox(value=game.players[0] if game.players else "you", description="player", style=STYLE, layout=wide)  # fmt: skip
        names = [n for n in game.found.table.name if n.isprintable()]
        self.concept = w.Combobox(options=names, placeholder="type a part: Texas, capital, answer …", description="concept", style=STYLE, layout=wide)  # fmt: skip
        self.join = w.Dropdown(options=["and", "or", "and not", "or not", "not"], description="joined by", style=STYLE)
        self.add = w.Button(description="Add to the rule")
        self.text = w.Text(placeholder="your rule, or just words", description="your guess", style=STYLE, layout=wide)
        self.send = w.Button(description="Guess", button_style="primary")
        self.go = w.Button(description="", layout=w.Layout(width="auto"))
        self.seen, self.told = w.HTML(), w.HTML()
        super().__init__([
            self.seen, w.HBox([self.player]), w.HBox([self.concept, self.join, self.add]), w.HBox([self.text, self.send, self.go]), self.told, Spoken()
        ])  # fmt: skip
        self.add.on_click(self._add)
        self.send.on_click(self._guess)
        self.go.on_click(self._next)
        self._show()

    @property
    def subject(self) -> Any:
        """Its picture and its words are the game's."""
        return self.game

    def _add(self, button: Any = None) -> None:
        if not (name := self.concept.value.strip()):
            return
        rule, join = self.text.value.strip(), self.join.value
        self.text.value = (
            f"{rule} {join} {name}" if rule and join != "not" else f"not {name}" if join == "not" else name
        )
        self.concept.value = ""
        self.told.value = said([f"Your rule: {self.text.value}."])

    def _guess(self, button: Any = None) -> None:
        try:
            found = self.game.guess(self.text.value, self.player.value)
        except ValueError as error:
            self.told.value = said([str(error)], alert=True)
            return
        self.text.value = ""
        kept = f"Put down for {found.player}: {found.said}."
        self._show([kept] if found.rule else [kept, f"These are words, kept but not scored: {found.why}"])

    def _next(self, button: Any = None) -> None:
        self.game.next()
        self._show()

    def _show(self, lines: list[str] | None = None) -> None:
        self.seen.value = self.game.html()
        self.told.value = said(lines or [])
        self.player.options = tuple(self.game.players)
        self.go.description = NEXT[self.game.step]
        self.go.disabled = self.game.over
        self.send.disabled = self.game.step == "answer"
