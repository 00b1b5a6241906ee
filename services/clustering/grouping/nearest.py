"""Sorted lists of the nearest: compiled loops that push products into them.

A list is one row of two arrays, ``neighbours`` (int32, -1 where there is none yet) and ``similarities`` (float32 cosines, or
int32 products of bytes), best first. Its last similarity is the bar the next must pass. Of equals the smaller neighbour
comes first, so lists do not depend on the order things are pushed in.

Products are looked at in strips as wide as a vector register: a count tells whether anything in a strip could enter a list,
which is almost never. The functions work for both kinds of number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled, compiled_sums
from services.clustering.grouping.vectors import AnyVectors

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float32] | npt.NDArray[np.int32]

_STRIP = 16


@compiled
def insert_neighbour(
    neighbours: Ints, similarities: Numbers, row: int, other: int, value: np.float32 | np.int32
) -> None:
    """Put ``other`` into the list of ``row``, unless it is there already or not better than the last."""
    length = neighbours.shape[1]
    place = length
    while place > 0:
        before = similarities[row, place - 1]
        if before > value or (before == value and neighbours[row, place - 1] <= other):
            break
        place -= 1
    if place == length:
        return
    if place > 0 and neighbours[row, place - 1] == other and similarities[row, place - 1] == value:
        return
    for position in range(length - 1, place, -1):
        similarities[row, position] = similarities[row, position - 1]
        neighbours[row, position] = neighbours[row, position - 1]
    similarities[row, place] = value
    neighbours[row, place] = other


@compiled
def push_pairs(product: Numbers, first_row: int, first_column: int, neighbours: Ints, similarities: Numbers) -> None:
    """Push a block of all pairs into the lists of its rows and, off the diagonal, of its columns."""
    rows, columns = product.shape
    last = neighbours.shape[1] - 1
    diagonal = first_row == first_column
    whole = columns - columns % _STRIP
    bars = np.empty(columns, similarities.dtype)
    for j in range(columns):
        bars[j] = similarities[first_column + j, last]
    for i in range(rows):
        row = first_row + i
        bar = similarities[row, last]
        for start in range(0, columns, _STRIP):
            if start < whole:
                hits = 0
                for j in range(start, start + _STRIP):
                    hits += (product[i, j] >= bar) | (product[i, j] >= bars[j])
                if hits == 0:
                    continue
            for j in range(start, min(columns, start + _STRIP)):
                column = first_column + j
                if column == row:
                    continue
                if product[i, j] >= bar:
                    insert_neighbour(neighbours, similarities, row, column, product[i, j])
                    bar = similarities[row, last]
                if not diagonal and product[i, j] >= bars[j]:
                    insert_neighbour(neighbours, similarities, column, row, product[i, j])
                    bars[j] = similarities[column, last]


@compiled
def push_rows(
    product: Numbers, rows: Ints, names: Ints, columns: Ints, neighbours: Ints, similarities: Numbers
) -> None:
    """Push ``product`` (m, n) into the lists ``rows`` (m,) only. ``columns`` (n,) are the neighbours' names, ``names`` (m,)
    the rows' own, which are left out.
    """
    last = neighbours.shape[1] - 1
    width = len(columns)
    whole = width - width % _STRIP
    for i in range(len(rows)):
        row = rows[i]
        bar = similarities[row, last]
        for start in range(0, width, _STRIP):
            if start < whole:
                hits = 0
                for j in range(start, start + _STRIP):
                    hits += product[i, j] >= bar
                if hits == 0:
                    continue
            for j in range(start, min(width, start + _STRIP)):
                if product[i, j] >= bar and columns[j] != names[i]:
                    insert_neighbour(neighbours, similarities, row, columns[j], product[i, j])
                    bar = similarities[row, last]


@compiled
def push_back(first: int, end: int, neighbours: Ints, similarities: Floats) -> None:
    """Tell the neighbours of rows ``first``..``end`` of them: who is near must know it, too."""
    for row in range(first, end):
        for place in range(neighbours.shape[1]):
            other = neighbours[row, place]
            if other < 0:
                break
            insert_neighbour(neighbours, similarities, other, row, similarities[row, place])


@compiled_sums
def rescore_floats(vectors: Floats, first: int, candidates: Ints, neighbours: Ints, similarities: Floats) -> None:
    """Push ``candidates`` (m, c; -1 ends a row) of rows ``first``.. of float32 unit rows by their cosines into the lists
    (m, k).
    """
    for i in range(len(candidates)):
        row = first + i
        for place in range(candidates.shape[1]):
            other = candidates[i, place]
            if other < 0:
                break
            cosine = np.float32(0.0)
            for d in range(vectors.shape[1]):
                cosine += vectors[row, d] * vectors[other, d]
            insert_neighbour(neighbours, similarities, i, other, cosine)


@compiled_sums
def rescore_halves(
    bits: npt.NDArray[np.uint16], first: int, candidates: Ints, neighbours: Ints, similarities: Floats
) -> None:
    """As :func:`rescore_floats`, of float16 rows given as their bits.

    The bits of a float16, moved to where a float32 has its own, are the number times 2^-112 (the exponents' biases differ
    by that much); subnormal ones included.
    """
    dimension = bits.shape[1]
    moved = np.empty(dimension, np.uint32)
    small = moved.view(np.float32)
    own = np.empty(dimension, np.float32)
    bias = np.float32(2.0**112)
    for i in range(len(candidates)):
        for d in range(dimension):
            half = np.uint32(bits[first + i, d])
            moved[d] = ((half & np.uint32(0x8000)) << np.uint32(16)) | ((half & np.uint32(0x7FFF)) << np.uint32(13))
        for d in range(dimension):
            own[d] = small[d] * bias
        for place in range(candidates.shape[1]):
            other = candidates[i, place]
            if other < 0:
                break
            for d in range(dimension):
                half = np.uint32(bits[other, d])
                moved[d] = ((half & np.uint32(0x8000)) << np.uint32(16)) | ((half & np.uint32(0x7FFF)) << np.uint32(13))
            cosine = np.float32(0.0)
            for d in range(dimension):
                cosine += own[d] * (small[d] * bias)
            insert_neighbour(neighbours, similarities, i, other, cosine)


@compiled
def add_rows(rows: npt.NDArray[np.uint8], labels: Ints, sums: Ints) -> None:
    """Add each of ``rows`` (m, D; bytes about zero point 128) to the sum (cells, D) of its label."""
    for i in range(len(rows)):
        for d in range(rows.shape[1]):
            sums[labels[i], d] += np.int32(rows[i, d]) - 128


def rescore(vectors: AnyVectors, first: int, candidates: Ints, neighbours: Ints, similarities: Floats) -> None:
    """Push ``candidates`` (m, c) of rows ``first``.. of unit ``vectors`` (N, D), float32 or float16, by their float32
    cosines into the lists (m, k).
    """
    if vectors.dtype == np.float16:
        rescore_halves(np.asarray(vectors).view(np.uint16), first, candidates, neighbours, similarities)
    else:
        rescore_floats(np.asarray(vectors), first, candidates, neighbours, similarities)


def make_lists(count: int, length: int, floor: float) -> tuple[Ints, Floats]:
    """Empty lists (count, length) for cosines above ``floor``."""
    return np.full((count, length), -1, dtype=np.int32), np.full((count, length), floor, dtype=np.float32)


def make_product_lists(count: int, length: int, floor: int) -> tuple[Ints, Ints]:
    """Empty lists (count, length) for products of bytes above ``floor``."""
    return np.full((count, length), -1, dtype=np.int32), np.full((count, length), floor, dtype=np.int32)
