"""The attention calls in which the fused kernels are timed, and how one is made with its layout built beforehand."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from longformer.attention import banded_attention
from longformer.attention.metadata import AttentionMetadata
from longformer.attention.sliding_window import sliding_window_attention
from longformer.benchmarks.setting import Attend, Setting


@dataclass(frozen=True, kw_only=True)
class KernelCase(Setting):
    """A setting with what only our own kernels do."""

    dropout: float = 0.0
    padding: float = 0.0
    """Share of all positions; the first example has none, each one more than the one before it."""
    globals_in_front: bool = False
    """Whether global tokens stand at the front, in place of evenly over the text."""
    relative: bool = False
    packed: bool = False
    """Whether padding is taken out: the examples stand one after another in one row, without global tokens."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example."""
        steps = max(1, self.batch - 1)
        return [round(self.positions * (1 - 2 * self.padding * example / steps)) for example in range(self.batch)]

    @property
    def useful_flops(self) -> tuple[float, float]:
        """As of a `Setting`, without padding; the relative term is not counted."""
        forward = float(self.heads * sum(self.band.forward_flops(length, self.head_dim) for length in self.lengths))
        return forward, 2.5 * forward

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As of a `Setting`; (1, all tokens, heads, head_dim) where padding is taken out."""
        if not self.packed:
            return super().inputs()
        return replace(self, positions=sum(self.lengths), batch=1, padding=0.0, packed=False).inputs()

    def token_mask(self) -> Tensor | None:
        """Returns the mask (batch, positions) of tokens; None without padding."""
        if not self.padding:
            return None
        lengths = torch.tensor(self.lengths, device=self.device)
        return torch.arange(self.positions, device=self.device) < lengths[:, None]

    def global_mask(self) -> Tensor | None:
        """Returns the mask (batch, positions) of global tokens; None without any."""
        if not self.globals_in_front:
            return super().global_mask()
        return (torch.arange(self.positions, device=self.device) < self.global_tokens).expand(self.batch, -1)

    def attend(self, backend: str = "fused") -> Attend:
        """Returns our attention; what depends on padding and global tokens only is worked out here, once."""
        band = self.band
        if self.packed:
            return self._attend_packed(backend)
        if self.causal or self.relative:
            return self._attend_by_masks(backend)
        masks = self.token_mask(), self.global_mask()
        metadata = AttentionMetadata() if masks == (None, None) else AttentionMetadata.of(*masks)
        return lambda *projections: sliding_window_attention(
            projections, metadata, band, dropout=self.dropout, backend=backend
        )

    def _attend_packed(self, backend: str) -> Attend:
        band, longest = self.band, max(self.lengths)
        ends = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)
        attend = partial(
            banded_attention,
            left=band.left,
            right=band.right,
            cu_seqlens=ends,
            max_seqlen=longest,
            dropout=self.dropout,
            backend=backend,
        )
        return lambda query, key, value: attend(query[0], key[0], value[0])[None]

    def _attend_by_masks(self, backend: str) -> Attend:
        band, relative_query = self.band, self.inputs()[0].detach().flip(1)
        relative_key = relative_query[0, : band.left + band.right + 1]
        options: dict[str, Any] = {"left": band.left, "right": band.right, "dilation": band.dilation}
        options |= {"token_mask": self.token_mask(), "global_mask": self.global_mask()}

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            relative: dict[str, Any] = {}
            if self.relative:
                relative = {
                    "relative_query": relative_query.to(query.dtype),
                    "relative_key": relative_key.to(query.dtype),
                }
            return banded_attention(
                query, key, value, **options, **relative, causal=self.causal, dropout=self.dropout, backend=backend
            )

        return attend

    def short(self) -> "KernelCase":
        """Returns a case that compiles the very same kernels and is soon done."""
        return replace(self, positions=min(self.positions, 1024), batch=min(self.batch, 2))

    def tiny(self) -> "KernelCase":
        """Returns what the interpreter does in a moment; it gets products in bfloat16 wrong."""
        return replace(
            self,
            positions=min(max(self.positions // 512, 16), 48),
            batch=min(self.batch, 2),
            heads=1,
            head_dim=16,
            window=16,
            global_tokens=min(self.global_tokens, 2),
            device="cpu",
            dtype="float16" if self.dtype == "bfloat16" else self.dtype,
        )
