"""Ways to group faces, a module each, imported by name and alone.

Each has ``group(vectors)``: labels (N,) of the unit rows (N, 512), float16 and mapped from a file, -1 for no group; and
``warm_up(vectors)``, which brings everything ``group`` will need on some few rows.
"""
