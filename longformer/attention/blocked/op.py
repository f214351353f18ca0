"""The portable engine: plain PyTorch on any device, exact, with memory linear in the number of positions.

Forward keeps its inputs and nothing else; backward computes every tile of scores again. Both are custom
operators, so `torch.compile` sees one node each and nothing that depends on the data.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, library

from longformer.attention.blocked import packed
from longformer.attention.blocked.problem import Problem
from longformer.attention.projections import separate
from longformer.cpu.buffer_pool import empty_like

# The fields of Problem, in its order; query, key and value as `separate` takes them.
ARGUMENTS = (
    "Tensor[] projections, Tensor? token_mask, Tensor? global_mask, Tensor? cu_seqlens, Tensor? relative_query, "
    "Tensor? relative_key, Tensor? seed, int left, int right, int[] dilations, bool causal, float scale, float dropout"
)
OPTIONAL_TENSORS = ARGUMENTS.count("Tensor?")


def blocked_attention(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    """Attends tile by tile; arguments as in `blocked_attention_of_projections`."""
    return blocked_attention_of_projections((query, key, value), **arguments)


def blocked_attention_of_projections(
    projections: Sequence[Tensor],
    *,
    left: int,
    right: int,
    dilations: tuple[int, ...],
    causal: bool = False,
    token_mask: Tensor | None,
    global_mask: Tensor | None,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int = 0,
    relative_query: Tensor | None = None,
    relative_key: Tensor | None = None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attends tile by tile to what a layer projected.

    Args:
        projections: query, key and value, apart or packed; see `separate`. The gradient of what is packed is packed.
        left, right, dilations, causal, token_mask, global_mask, cu_seqlens, max_seqlen, relative_query, relative_key,
            scale, dropout: as in `banded_attention`, checked there; a packed batch is one of 1.
    """
    # Sides beyond the ends of the sequence cost nothing when they are cut off first.
    positions = projections[0].shape[1] if cu_seqlens is None else max_seqlen
    farthest = max(positions - 1, 0)
    if relative_key is not None:
        relative_key = relative_key[max(left - farthest, 0) : left + 1 + min(right, farthest)]
    left, right = min(left, farthest), min(right, farthest)
    # Backward draws the same dropout again, from the same seed.
    seed = torch.randint(2**62, (), device="cpu") if dropout else None
    tensors = (list(projections), token_mask, global_mask, cu_seqlens, relative_query, relative_key, seed)
    output: Tensor = forward_operator(*tensors, left, right, dilations, causal, scale, dropout)
    return output


@library.custom_op("longformer::blocked_attention", mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor")
def forward_operator(projections: Sequence[Tensor], *arguments: Any) -> Tensor:
    """Computes the attention of a `Problem` with these fields."""
    problem = problem_of(projections, arguments)
    output = empty_like(problem.query)
    if problem.cu_seqlens is None:
        problem.forward(output)
    else:
        packed.forward(problem, output)
    return output


@library.custom_op(
    "longformer::blocked_attention_backward",
    mutates_args=(),
    schema=f"(Tensor output_gradient, {ARGUMENTS}) -> Tensor[]",
)
def backward_operator(output_gradient: Tensor, projections: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
    """Computes the gradients of a `Problem` with these fields: of the projections, then of the relative term."""
    gradients = [empty_like(each) for each in projections]
    query, key, value = separate(gradients)
    problem = problem_of(projections, arguments)
    if problem.cu_seqlens is None:
        return gradients + problem.backward(output_gradient, query=query, key=key, value=value)
    return gradients + packed.backward(problem, output_gradient, query=query, key=key, value=value)


def problem_of(projections: Sequence[Tensor], arguments: Sequence[Any]) -> Problem:
    """Returns the problem with an operator's arguments."""
    query, key, value = separate(projections)
    return Problem(query, key, value, *arguments)


@forward_operator.register_fake
def _(projections: Sequence[Tensor], *_: Any) -> Tensor:
    query = separate(projections)[0]
    return query.new_empty(query.shape)


@backward_operator.register_fake
def _(output_gradient: Tensor, projections: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
    problem = problem_of(projections, arguments)
    inputs = (*projections, problem.relative_query, problem.relative_key)
    return [tensor.new_empty(tensor.shape) for tensor in inputs if tensor is not None]


def keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keeps the inputs, as the views they are, and nothing else."""
    projections, *rest = inputs
    ctx.projections = len(projections)
    ctx.save_for_backward(*projections, *rest[:OPTIONAL_TENSORS])
    ctx.options = rest[OPTIONAL_TENSORS:]


def backward(context: Any, output_gradient: Tensor) -> tuple[Any, ...]:
    """Returns one gradient per argument of the forward operator."""
    saved, count = context.saved_tensors, context.projections
    gradients = backward_operator(output_gradient, saved[:count], *saved[count:], *context.options)
    relative_query, relative_key = gradients[count:] or (None, None)
    # Without heads there are no dilations, and PyTorch takes an empty list for one of tensors.
    of_options: list[Any] = [[] if option == [] else None for option in context.options]
    return (gradients[:count], None, None, None, relative_query, relative_key, None, *of_options)


forward_operator.register_autograd(backward, setup_context=keep_inputs)
