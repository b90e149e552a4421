"""Models are loaded once per test run."""

from pathlib import Path

import pytest

import mi_workshop as mi

REAL = Path(__file__).parents[2] / "shared" / "real_data"


@pytest.fixture(scope="session")
def atlas():
    return mi.load("atlas")


@pytest.fixture(scope="session")
def atlas_clt():
    return mi.load("atlas", transcoders="clt")


@pytest.fixture(scope="session")
def graph(atlas):
    return mi.trace(atlas, "Fact: the capital of the state containing Dallas is")


@pytest.fixture
def real_data():
    """The folder of files made by other people's tools; they may not be shipped, so a public clone lacks it."""
    return REAL


@pytest.fixture
def real_file(real_data):
    def find(name):
        path = real_data / name
        if not path.exists():
            pytest.skip(f"{path} is not there (no licence to ship it could be established)")
        return path

    return find


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """No test reads or writes the user's own cache of what came from the web."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MI_WORKSHOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
