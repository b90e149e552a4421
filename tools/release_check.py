"""Refuse a release while the public address in pyproject.toml is still the placeholder: ``make release-check``."""

import sys
import tomllib
from pathlib import Path

address = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
if "/OWNER/" in address:
    sys.exit(f"Not ready to release: [project.urls] in pyproject.toml still has the placeholder {address}")
print(f"The address is {address}")
