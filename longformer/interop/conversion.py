"""What all conversions share: the record of what became of every tensor, repeated positions, global projections."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longformer.interop.huggingface import PARTS


@dataclass(frozen=True)
class Conversion:
    """What became of every tensor, by name."""

    copied: list[str]
    extended: list[str]
    """The position table, whose rows repeat."""
    initialised: list[str]
    """Global projections, copies of the local ones."""
    left_out: list[str]
    """Tensors of the source that the new model has no place for."""


@dataclass(frozen=True)
class LongModel:
    """A converted model, ready to be written."""

    settings: Mapping[str, Any]
    """Content of config.json."""
    tensors: Mapping[str, Tensor]
    tokenizer_class: str
    """Class of the source's tokenizer, for checkpoints that leave it to the family's name."""
    new_rows: int
    """How many rows at the end of the position table repeat the source's own."""
    report: Conversion


def repeated_rows(table: Tensor, *, first: int, max_length: int) -> Tensor:
    """Returns max_length rows that repeat those of a position table from row `first` on, block by block.

    Raises:
        ValueError: max_length would make the model shorter.
    """
    known = len(table) - first
    if max_length < known:
        raise ValueError(f"max_length must be at least the {known} tokens that the source reads, not {max_length}")
    return table[first + torch.arange(max_length) % known]


def copy_to_global(tensors: dict[str, Tensor]) -> list[str]:
    """Adds a copy of every local projection as the global one where there is none; return the new names."""
    new = {}
    for name, tensor in tensors.items():
        for part in PARTS:
            twin = name.replace(f".{part}.", f".{part}_global.")
            if twin != name and twin not in tensors:
                new[twin] = tensor.clone()
    tensors |= new
    return sorted(new)
