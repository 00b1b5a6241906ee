"""Photos as bytes and as pixels: where they may be read from, how they become upright, and how faces are cut out of
them.
"""
