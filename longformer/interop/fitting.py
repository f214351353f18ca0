"""Which tensors of a checkpoint fit a model: all or, with every reason listed, none; a head may be new or unused."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from longformer.errors import LongformerError
from longformer.interop.huggingface import BASE

log = logging.getLogger(__name__)

# Parts that not every model has: a checkpoint may lack one altogether, or bring one that the model does not want.
HEADS = (
    "lm_head",
    "final_logits_bias",
    "classifier",
    "qa_outputs",
    "candidate_score",
    "multi_hop",
    "coreference",
    "pooler",
)


def fit(
    saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the saved tensors that a model takes, and the names of those that start fresh.

    Raises:
        LongformerError: lists every missing, unknown and misshapen tensor.
    """
    kept_heads = {part_of(name) for name in expected.keys() & saved.keys()} & set(HEADS)
    fresh = [name for name in expected if part_of(name) in set(HEADS) - kept_heads]
    usable = {name: tensor for name, tensor in saved.items() if part_of(name) not in set(HEADS) - kept_heads}
    problems = misfits(usable, {name: tensor for name, tensor in expected.items() if name not in fresh})
    if problems:
        raise LongformerError(f"the weights in {source} do not fit the model: {'; '.join(problems)}")
    for name in sorted({part_of(name) for name in fresh}):
        log.warning("%s has no %s: it starts with fresh weights", source, name)
    for name in sorted({part_of(name) for name in saved.keys() - usable.keys()}):
        log.warning("%s of %s is not used by this model", name, source)
    return usable, fresh


def misfits(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Returns a sentence for every missing, unknown and misshapen tensor, in alphabetical order."""
    problems = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{name} is unknown" for name in tensors.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    return sorted(problems)


def without_copies(tensors: Mapping[str, Tensor], tied: Sequence[str]) -> dict[str, Tensor]:
    """Returns the tensors with one of those that are meant to be one, the first there is, under their first name."""
    kept = {name: tensor for name, tensor in tensors.items() if name not in tied}
    there = [tensors[name] for name in tied if name in tensors]
    return kept | {tied[0]: there[0]} if there else kept


def part_of(name: str) -> str:
    """Returns the head that a tensor belongs to; tensors of the encoder belong to one part without a head's name."""
    part = name.partition(".")[0]
    return "pooler" if name.startswith(f"{BASE}pooler.") else part
