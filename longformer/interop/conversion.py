"""What all conversions share: the record of what became of every tensor, repeated positions, global projections."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.interop.fitting import HEADS, misfits, part_of
from longformer.interop.huggingface import PARTS, config_class, config_from_json
from longformer.interop.sources import check_length, setting


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
    equal_length: int
    """Tokens of the longest text that the new model reads exactly as its source does."""


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
    check_length(known, max_length)
    return table[first + torch.arange(max_length) % known]


def architecture_of(settings: Mapping[str, Any]) -> str:
    """Returns the class that config.json names; that of a model without a head where it names none."""
    return str(next(iter(setting(settings, "architectures", [])), "Model"))


def attention_window(window: int | None, *, layers: int) -> dict[str, list[int]]:
    """Returns what config.json of a new model says of its windows beside its source's; None: nothing else."""
    return {} if window is None else {"attention_window": [window] * layers}


def equal_length(settings: Mapping[str, Any], *, known: int, window: int | None) -> int:
    """Returns up to how many tokens a new model equals its source.

    That is as long as every token sees every other in both, or as the source reads where both have the same windows.

    Args:
        settings: config.json of the source.
        known: tokens that the source reads.
        window: of the new model, both sides together; None = as in the source.
    """
    if window is None:
        return known
    kind = config_class(settings)
    if kind is None:
        return min(known, window // 2 + 1)
    windows = config_from_json(settings, kind).attention_window
    assert isinstance(windows, tuple)
    return known if set(windows) == {window} else min(known, min(window, *windows) // 2 + 1)


def check_rows(settings: Mapping[str, Any], name: str, table: Tensor, *, unused: int = 0) -> None:
    """Raises LongformerError where config.json says another number of positions than a table has rows.

    Args:
        settings: config.json.
        name: the key that says how many.
        table: (rows, width).
        unused: how many rows it has besides.
    """
    said, there = settings.get(name), len(table) - unused
    if said not in (None, there):
        raise LongformerError(
            f"config.json says {name} {said}, but the weights have {there} positions: correct whichever is wrong"
        )


def check_shapes(made: LongModel, expected: Mapping[str, Tensor]) -> None:
    """Raises LongformerError where a source's config.json describes other tensors than its weights are.

    Args:
        made: what became of the source.
        expected: the tensors that its config describes, by name; heads may be missing.
    """
    compared = {name for name in expected.keys() | made.tensors.keys() if part_of(name) not in HEADS}
    compared |= expected.keys() & made.tensors.keys()
    problems = misfits(*({name: each[name] for name in each.keys() & compared} for each in (made.tensors, expected)))
    if problems:
        raise LongformerError(f"config.json does not describe the weights beside it: {'; '.join(problems)}")


def copy_to_global(tensors: dict[str, Tensor]) -> list[str]:
    """Adds a copy of every local projection as the global one where there is none; returns the new names."""
    new = {}
    for name, tensor in tensors.items():
        for part in PARTS:
            twin = name.replace(f".{part}.", f".{part}_global.")
            if twin != name and twin not in tensors:
                new[twin] = tensor.clone()
    tensors |= new
    return sorted(new)
