"""One warm JupyterLab and one Chromium for all browser tests.

Lab's configuration, data, runtime and IPython folders are private to the run, and so is the copy of the notebooks that
it serves. Nothing may ask for anything outside 127.0.0.1: Chromium resolves no other name, and what it asks for is
recorded and compared. Without Chromium these tests skip, except under CI=true, where they fail.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mi_workshop.course_files import LEFT

ROOT = Path(__file__).parents[2]
ARTIFACTS = Path(__file__).parent / "artifacts"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip
LOCAL = r"(http|ws)://127\.0\.0\.1:\d+/|data:|blob:"  # what a page of Lab may ask for
SECONDS = 120  # for Lab to start, and for a page to load, on a busy machine


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if sync_playwright is None or CHROMIUM is None:
        missing = "Chromium" if sync_playwright else "the Python package playwright"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{missing} is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def watched(browser, allowed):
    """A page of its own; afterwards no request went past the pattern ``allowed``, and no error was raised."""
    page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    page.set_default_timeout(SECONDS * 1000)
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("websocket", lambda socket: requests.append(socket.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        page.context.close()
    assert [url for url in requests if not re.match(allowed, url)] == []
    assert errors == []


@pytest.fixture
def open_html(chromium):
    """Open a self-contained HTML file from disk; it fails if the file asks for anything but itself.

    Used as ``with open_html(path) as page: ...``.
    """

    @contextmanager
    def opened(path):
        address = Path(path).resolve().as_uri()
        with watched(chromium, rf"{re.escape(address)}$|data:|blob:") as page:
            page.goto(address)
            page.wait_for_load_state("networkidle")
            yield page

    return opened


@dataclass
class Lab:
    """A running JupyterLab and the folder that it serves."""

    address: str
    token: str
    folder: Path
    browser: object

    @contextmanager
    def notebook(self, path):
        """Open the notebook at ``path`` (relative to the folder), with its kernel ready."""
        with watched(self.browser, LOCAL) as page:
            page.goto(f"{self.address}/doc/tree/{path}?token={self.token}")
            page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext")
            page.evaluate("jupyterapp.shell.currentWidget.sessionContext.ready")
            yield page
            page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")  # a kernel may hold a model

    @contextmanager
    def cells(self, *cells):
        """Write a notebook of these code cells (sources, or cells with outputs) and open it."""
        path = self.folder / f"{secrets.token_hex(4)}.ipynb"
        code = [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(new_notebook(cells=code, metadata=kernel), path)
        with self.notebook(path.name) as page:
            yield page

    @contextmanager
    def reader(self):
        """A page of Lab, empty, in which notebooks can be opened one after another."""
        with watched(self.browser, LOCAL) as page:
            page.goto(f"{self.address}/lab?token={self.token}")
            page.wait_for_function("window.jupyterapp?.restored")
            page.evaluate("jupyterapp.restored.then(() => null)")
            yield page


@pytest.fixture(scope="session")
def lab(chromium, tmp_path_factory):
    """JupyterLab on a copy of the notebooks, with folders of its own."""
    home = tmp_path_factory.mktemp("lab")
    folder = shutil.copytree(ROOT / "notebooks", home / "notebooks")
    settings = {
        "page_config.json": {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}},
        "default_setting_overrides.json": {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}},
    }
    for name, content in settings.items():
        file = home / "config" / "labconfig" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    private = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }  # fmt: skip
    environment = os.environ | {name: str(home / place) for name, place in private.items()}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "MI_WORKSHOP_OFFLINE": "1", "JUPYTER_NO_CONFIG": ""}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
        LEFT,
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with open(home / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{address}/api/status?token={token}", server, home / "lab.log")
        yield Lab(address, token, folder, chromium)
    finally:
        server.terminate()
        server.wait(20)


def wait_for(url, server, log):
    """Until the server answers; its log if it does not."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            return urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
def artifacts():
    """The folder where screenshots are left to be looked at."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
