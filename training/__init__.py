"""How the models that ship are trained and measured; not part of the installed package. ``python -m training NAME`` in a clone."""

import mi_workshop  # noqa: F401  before torch: it says how torch's threads wait
