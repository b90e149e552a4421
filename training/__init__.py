"""How the models that ship are trained and measured; not part of the installed package. ``python -m training NAME`` in a clone."""
