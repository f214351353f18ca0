"""The portable engine: plain PyTorch on any device, exact, with memory linear in the number of positions.

Forward keeps its inputs and nothing else; backward computes every tile of scores again. Both are operators of
`torch.library`, so `torch.compile` sees one node each and nothing that depends on the data.
"""

from typing import Any

import torch
from torch import Tensor

from longformer.attention.problem import Problem

# The fields of Problem, in its order.
ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? token_mask, Tensor? global_mask, Tensor? relative_query, "
    "Tensor? relative_key, Tensor? seed, int left, int right, int[] dilations, bool causal, float scale, float dropout"
)
TENSOR_ARGUMENTS = ARGUMENTS.count("Tensor")


def blocked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    left: int,
    right: int,
    dilations: tuple[int, ...],
    causal: bool,
    token_mask: Tensor | None,
    global_mask: Tensor | None,
    relative_query: Tensor | None,
    relative_key: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attend tile by tile; arguments as in `banded_attention`, checked there."""
    # Sides beyond the ends of the sequence cost nothing when they are cut off first.
    farthest = max(query.shape[1] - 1, 0)
    if relative_key is not None:
        relative_key = relative_key[max(left - farthest, 0) : left + 1 + min(right, farthest)]
    left, right = min(left, farthest), min(right, farthest)
    # Backward draws the same dropout again, from the same seed.
    seed = torch.randint(2**62, (), device="cpu") if dropout else None
    tensors = (query, key, value, token_mask, global_mask, relative_query, relative_key, seed)
    output: Tensor = forward_operator(*tensors, left, right, dilations, causal, scale, dropout)
    return output


@torch.library.custom_op("longformer::blocked_attention", mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor")
def forward_operator(*arguments: Any) -> Tensor:
    """Compute the attention of a `Problem` with these fields."""
    return Problem(*arguments).forward()


@torch.library.custom_op(
    "longformer::blocked_attention_backward",
    mutates_args=(),
    schema=f"(Tensor output_gradient, {ARGUMENTS}) -> Tensor[]",
)
def backward_operator(output_gradient: Tensor, *arguments: Any) -> list[Tensor]:
    """Compute the gradients of a `Problem` with these fields."""
    return Problem(*arguments).backward(output_gradient)


@forward_operator.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape)


@backward_operator.register_fake
def _(output_gradient: Tensor, *arguments: Any) -> list[Tensor]:
    problem = Problem(*arguments)
    inputs = (problem.query, problem.key, problem.value, problem.relative_query, problem.relative_key)
    return [tensor.new_empty(tensor.shape) for tensor in inputs if tensor is not None]


def keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the inputs, as the views they are, and nothing else."""
    ctx.save_for_backward(*inputs[:TENSOR_ARGUMENTS])
    ctx.options = inputs[TENSOR_ARGUMENTS:]


def backward(context: Any, output_gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return one gradient per argument of the forward operator."""
    gradients = backward_operator(output_gradient, *context.saved_tensors, *context.options)
    query, key, value, *relative = gradients
    relative_query, relative_key = relative or (None, None)
    return (query, key, value, None, None, relative_query, relative_key, None, *(None for _ in context.options))


forward_operator.register_autograd(backward, setup_context=keep_inputs)
