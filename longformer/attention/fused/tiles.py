"""The tile table: which tile shape, warps and pipeline stages each kernel takes, by GPU, precision and head dim.

No entry was timed yet. They were chosen by offline compilation: nothing spills, shared memory and registers fit. On
compute capability 9 with heads of 64, two or three programs fit on a multiprocessor: while one computes a softmax,
another multiplies.
"""

import logging
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

log = logging.getLogger(__name__)

Kind = Literal["plain", "dropout", "relative"]
"""The relative term may come with dropout, but never with global keys."""

GLOBALS_AT_ONCE = 16
"""Global keys that the forward and query gradient kernels take in a step."""

TRITON_RELEASES = {9: ("3.6", "3.7"), 10: ("3.7",)}
"""With each of which the tiles of a compute capability were compiled. Another compiler may need other tiles, so others
get the safe ones."""

CHUNK = 256
"""Where few global tokens meet all tokens of a sequence, a program takes so many of these, times the groups of global
tokens: enough programs to fill a GPU, and what they leave to be added stays far smaller than the keys. Derived neither
from the GPU nor from the batch, so that the order of summation, and with it the result, is the same in each."""

PROGRAMS = 1024
"""The gradient of the relative keys is summed by about so many programs: enough to fill a GPU, few enough that what
they leave to be added takes little memory. Not derived from the GPU either."""


@dataclass(frozen=True)
class Tile:
    """How one kernel cuts its work: rows it keeps, rows it walks over in a step, warps and pipeline stages."""

    rows: int
    step: int
    warps: int
    stages: int


@dataclass(frozen=True)
class TileSet:
    """The tiles of all kernels for one kind of call. The relative term needs rows == step in the first three."""

    forward: Tile
    """keeps queries, walks over keys"""
    query_gradient: Tile
    """keeps queries, walks over keys"""
    key_gradient: Tile
    """keeps keys, walks over queries"""
    extra_gradient: Tile
    """keeps global keys or, in calls with the relative term, band columns; walks over queries. The kernels
    of global attention, which keep queries in place of global keys, take it too."""


@cache
def choose_tiles(major: int, triton_version: str, dtype: torch.dtype, head_dim: int, kind: Kind) -> TileSet:
    """Returns the tiles for a GPU of compute capability `major`.

    A GPU or a Triton that the table does not know gets the tiles of compute capability 8, which ask for the least.
    """
    call = dtype.itemsize, max(32, padded_head_dim(head_dim)), kind
    shapes = _TABLE[_generation(major, triton_version, *call), *call]
    return TileSet(*(Tile(*shape) for shape in shapes))


def _generation(major: int, triton_version: str, itemsize: int, width: int, kind: Kind) -> int:
    """Returns the compute capability whose tiles are taken; logs it where it is not the GPU's own."""
    release = ".".join(triton_version.split(".")[:2])
    if (major, itemsize, width, kind) in _TABLE and release in TRITON_RELEASES.get(major, ()):
        return major
    if major > 8:
        log.warning(
            "fused attention takes the tiles of compute capability 8 on this GPU of capability %d with Triton %s, for "
            "heads of %d in %d bits (%s): none were compiled for it; it may be slower",
            major, triton_version, width, 8 * itemsize, kind,
        )  # fmt: skip
    return 8


def padded_head_dim(head_dim: int) -> int:
    """Returns the power of two that a kernel's tiles are wide."""
    return max(16, 1 << (head_dim - 1).bit_length())


# (generation, bytes of an element, padded head_dim, kind): forward, query gradient, key gradient, and the gradient of
# global keys or, for "relative", of the relative keys; each (rows, step, warps, stages).
_TABLE: dict[tuple[int, int, int, Kind], tuple[tuple[int, int, int, int], ...]] = {
    (10, 2, 64, "plain"): ((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (16, 64, 4, 2)),
    (10, 2, 64, "dropout"): ((64, 64, 4, 3), (64, 64, 4, 3), (64, 32, 4, 2), (16, 64, 4, 2)),
    (10, 2, 64, "relative"): ((32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 4, 1)),
    (9, 2, 32, "plain"): ((128, 128, 8, 2), (128, 64, 8, 2), (128, 64, 8, 2), (16, 64, 4, 2)),
    (9, 2, 32, "dropout"): ((128, 64, 8, 3), (128, 64, 8, 2), (128, 64, 8, 2), (16, 64, 4, 2)),
    (9, 2, 32, "relative"): ((32, 32, 4, 1), (16, 16, 4, 1), (32, 32, 4, 1), (32, 32, 8, 1)),
    (9, 2, 64, "plain"): ((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (16, 64, 4, 2)),
    (9, 2, 64, "dropout"): ((64, 64, 4, 3), (64, 64, 4, 3), (64, 32, 4, 2), (16, 64, 4, 2)),
    (9, 2, 64, "relative"): ((32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 4, 1)),
    (9, 2, 128, "plain"): ((128, 64, 8, 3), (128, 64, 8, 2), (64, 32, 8, 2), (16, 64, 4, 2)),
    (9, 2, 128, "dropout"): ((128, 64, 8, 3), (128, 64, 8, 2), (64, 32, 8, 2), (16, 64, 4, 2)),
    (9, 2, 128, "relative"): ((32, 32, 4, 1), (32, 32, 8, 1), (16, 16, 8, 1), (32, 32, 8, 1)),
    (9, 4, 32, "plain"): ((64, 32, 4, 1), (32, 32, 4, 1), (32, 16, 4, 1), (16, 32, 4, 1)),
    (9, 4, 32, "dropout"): ((64, 32, 4, 1), (32, 32, 4, 1), (32, 16, 4, 1), (16, 32, 4, 1)),
    (9, 4, 32, "relative"): ((16, 16, 4, 1), (16, 16, 4, 1), (16, 16, 8, 1), (16, 16, 4, 1)),
    (9, 4, 64, "plain"): ((64, 32, 4, 1), (32, 32, 4, 1), (16, 16, 4, 1), (16, 32, 4, 1)),
    (9, 4, 64, "dropout"): ((64, 32, 4, 1), (32, 16, 4, 1), (16, 16, 4, 1), (16, 32, 4, 1)),
    (9, 4, 64, "relative"): ((16, 16, 4, 1), (16, 16, 4, 1), (16, 16, 8, 1), (16, 16, 8, 1)),
    (9, 4, 128, "plain"): ((16, 16, 4, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1)),
    (9, 4, 128, "dropout"): ((16, 16, 4, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1)),
    (8, 2, 32, "plain"): ((128, 128, 8, 2), (128, 64, 8, 2), (64, 64, 8, 1), (16, 64, 4, 2)),
    (8, 2, 32, "dropout"): ((128, 128, 8, 2), (128, 64, 8, 2), (64, 32, 4, 2), (16, 64, 4, 2)),
    (8, 2, 32, "relative"): ((32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 8, 1)),
    (8, 2, 64, "plain"): ((128, 128, 8, 2), (64, 64, 8, 2), (64, 32, 4, 1), (16, 64, 4, 2)),
    (8, 2, 64, "dropout"): ((128, 64, 8, 2), (64, 32, 4, 2), (32, 32, 4, 2), (16, 64, 4, 2)),
    (8, 2, 64, "relative"): ((32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 8, 1)),
    (8, 2, 128, "plain"): ((128, 64, 8, 2), (64, 32, 4, 2), (64, 32, 8, 2), (16, 64, 4, 2)),
    (8, 2, 128, "dropout"): ((128, 64, 8, 2), (32, 32, 4, 2), (32, 32, 4, 2), (16, 64, 4, 2)),
    (8, 2, 128, "relative"): ((32, 32, 4, 1), (32, 32, 8, 1), (32, 32, 8, 1), (32, 32, 8, 1)),
    (8, 4, 32, "plain"): ((64, 32, 4, 1), (32, 32, 4, 1), (32, 16, 4, 1), (16, 32, 4, 1)),
    (8, 4, 32, "dropout"): ((64, 32, 4, 1), (32, 32, 4, 1), (32, 16, 4, 1), (16, 32, 4, 1)),
    (8, 4, 32, "relative"): ((16, 16, 8, 1), (16, 16, 4, 1), (16, 16, 4, 1), (16, 16, 4, 1)),
    (8, 4, 64, "plain"): ((32, 32, 4, 1), (32, 32, 4, 1), (16, 16, 4, 1), (16, 32, 4, 1)),
    (8, 4, 64, "dropout"): ((32, 32, 4, 1), (32, 16, 4, 1), (16, 16, 4, 1), (16, 32, 4, 1)),
    (8, 4, 64, "relative"): ((16, 16, 4, 1), (16, 16, 4, 1), (16, 16, 8, 1), (16, 16, 8, 1)),
    (8, 4, 128, "plain"): ((16, 16, 4, 1), (16, 16, 8, 1), (16, 32, 8, 1), (16, 16, 8, 1)),
    (8, 4, 128, "dropout"): ((16, 16, 4, 1), (16, 16, 8, 1), (16, 32, 8, 1), (16, 16, 8, 1)),
}
