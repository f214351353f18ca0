"""Dropout on a CPU that saves a seed instead of a mask, where PyTorch saves four bytes an element."""

import torch
from torch import Tensor

from longformer.cpu.buffer_pool import empty_like

# Numbers of 16 bits, of which a draw of 64 holds four: PyTorch's own draws cost the CPU several times as much.
DRAWS = 2**16
DRAWS_PER_NUMBER = 4


def draw_kept(out: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """Fills `out` with 0 for what dropout drops and 1 for what it keeps; every element on its own.

    Args:
        out: contiguous, floating.
        dropout: probability of 0, at least 0 and less than 1; held to the nearest 1 / 65,536.
        generator: on the device of `out`.
    """
    numbers = torch.empty(-(-out.numel() // DRAWS_PER_NUMBER), dtype=torch.int64, device=out.device)
    numbers.random_(-(2**63), None, generator=generator)
    draws = numbers.view(torch.int16)[: out.numel()].view(out.shape)
    return torch.ge(draws, _dropped(dropout) - DRAWS // 2, out=out)


def factor_of_kept(dropout: float) -> float:
    """Returns what makes up for the zeros of `draw_kept`."""
    return DRAWS / (DRAWS - _dropped(dropout))


def _dropped(dropout: float) -> int:
    """Returns how many of all draws drop an element."""
    return min(round(dropout * DRAWS), DRAWS - 1)


# Elements whose draws stay in a second-level cache.
DROPOUT_CHUNK = 2**18


def dropped(tensor: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Returns `tensor` with elements dropped; the same state of the generator drops the same ones."""
    result = empty_like(tensor)
    given, elements = tensor.flatten(), result.view(-1)
    for first in range(0, elements.numel(), DROPOUT_CHUNK):
        chunk = slice(first, first + DROPOUT_CHUNK)
        kept = draw_kept(elements[chunk], probability, generator)
        kept.mul_(given[chunk]).mul_(factor_of_kept(probability))
    return result


def new_seed() -> int:
    """Returns a seed drawn from PyTorch's generator of the CPU."""
    return int(torch.randint(2**62, ()))


def generator_of(seed: int) -> torch.Generator:
    """Returns the generator that a seed stands for."""
    return torch.Generator().manual_seed(seed)
