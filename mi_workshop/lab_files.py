"""How ``mi-workshop lab`` reads notebooks: one that was left is opened with the pictures of its views, not with errors in their place.

A saved notebook names its widgets and does not hold them. Where their kernel is gone, JupyterLab looks for them all the same, and says "Error displaying
widget", although the picture of each view stands beside its name. So a notebook that no kernel runs is opened without these names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from mi_workshop.show import VIEW, image


def still(outputs: Iterable[dict[str, Any]]) -> None:
    """Put the picture and its words in place of each widget that has them, as an image with alt text (JupyterLab gives a PNG none)."""
    for output in outputs:
        data = output.get("data", {})
        if VIEW in data and "image/png" in data:
            del data[VIEW]
            width = output["metadata"].get("image/png", {}).get("width", 900)
            data["text/html"] = image("".join(data["image/png"]).strip(), "".join(data.get("text/plain", "")), width)


class Notebooks(AsyncLargeFileManager):
    """JupyterLab's own way to read and write files, but for views whose kernel is gone."""

    async def get(self, path: str, content: bool = True, *args: Any, **options: Any) -> dict[str, Any]:
        model: dict[str, Any] = await super().get(path, content, *args, **options)
        server: Any = self.parent
        if content and model["type"] == "notebook" and "widgets" not in model["content"]["metadata"]:
            running = await server.session_manager.list_sessions()
            if path.strip("/") not in {session["path"].strip("/") for session in running}:
                for cell in model["content"]["cells"]:
                    still(cell.get("outputs", []))
        return model
