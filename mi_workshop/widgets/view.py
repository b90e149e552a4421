"""What the views share: one module of JavaScript each, and a picture and a sentence beside it for where no widget can run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anywidget

from mi_workshop.files import write, write_text
from mi_workshop.show import VIEW

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
STYLE = (HERE / "graph_view.css").read_text(
    encoding="utf-8"
)  # colours, buttons, answers and pages, the same in all views


def module(name: str) -> str:
    """The view ``name`` (a JavaScript file) with what it imports from common.js written out: a widget is one module."""
    lines = (HERE / name).read_text(encoding="utf-8").split("\n")
    kept = [line for line in lines if not (line.startswith("import ") and './common.js"' in line)]
    return (HERE / "common.js").read_text(encoding="utf-8") + "\n".join(kept)


class Pictured:
    """What a widget of any kind also stores in a notebook: a picture and a sentence. Goes before the widget's class."""

    def figure(self) -> Figure:
        """The view as a picture."""
        raise NotImplementedError

    def describe(self) -> str:
        """The view in words, for a screen reader and where no picture can be shown."""
        raise NotImplementedError

    @property
    def subject(self) -> Any:
        """What has the ``figure`` and the ``describe`` of this view: the view, or what it shows."""
        return self

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """No HTML: it would win over the widget."""
        from mi_workshop.plots import png

        figure, sentence = self.subject.figure(), self.subject.describe()
        own = getattr(super(), "_repr_mimebundle_", lambda **_: None)(**kwargs)  # ipywidgets 7 has none
        data, metadata = own if isinstance(own, tuple) else (own or {}, {})
        view = {"version_major": 2, "version_minor": 0, "model_id": cast(Any, self).model_id}
        data = {VIEW: view} | data | {"text/plain": sentence}
        data["image/png"] = base64.b64encode(png(figure, dpi=120)).decode()
        return data, metadata | {"image/png": {"alt": sentence, "width": int(figure.get_figwidth() * 80)}}

    def _ipython_display_(self, **kwargs: Any) -> None:
        """ipywidgets 7 shows itself this way, and would leave out the picture and the sentence."""
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)


class Spoken(anywidget.AnyWidget):
    """An invisible child of a box of ipywidgets' controls: their keys work in JupyterLab, sliders have names, and a live region says what ``said`` shows."""

    _esm = HERE / "controls.js"


class View(Pictured, anywidget.AnyWidget):
    """A widget of our own that also stores a picture and a sentence; subclasses define ``figure`` and ``describe``, or ``subject``."""

    saved: tuple[str, ...] = ()  # traits that a saved page keeps
    before_script = ""  # what a saved page needs in front of the module

    def save(self, path: str | Path) -> Path:
        """Write the view as one ``.html`` file that opens offline, or its picture as ``.png`` or ``.svg``.

        Raises ValueError for another suffix.
        """
        from mi_workshop.widgets.standalone import document

        path = Path(path)
        if path.suffix == ".html":
            state = {name: getattr(self, name) for name in self.saved}
            script = self.before_script + str(self._esm)
            return write_text(path, document(self.figure(), self.describe(), state, script, str(self._css)))
        if path.suffix in (".png", ".svg"):
            return write(path, lambda p: self.figure().savefig(p, format=path.suffix[1:], dpi=160))
        raise ValueError(
            f"A view is saved as .html, .png or .svg, not as {path.suffix or 'a file without a suffix'!r}."
        )
