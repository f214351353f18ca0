"""Packed sequences as padded problems: a long one where it stands, short ones of similar length gathered to a batch.

One by one, short sequences would start more operators than their few scores are worth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from longformer.attention.blocked.partition import CPU_TILE_SCORES, block_rows
from longformer.attention.blocked.problem import Problem
from longformer.cpu.buffer_pool import empty_like

# Of the longest sequence of a group, the least length of another: what it lacks is computed in vain.
SIMILAR = 0.75


@dataclass(frozen=True)
class Group:
    """Sequences that are computed together."""

    bounds: Sequence[tuple[int, int]]
    """Where each begins and ends, in a tensor (1, tokens, ...); the longest first."""
    device: torch.device

    def take(self, tensor: Tensor) -> Tensor:
        """Returns (sequences, longest, ...) of (1, tokens, ...); of a single sequence a view."""
        return tensor[:, slice(*self.bounds[0])] if len(self.bounds) == 1 else tensor[0, self.rows]

    def like(self, tensor: Tensor) -> Tensor:
        """Returns where to write what `take` would read: of a single sequence the place itself."""
        return self.take(tensor) if len(self.bounds) == 1 else tensor.new_empty(*self.rows.shape, *tensor.shape[2:])

    def put(self, part: Tensor, tensor: Tensor) -> None:
        """Writes what stands in `like` to its place."""
        if len(self.bounds) > 1:
            tensor[0, self.rows[self.is_token]] = part[self.is_token]

    @cached_property
    def is_token(self) -> Tensor:
        """(sequences, longest) bool: False for padding."""
        lengths = torch.tensor([[stop - start] for start, stop in self.bounds], device=self.device)
        return torch.arange(int(lengths[0]), device=self.device) < lengths

    @cached_property
    def rows(self) -> Tensor:
        """(sequences, longest) long: where every token stands; padding reads the first one."""
        starts = torch.tensor([[start] for start, _ in self.bounds], device=self.device)
        return starts + torch.arange(self.is_token.shape[1], device=self.device) * self.is_token


def groups_of(bounds: Sequence[int], *, heads: int, left: int, right: int) -> list[list[tuple[int, int]]]:
    """Returns the sequences that begin and end at `bounds`, in groups; empty ones are left out.

    Alone are those of which a block of queries fills a processor's cache with the scores of its heads.
    """
    sequences = sorted(pairwise(bounds), key=lambda pair: pair[0] - pair[1])
    groups: list[list[tuple[int, int]]] = []
    for start, stop in sequences:
        length = stop - start
        if not length:
            continue
        rows = min(block_rows(left, right), length)
        is_long = heads * rows * min(rows + left + right, length) >= CPU_TILE_SCORES
        if groups and not is_long and length >= SIMILAR * (groups[-1][0][1] - groups[-1][0][0]):
            groups[-1].append((start, stop))
        else:
            groups.append([(start, stop)])
    return groups


def forward(problem: Problem, output: Tensor) -> None:
    """Writes the attended values, (1, tokens, heads, head_dim); 0 behind the last sequence."""
    for group, part in parts(problem):
        attended = group.like(output)
        part.forward(attended)
        group.put(attended, output)
    clear_behind(problem, output)


def backward(problem: Problem, output_gradient: Tensor, *, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Writes the gradients of query, key and value, and returns those of the relative query and key, if any."""
    relative = []
    if problem.relative_query is not None and problem.relative_key is not None:
        relative = [empty_like(problem.relative_query), torch.zeros_like(problem.relative_key)]
    for group, part in parts(problem):
        gradients = [group.like(tensor) for tensor in (query, key, value)]
        names = dict(zip(("query", "key", "value"), gradients, strict=True))
        of_relative = part.backward(group.take(output_gradient), **names)
        for gradient, tensor in zip(gradients, (query, key, value), strict=True):
            group.put(gradient, tensor)
        if relative:
            place = group.like(relative[0])
            place.copy_(of_relative[0])
            group.put(place, relative[0])
            relative[1] += of_relative[1]
    clear_behind(problem, query, key, value, *relative[:1])
    return relative


def parts(problem: Problem) -> Iterator[tuple[Group, Problem]]:
    """Yields the groups of a packed problem, each with a problem of its own."""
    bounds = [] if problem.cu_seqlens is None else problem.cu_seqlens.tolist()
    heads = problem.query.shape[2]
    for number, each in enumerate(groups_of(bounds, heads=heads, left=problem.left, right=problem.right)):
        group = Group(each, problem.query.device)
        yield (
            group,
            replace(
                problem,
                query=group.take(problem.query),
                key=group.take(problem.key),
                value=group.take(problem.value),
                token_mask=None if group.is_token.all() else group.is_token,
                global_mask=None if problem.global_mask is None else group.take(problem.global_mask),
                cu_seqlens=None,
                relative_query=None if problem.relative_query is None else group.take(problem.relative_query),
                # The parts of a problem count on from its seed.
                seed=None if problem.seed is None else problem.seed + (number << 32),
            ),
        )


def clear_behind(problem: Problem, *tensors: Tensor) -> None:
    """Writes 0 behind the last sequence."""
    assert problem.cu_seqlens is not None
    for tensor in tensors:
        tensor[:, int(problem.cu_seqlens[-1]) :] = 0
