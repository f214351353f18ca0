"""Random attention problems for property tests: drawn by hypothesis, filled with numbers from a seed."""

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from longformer.attention import banded_attention


@dataclass
class Case:
    """Differentiable inputs and the other arguments of one call of `banded_attention`."""

    inputs: dict[str, Tensor]
    options: dict[str, Any]
    gradient: Tensor
    description: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Case({self.description})"

    def run(self, backend: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Return the output and the gradient of every input, computed by `backend` on inputs of `dtype`."""
        inputs = {name: tensor.to(dtype).requires_grad_() for name, tensor in self.inputs.items()}
        output = banded_attention(**inputs, **self.options, backend=backend)
        gradients = torch.autograd.grad(output, list(inputs.values()), self.gradient.to(dtype))
        return {"output": output.detach(), **dict(zip(inputs, gradients, strict=True))}


SIDES = st.one_of(st.integers(0, 8), st.integers(0, 100), st.sampled_from([64, 127, 400, 1000]))
PADDINGS = ("none", "left", "right", "random", "all", "one example")


@st.composite
def attention_cases(draw: st.DrawFn, *, longest: int = 700) -> Case:
    """Draw a problem: any length, sides, dilations, causality, masks, global keys or a relative term."""
    positions = draw(st.one_of(st.integers(1, 8), st.integers(1, longest)))
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    head_dim = draw(st.sampled_from([1, 4, 8]))
    causal = draw(st.booleans())
    left = draw(SIDES)
    right = 0 if causal else draw(SIDES)
    dilation = draw(st.one_of(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=heads, max_size=heads)))
    padding = draw(st.sampled_from(PADDINGS))
    extra = draw(st.sampled_from(["nothing", "global keys", "relative positions"]))
    global_share = draw(st.sampled_from([0.0, 0.01, 0.2, 1.0])) if extra == "global keys" else None

    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    shape = (batch, positions, heads, head_dim)
    inputs = {name: numbers(*shape) for name in ("query", "key", "value")}
    options: dict[str, Any] = {"left": left, "right": right, "dilation": dilation, "causal": causal}
    options["token_mask"] = token_mask(padding, batch, positions, generator)
    if global_share is not None:
        options["global_mask"] = torch.rand(batch, positions, generator=generator) < global_share
        options["global_mask"][0, draw(st.integers(0, positions - 1))] |= global_share > 0
    if extra == "relative positions":
        inputs["relative_query"] = numbers(*shape)
        inputs["relative_key"] = numbers(left + right + 1, heads, head_dim)
    described = {"shape": shape, **{name: options[name] for name in ("left", "right", "dilation", "causal")}}
    described |= {"padding": padding, "extra": extra, "global_share": global_share}
    return Case(inputs, options, numbers(*shape), described)


def token_mask(padding: str, batch: int, positions: int, generator: torch.Generator) -> Tensor | None:
    """Return a mask of real tokens padded in the manner named."""
    if padding == "none":
        return None
    real = torch.ones(batch, positions, dtype=torch.bool)
    if padding == "all":
        return ~real
    if padding == "one example":
        real[0] = False
        return real
    if padding == "random":
        return torch.rand(batch, positions, generator=generator) < 0.7
    cut = torch.randint(0, positions + 1, (batch, 1), generator=generator)
    position = torch.arange(positions)
    return position >= cut if padding == "left" else position < cut
