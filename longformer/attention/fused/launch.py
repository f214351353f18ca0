"""Start the kernels: shapes, grids and buffers. The only file between tensors and Triton."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from longformer.attention.fused import tiles as table
from longformer.attention.fused.kernels.common import Dropout, GlobalKeys, Mask, Problem, Relative, Rows
from longformer.attention.fused.kernels.forward import forward_kernel
from longformer.attention.fused.kernels.global_gradient import global_chunk_kernel, global_sum_kernel
from longformer.attention.fused.kernels.key_gradient import key_gradient_kernel
from longformer.attention.fused.kernels.query_gradient import query_gradient_kernel
from longformer.attention.fused.kernels.relative_gradient import relative_gradient_kernel
from longformer.attention.fused.layout import BatchLayout
from longformer.attention.fused.tiles import Tile, TileSet


@dataclass(frozen=True)
class Call:
    """One attention call. Tensors may have any strides, but head_dim is contiguous."""

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
        """Return the output (batch, positions, heads, head_dim) and log_sum (batch, heads, positions) float32."""
        batch, positions, heads, _ = self.query.shape
        output = torch.empty(self.query.shape, dtype=self.query.dtype, device=self.query.device)
        log_sum = torch.empty(batch, heads, positions, dtype=torch.float32, device=self.query.device)
        tiles = self.tiles()
        start(
            forward_kernel, self._grid(tiles.forward), tiles.forward,
            *self._inputs(), rows_of(output), log_sum, self.problem(),
            QUERIES=tiles.forward.rows, KEYS=tiles.forward.step, GLOBALS=table.GLOBALS_AT_ONCE,
            DILATION_PER_HEAD=self._dilation_per_head(), CAUSAL=self.causal, **self.sizes(),
        )  # fmt: skip
        return output, log_sum

    def backward(
        self, output: Tensor, log_sum: Tensor, output_gradient: Tensor, gradients: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Write the gradients of query, key and value into `gradients` and return those of `relative`, if any."""
        query_gradient, key_gradient, value_gradient = map(rows_of, gradients)
        agreement = torch.empty_like(log_sum)
        relative_query_gradient = None if self.relative is None else torch.empty_like(output)
        tiles, problem, per_head = self.tiles(), self.problem(), self._dilation_per_head()
        start(
            query_gradient_kernel, self._grid(tiles.query_gradient), tiles.query_gradient,
            *self._inputs(), rows_of(output), rows_of(output_gradient), log_sum, agreement, query_gradient,
            None if relative_query_gradient is None else rows_of(relative_query_gradient), problem,
            QUERIES=tiles.query_gradient.rows, KEYS=tiles.query_gradient.step, GLOBALS=table.GLOBALS_AT_ONCE,
            DILATION_PER_HEAD=per_head, CAUSAL=self.causal, **self.sizes(),
        )  # fmt: skip
        # What all other kernels read: the first one has just completed it.
        known = (*self._inputs(), rows_of(output_gradient), log_sum, agreement)
        start(
            key_gradient_kernel, self._grid(tiles.key_gradient), tiles.key_gradient,
            *known, key_gradient, value_gradient, problem,
            QUERIES=tiles.key_gradient.step, KEYS=tiles.key_gradient.rows, DILATION_PER_HEAD=per_head, **self.sizes(),
        )  # fmt: skip
        if problem.global_keys is not None:
            self._global_gradients(known, problem, problem.global_keys.most, key_gradient, value_gradient)
        if self.relative is None or relative_query_gradient is None:
            return ()
        return relative_query_gradient, self._relative_key_gradient(known, problem, self.relative[1])

    def _global_gradients(
        self, known: tuple[Any, ...], problem: Problem, most: int, key_gradient: Rows, value_gradient: Rows
    ) -> None:
        batch, positions, heads, _ = self.query.shape
        tile = self.tiles().extra_gradient
        groups = triton.cdiv(most, tile.rows)
        steps = steps_per_piece(triton.cdiv(positions, tile.step), beside=groups * batch * heads)
        chunks = triton.cdiv(positions, steps * tile.step)
        shape = (chunks, 2, batch, heads, most, self.sizes()["WIDTH"])
        partial = torch.empty(shape, dtype=torch.float32, device=self.query.device)
        start(
            global_chunk_kernel, (chunks, batch * heads, groups), tile,
            *known, partial, problem, steps * tile.step,
            QUERIES=tile.step, GLOBALS=tile.rows, CAUSAL=self.causal, **self.sizes(),
        )  # fmt: skip
        start(
            global_sum_kernel, (groups, batch * heads), tile,
            partial, key_gradient, value_gradient, problem, chunks, GLOBALS=tile.rows, **self.sizes(),
        )  # fmt: skip

    def _relative_key_gradient(self, known: tuple[Any, ...], problem: Problem, relative_key: Tensor) -> Tensor:
        batch, _, heads, head_dim = self.query.shape
        tile, columns = self.tiles().extra_gradient, relative_key.shape[0]
        column_tiles, query_tiles = triton.cdiv(columns, tile.rows), self._grid(tile)[0]
        tiles_per_part = steps_per_piece(query_tiles, beside=column_tiles * heads)
        parts = triton.cdiv(query_tiles, tiles_per_part)
        shape = (parts, heads, columns, self.sizes()["WIDTH"])
        partial = torch.empty(shape, dtype=torch.float32, device=self.query.device)
        start(
            relative_gradient_kernel, (column_tiles, heads, parts), tile,
            *known, partial, problem, batch, tiles_per_part,
            TILE=tile.rows, DILATION_PER_HEAD=self._dilation_per_head(), **self.sizes(),
        )  # fmt: skip
        return partial.sum(0)[..., :head_dim].transpose(0, 1).to(relative_key.dtype).contiguous()

    def tiles(self) -> TileSet:
        """Return the tiles for this kind of call on this device."""
        kind: table.Kind = "plain" if self.seed is None else "dropout"
        if self.relative is not None:
            kind = "relative"
        major = _major(self.query.device)
        return table.choose_tiles(major, triton.__version__, self.query.dtype, self.query.shape[3], kind)

    def _inputs(self) -> tuple[Rows, Rows, Rows]:
        return rows_of(self.query), rows_of(self.key), rows_of(self.value)

    def problem(self) -> Problem:
        """Return what all kernels read."""
        _, positions, heads, _ = self.query.shape
        dilation = _on_device(self.dilations, self.query.device) if self._dilation_per_head() else self.dilations[0]
        mask = global_keys = relative = dropout = None
        if (layout := self.layout) is not None:
            mask = Mask(layout.state, layout.next_excluded, layout.extent)
            if layout.global_index is not None:
                global_keys = GlobalKeys(layout.global_index, layout.global_count, layout.global_index.shape[1])
        if self.relative is not None:
            query, key = self.relative
            relative = Relative(rows_of(query), Rows(key, 0, key.stride(0), key.stride(1)))
        if self.seed is not None:
            dropout = Dropout(self.seed, self.dropout)
        left, right = self.left, self.right
        if relative is None:
            # No key is farther than this; sides near 2^31 would overflow the kernels' 32-bit places.
            left, right = min(left, positions), min(right, positions)
        return Problem(positions, heads, left, right, dilation, self.scale, mask, global_keys, relative, dropout)

    def _dilation_per_head(self) -> bool:
        return len(set(self.dilations)) > 1

    def sizes(self) -> dict[str, int]:
        """Return the width of a head, and of the tiles that hold it."""
        return {"HEAD_DIM": self.query.shape[3], "WIDTH": table.padded_head_dim(self.query.shape[3])}

    def _grid(self, tile: Tile) -> tuple[int, int]:
        """Return the programs that cover every lane of the head with the most tiles; the others' rest leave at once."""
        batch, positions, heads, _ = self.query.shape
        most = max(step * triton.cdiv(triton.cdiv(positions, step), tile.rows) for step in self.dilations)
        return most, batch * heads


def start(kernel: Any, grid: tuple[int, ...], tile: Tile, *arguments: Any, **constants: Any) -> None:
    """Start a kernel; every launch goes through here."""
    kernel[grid](*arguments, **constants, num_warps=tile.warps, num_stages=tile.stages)


def steps_per_piece(steps: int, *, beside: int) -> int:
    """Return how many of its steps a program takes, when every step has `beside` programs side by side."""
    pieces = min(max(1, table.PROGRAMS // beside), steps)
    return int(triton.cdiv(steps, pieces))


def rows_of(tensor: Tensor) -> Rows:
    """Return a (batch, positions, heads, head_dim) tensor as kernels read it."""
    return Rows(tensor, tensor.stride(0), tensor.stride(1), tensor.stride(2))


def _major(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).major if device.type == "cuda" else 0


@lru_cache(maxsize=64)
def _on_device(dilations: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(dilations, dtype=torch.int32, device=device)
