"""The loss of predicting tokens, computed for labelled positions only and never for all of them at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

IGNORED = -100
CHUNK = 256


class TokenProjection(nn.Linear):
    """The matrix that turns states into logits over the vocabulary, or into the loss of predicting tokens.

    Both happen here because sharded weights are whole only while the module that owns them computes.
    """

    def forward(
        self,
        states: Tensor,
        targets: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Returns logits (..., vocabulary) without bias, or the loss of `targets`; arguments as in `masked_lm_loss`."""
        if targets is None or bias is None:
            return super().forward(states)
        return masked_lm_loss(states, targets, self.weight, bias, label_smoothing=label_smoothing)


def projected_loss(
    projection: nn.Module, states: Tensor, targets: Tensor, bias: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """Returns the loss of `targets` through a projection without bias; arguments as in `masked_lm_loss`.

    An adapter in its place only gives logits, here of all labelled positions at once.
    """
    if isinstance(projection, TokenProjection):
        loss: Tensor = projection(states, targets, bias, label_smoothing=label_smoothing)
        return loss
    logits = projection(states).float() + bias
    total = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    return total / max(1, targets.shape[0])


def masked_lm_loss(
    states: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """Returns the mean cross-entropy of tokens predicted by `softmax(states @ weight.T + bias)`.

    Logits exist for `CHUNK` positions at a time, forward and backward; backward computes them again.

    Args:
        states: (labelled positions, width), see `labelled`.
        targets: (labelled positions,) long.
        weight: (vocabulary, width).
        bias: (vocabulary,).
        label_smoothing: probability that the target gives away to all tokens in equal parts (Szegedy et al. 2016).

    Returns:
        () float32; 0 where nothing is labelled.
    """
    total: Tensor = SummedCrossEntropy.apply(states, targets, weight, bias, label_smoothing)
    return total / max(1, targets.shape[0])


def labelled(labels: Tensor, shape: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """Returns the labelled positions of a batch, (count,) long, counted through it, and their labels, (count,).

    Args:
        labels: (batch, positions) long; `IGNORED` where nothing is to be predicted.
        shape: of the batch.
        count: how many positions have a label.

    Raises:
        ValueError: there is not one label for every position.
    """
    if labels.shape != tuple(shape):
        raise ValueError(f"labels must be (batch, positions), {tuple(shape)}, got {tuple(labels.shape)}")
    labels = labels.flatten()
    positions = (labels != IGNORED).nonzero_static(size=count).squeeze(1)
    return positions, labels[positions]


class SummedCrossEntropy(torch.autograd.Function):
    """The sum that `masked_lm_loss` takes the mean of. Gradients are summed where they stay, chunk rows at a time."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, label_smoothing: float
    ) -> Tensor:
        total = torch.zeros((), device=states.device)
        for chunk, wanted in zip(states.split(CHUNK), targets.split(CHUNK), strict=True):
            total += functional.cross_entropy(
                logits_of(chunk, weight, bias), wanted, reduction="sum", label_smoothing=label_smoothing
            )
        # Backward multiplies in the precision of forward: autocast's, where that is on.
        ctx.precision = functional.linear(states[:0], weight[:0]).dtype
        ctx.label_smoothing = label_smoothing
        ctx.save_for_backward(states, targets, weight, bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, targets, weight, bias = ctx.saved_tensors
        needs_states, _, needs_weight, needs_bias, _ = ctx.needs_input_grad
        lower_states, lower_weight = states.to(ctx.precision), weight.to(ctx.precision)
        of_states = torch.empty_like(lower_states) if needs_states else None
        of_weight = torch.zeros_like(weight) if needs_weight else None
        of_bias = torch.zeros_like(bias) if needs_bias else None
        for first in range(0, states.shape[0], CHUNK):
            chunk = slice(first, first + CHUNK)
            logits = logits_of(lower_states[chunk], lower_weight, bias)
            of_logits = logits.sub_(logits.logsumexp(1, keepdim=True)).exp_()
            of_logits[torch.arange(of_logits.shape[0], device=targets.device), targets[chunk]] -= (
                1 - ctx.label_smoothing
            )
            of_logits -= ctx.label_smoothing / of_logits.shape[1]
            of_logits.mul_(gradient)
            if of_bias is not None:
                of_bias += of_logits.sum(0)
            of_product = of_logits.to(ctx.precision)
            if of_states is not None:
                of_states[chunk] = of_product @ lower_weight
            if of_weight is None:
                continue
            if of_weight.dtype == ctx.precision:
                of_weight.addmm_(of_product.T, lower_states[chunk])
            else:
                of_weight += of_product.T @ lower_states[chunk]
        return None if of_states is None else of_states.to(states.dtype), None, of_weight, of_bias, None


def logits_of(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns the logits (rows, vocabulary) in float32 or better."""
    logits = functional.linear(states, weight)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).add_(bias)
