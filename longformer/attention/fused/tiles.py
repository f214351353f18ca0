"""The tile table: which tile shape, warps and pipeline stages each kernel takes, by GPU, precision and head dim.

No entry was timed yet. They were chosen by offline compilation: nothing spills, shared memory and registers fit.
"""

from dataclasses import dataclass
from typing import Literal

import torch

Kind = Literal["plain", "dropout", "relative"]


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
    global_gradient: Tile
    """keeps global keys, walks over queries"""
    relative_gradient: Tile
    """keeps band columns, walks over queries"""
    globals_at_once: int = 16
    """global keys that the forward and query gradient kernels take in a step"""


_GLOBAL, _RELATIVE = Tile(16, 64, 4, 2), Tile(64, 64, 8, 1)


def choose_tiles(major: int, dtype: torch.dtype, head_dim: int, kind: Kind) -> TileSet:
    """Return the tiles for a GPU of compute capability `major`; an unknown one gets the table of the oldest."""
    generation = 9 if major == 9 else 8
    return _TABLE[generation, dtype.itemsize, padded_head_dim(head_dim), kind]


def padded_head_dim(head_dim: int) -> int:
    """Return the power of two that a kernel's tiles are wide."""
    return max(16, 1 << (head_dim - 1).bit_length())


_TABLE = {
    (generation, size, width, kind): TileSet(
        Tile(128, 64, 8, 2), Tile(128, 64, 8, 2), Tile(128, 64, 8, 2), _GLOBAL, _RELATIVE
    )
    if kind != "relative"
    else TileSet(*(Tile(64, 64, 8, 1),) * 3, _GLOBAL, _RELATIVE)
    for generation in (8, 9)
    for size in (2, 4)
    for width in (16, 32, 64, 128)
    for kind in ("plain", "dropout", "relative")
}
