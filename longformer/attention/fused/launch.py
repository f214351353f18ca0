"""Start the kernels: shapes, grids and buffers. The only file between tensors and Triton."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import torch
import triton
from torch import Tensor

from longformer.attention.fused import tiles as table
from longformer.attention.fused.kernels.common import Dropout, GlobalKeys, Mask, Problem, Relative, StridedTensor
from longformer.attention.fused.kernels.forward import forward_kernel
from longformer.attention.fused.kernels.global_gradient import global_chunk_kernel, global_sum_kernel
from longformer.attention.fused.kernels.key_gradient import key_gradient_kernel
from longformer.attention.fused.kernels.query_gradient import query_gradient_kernel
from longformer.attention.fused.kernels.relative_gradient import relative_gradient_kernel
from longformer.attention.fused.layout import BatchLayout
from longformer.attention.fused.tiles import Tile, TileSet


@dataclass(frozen=True)
class Call:
    """One attention call. Tensors may have any strides, but head_dim is contiguous; a packed batch is one of 1."""

    query: Tensor
    key: Tensor
    value: Tensor
    left: int
    right: int
    dilations: tuple[int, ...]
    """one per head"""
    causal: bool
    scale: float
    layout: BatchLayout | None = None
    relative: tuple[Tensor, Tensor] | None = None
    """relative_query and relative_key"""
    dropout: float = 0.0
    seed: Tensor | None = None
    """(1,) int64 on the device; None = no dropout"""

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the output (batch, positions, heads, head_dim) and lse (heads, batch * positions) float32."""
        batch, positions, heads, _ = self.query.shape
        output = torch.empty(self.query.shape, dtype=self.query.dtype, device=self.query.device)
        lse = torch.empty(heads, batch * positions, dtype=torch.float32, device=self.query.device)
        tiles = self.tiles
        start(
            forward_kernel, self._grid(tiles.forward), tiles.forward,
            *self._inputs, strided(output), lse, self.problem,
            QUERIES=tiles.forward.rows, KEYS=tiles.forward.step, GLOBALS=table.GLOBALS_AT_ONCE,
            DILATION_PER_HEAD=self._dilation_per_head, CAUSAL=self.causal, **self.sizes,
        )  # fmt: skip
        return output, lse

    def backward(self, output: Tensor, lse: Tensor, d_out: Tensor, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Writes the gradients of query, key and value into `gradients` and returns those of `relative`, if any."""
        d_query, d_key, d_value = map(strided, gradients)
        delta = torch.empty_like(lse)
        d_relative_query = None if self.relative is None else torch.empty_like(output)
        tiles, problem, per_head = self.tiles, self.problem, self._dilation_per_head
        start(
            query_gradient_kernel, self._grid(tiles.query_gradient), tiles.query_gradient,
            *self._inputs, strided(output), strided(d_out), lse, delta, d_query,
            None if d_relative_query is None else strided(d_relative_query), problem,
            QUERIES=tiles.query_gradient.rows, KEYS=tiles.query_gradient.step, GLOBALS=table.GLOBALS_AT_ONCE,
            DILATION_PER_HEAD=per_head, CAUSAL=self.causal, **self.sizes,
        )  # fmt: skip
        # What all other kernels read: the first one has just completed it.
        known = (*self._inputs, strided(d_out), lse, delta)
        start(
            key_gradient_kernel, self._grid(tiles.key_gradient), tiles.key_gradient,
            *known, d_key, d_value, problem,
            QUERIES=tiles.key_gradient.step, KEYS=tiles.key_gradient.rows, DILATION_PER_HEAD=per_head, **self.sizes,
        )  # fmt: skip
        if problem.global_keys is not None:
            self._global_gradients(known, problem, problem.global_keys.max_count, d_key, d_value)
        if self.relative is None or d_relative_query is None:
            return ()
        return d_relative_query, self._relative_key_gradient(known, problem, self.relative[1])

    def _global_gradients(
        self,
        known: tuple[Any, ...],
        problem: Problem,
        max_count: int,
        d_key: StridedTensor,
        d_value: StridedTensor,
    ) -> None:
        sequences, longest, heads = self.sequences, self.longest, self.query.shape[2]
        tile = self.tiles.extra_gradient
        groups = ceil_div(max_count, tile.rows)
        chunk = table.CHUNK * groups
        chunks = ceil_div(longest, chunk)
        shape = (chunks, 2, sequences, heads, max_count, self.sizes["WIDTH"])
        partial = torch.empty(shape, dtype=torch.float32, device=self.query.device)
        start(
            global_chunk_kernel, (chunks, sequences * heads, groups), tile,
            *known, partial, problem, chunk,
            QUERIES=tile.step, GLOBALS=tile.rows, CAUSAL=self.causal, **self.sizes,
        )  # fmt: skip
        start(
            global_sum_kernel, (groups, sequences * heads), tile,
            partial, d_key, d_value, problem, chunks, GLOBALS=tile.rows, **self.sizes,
        )  # fmt: skip

    def _relative_key_gradient(self, known: tuple[Any, ...], problem: Problem, relative_key: Tensor) -> Tensor:
        heads, head_dim = self.query.shape[2:]
        tile, columns = self.tiles.extra_gradient, relative_key.shape[0]
        column_tiles, query_tiles = ceil_div(columns, tile.rows), self._grid(tile)[0]
        parts = min(max(1, table.PROGRAMS // (column_tiles * heads)), query_tiles)
        tiles_per_part = ceil_div(query_tiles, parts)
        parts = ceil_div(query_tiles, tiles_per_part)
        shape = (parts, heads, columns, self.sizes["WIDTH"])
        partial = torch.empty(shape, dtype=torch.float32, device=self.query.device)
        start(
            relative_gradient_kernel, (column_tiles, heads, parts), tile,
            *known, partial, problem, self.sequences, tiles_per_part,
            TILE=tile.rows, DILATION_PER_HEAD=self._dilation_per_head, **self.sizes,
        )  # fmt: skip
        return partial.sum(0)[..., :head_dim].transpose(0, 1).to(relative_key.dtype).contiguous()

    @property
    def sequences(self) -> int:
        """How many there are, with what stands behind the last one of a packed batch."""
        packed = None if self.layout is None else self.layout.sequences
        return self.query.shape[0] if packed is None else packed

    @cached_property
    def longest(self) -> int:
        """Length of the longest sequence."""
        return self.query.shape[1] if self.layout is None or self.layout.starts is None else self.layout.max_seqlen

    @cached_property
    def tiles(self) -> TileSet:
        """The tiles for this kind of call on this device."""
        kind: table.Kind = "plain" if self.seed is None else "dropout"
        if self.relative is not None:
            kind = "relative"
        major = _major(self.query.device)
        return table.choose_tiles(major, triton.__version__, self.query.dtype, self.query.shape[3], kind)

    @cached_property
    def _inputs(self) -> tuple[StridedTensor, StridedTensor, StridedTensor]:
        return strided(self.query), strided(self.key), strided(self.value)

    @cached_property
    def problem(self) -> Problem:
        """What all kernels read."""
        batch, positions, heads, _ = self.query.shape
        longest, dilations = self.longest, self._dilations
        dilation = _on_device(dilations, self.query.device) if self._dilation_per_head else dilations[0]
        starts = extent = mask = global_keys = relative = dropout = None
        if (layout := self.layout) is not None:
            starts, extent = layout.starts, layout.extent
            if layout.state is not None:
                mask = Mask(layout.state, layout.next_excluded)
            if layout.global_index is not None:
                global_keys = GlobalKeys(layout.global_index, layout.global_count, layout.global_index.shape[1])
        if self.relative is not None:
            query, key = self.relative
            relative = Relative(strided(query), StridedTensor(key, 0, key.stride(0), key.stride(1)))
        if self.seed is not None:
            dropout = Dropout(self.seed, round(self.dropout * 65_536), 1 / (1 - self.dropout))
        left, right = self.left, self.right
        if relative is None:
            # No key is farther than this; sides near 2^31 would overflow the kernels' 32-bit positions.
            left, right = min(left, longest), min(right, longest)
        return Problem(
            longest, batch * positions, heads, left, right, dilation, self.scale,
            starts, extent, mask, global_keys, relative, dropout,
        )  # fmt: skip

    @cached_property
    def _dilations(self) -> tuple[int, ...]:
        """The dilations, of which there are programs for each step: beyond the sequence all are the same."""
        return tuple(min(dilation, self.longest) for dilation in self.dilations)

    @cached_property
    def _dilation_per_head(self) -> bool:
        return len(set(self._dilations)) > 1

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The width of a head, and of the tiles that hold it."""
        return {"HEAD_DIM": self.query.shape[3], "WIDTH": table.padded_head_dim(self.query.shape[3])}

    def _grid(self, tile: Tile) -> tuple[int, int]:
        """Returns the programs that cover every stride group of the head with the most tiles; others return at once."""
        tiles = max(step * ceil_div(ceil_div(self.longest, step), tile.rows) for step in self._dilations)
        return tiles, self.sequences * self.query.shape[2]


def start(kernel: Any, grid: tuple[int, ...], tile: Tile, *arguments: Any, **constants: Any) -> None:
    """Starts a kernel; every launch goes through here."""
    kernel[grid](*arguments, **constants, num_warps=tile.warps, num_stages=tile.stages)


def ceil_div(number: int, divisor: int) -> int:
    # Triton's own takes several microseconds: it unwraps its arguments as a compiler does.
    return -(-number // divisor)


def strided(tensor: Tensor) -> StridedTensor:
    """Returns a (batch, positions, heads, head_dim) tensor as kernels read it."""
    # The sequences of a packed batch all stand in its one row.
    batch_stride = tensor.stride(0) if tensor.shape[0] > 1 else 0
    return StridedTensor(tensor, batch_stride, tensor.stride(1), tensor.stride(2))


def _major(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).major if device.type == "cuda" else 0


def _on_device(dilations: tuple[int, ...], device: torch.device) -> Tensor:
    # While a CUDA graph is captured, nothing may be copied from the host, and what is made belongs to the graph.
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return _filled(dilations, device)
    return _kept_on_device(dilations, device)


@lru_cache(maxsize=64)
def _kept_on_device(dilations: tuple[int, ...], device: torch.device) -> Tensor:
    return _filled(dilations, device)


def _filled(dilations: tuple[int, ...], device: torch.device) -> Tensor:
    runs = [torch.full((len(list(run)),), value, dtype=torch.int32, device=device) for value, run in groupby(dilations)]
    return torch.cat(runs)
