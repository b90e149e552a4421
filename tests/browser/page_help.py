"""What the browser tests of views share."""

import pytest
from axe_playwright_python.sync_playwright import Axe


def trait(page, name):
    """A trait of the view that the page shows."""
    return page.evaluate(f"graphModel.get('{name}')")


def until(page, expression):
    """Wait until JavaScript is true; the page's own policy forbids the evaluation by which Playwright would wait."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"still not true: {expression}")


def violations(page, context):
    """What axe finds wrong inside ``context``: (rule, [start of each node])."""
    found = Axe().run(page, context=context).response["violations"]
    return [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found]
