"""Interactive views for notebooks and saved pages: one Python and one JavaScript file each, no server and no network."""
