"""Banded attention: which keys a query sees (`Band`), and the function that attends to them."""

from longformer.attention.band import Band
from longformer.attention.op import banded_attention

__all__ = ["Band", "banded_attention"]
