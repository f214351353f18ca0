"""Dropout that keeps a seed instead of a mask, where PyTorch would keep four bytes an element: on the CPU."""

from typing import Any

import torch
from torch import Tensor, nn

from longformer.cpu.buffer_pool import empty_like

# Numbers of 16 bits, of which a draw of 64 holds four: PyTorch's own draws cost the CPU several times as much.
DRAWS = 2**16
DRAWS_PER_NUMBER = 4


def draw_kept(out: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """Fill `out` with 0 for what dropout drops and 1 for what it keeps; every element on its own.

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
    """Return what makes up for the zeros of `draw_kept`."""
    return DRAWS / (DRAWS - _dropped(dropout))


def _dropped(dropout: float) -> int:
    """Return how many of all draws drop an element."""
    return min(round(dropout * DRAWS), DRAWS - 1)


# Elements whose draws stay in a second-level cache.
DRAWN_AT_ONCE = 2**18


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, which draws again in backward on the CPU."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return `hidden` with elements dropped while training."""
        if not self.active or hidden.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(hidden)
        output: Tensor = SeededDropout.apply(hidden, self.p, new_seed())
        return output

    @property
    def active(self) -> bool:
        """Whether anything is dropped."""
        return self.training and self.p > 0


class SeededDropout(torch.autograd.Function):
    """Dropout drawn from a seed, forward and again backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, probability: float, seed: int) -> Tensor:
        ctx.draw = probability, seed
        return dropped(hidden, probability, generator_of(seed))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        probability, seed = ctx.draw
        return dropped(gradients[0], probability, generator_of(seed)), None, None


def dropped(tensor: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return `tensor` with elements dropped; the same state of the generator drops the same ones."""
    result = empty_like(tensor)
    given, elements = tensor.flatten(), result.view(-1)
    for first in range(0, elements.numel(), DRAWN_AT_ONCE):
        some = slice(first, first + DRAWN_AT_ONCE)
        kept = draw_kept(elements[some], probability, generator)
        kept.mul_(given[some]).mul_(factor_of_kept(probability))
    return result


def new_seed() -> int:
    """Return a seed drawn from PyTorch's generator of the CPU."""
    return int(torch.randint(2**62, ()))


def generator_of(seed: int) -> torch.Generator:
    """Return the generator that a seed stands for."""
    return torch.Generator().manual_seed(seed)
