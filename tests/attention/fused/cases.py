"""Random attention calls: what one consists of, how hypothesis draws it, how it is run and compared."""

from dataclasses import dataclass
from unittest.mock import patch

import torch
from hypothesis import strategies
from torch import Tensor

from longformer.attention import banded_attention
from longformer.attention.fused import tiles
from longformer.attention.fused.tiles import Tile, TileSet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Tiles so small that a short sequence has edges, unmasked middles and several programs.
SMALL = TileSet(Tile(32, 16, 4, 1), Tile(16, 32, 4, 1), Tile(32, 16, 4, 1), Tile(16, 16, 4, 1))
SMALL_RELATIVE = TileSet(*(Tile(16, 16, 4, 1),) * 4)
# The interpreter takes its time for every step, whatever its size: long sequences want large tiles.
LARGE = TileSet(*(Tile(128, 256, 4, 1),) * 3, Tile(16, 256, 4, 1))
LARGE_RELATIVE = TileSet(*(Tile(128, 128, 4, 1),) * 4)
LONG = 100
TOLERANCE = {torch.float32: 3e-5, torch.float16: 1e-2}


@dataclass(frozen=True)
class Case:
    """One attention call without its numbers."""

    positions: int
    left: int
    right: int
    dilation: tuple[int, int] = (1, 1)
    causal: bool = False
    padding: str = "none"
    globals_: str = "none"
    relative: bool = False
    dtype: torch.dtype = torch.float32
    head_dim: int = 16
    programs: int = tiles.PROGRAMS
    """Into how many pieces the gradients of relative keys are cut."""
    chunk: int = 16
    """Queries whose part of the gradients of global keys a program sums."""

    @property
    def tiles(self) -> TileSet:
        if self.positions > LONG:
            return LARGE_RELATIVE if self.relative else LARGE
        return SMALL_RELATIVE if self.relative else SMALL


def cases(largest: int) -> strategies.SearchStrategy[Case]:
    """Draw cases of up to `largest` positions; the relative term excludes global keys, causal excludes `right`."""
    sides = strategies.integers(0, largest + 5)

    def consistent(case: Case) -> Case:
        changes = {}
        if case.causal:
            changes["right"] = 0
        if case.relative:
            changes["globals_"] = "none"
        return Case(**(vars(case) | changes))

    return strategies.builds(
        Case,
        positions=strategies.integers(1, largest),
        left=sides,
        right=sides,
        dilation=strategies.tuples(strategies.integers(1, 4), strategies.integers(1, 4)),
        causal=strategies.booleans(),
        padding=strategies.sampled_from(["none", "right", "left", "holes", "all"]),
        globals_=strategies.sampled_from(["none", "first", "some", "all", "padded"]),
        relative=strategies.booleans(),
        dtype=strategies.sampled_from([torch.float32, torch.float16]),
        head_dim=strategies.sampled_from([16, 24]),
        programs=strategies.sampled_from([1, 10, tiles.PROGRAMS]),
        chunk=strategies.sampled_from([16, 48, tiles.CHUNK]),
    ).map(consistent)


def masks(case: Case, generator: torch.Generator) -> dict[str, Tensor | None]:
    """Return token and global masks of two sequences; padding "all" leaves nothing of the second."""
    position = torch.arange(case.positions).expand(2, -1)
    border = torch.tensor([[case.positions], [case.positions // 2]])
    real = {
        "none": None,
        "right": position < border,
        "left": position >= case.positions - border,
        "holes": torch.rand(2, case.positions, generator=generator) > 0.2,
        "all": torch.tensor([[True], [False]]).expand(-1, case.positions).clone(),
    }[case.padding]
    chosen = {
        "none": None,
        "first": position == 0,
        "some": torch.rand(2, case.positions, generator=generator) > 0.7,
        "all": position >= 0,
        "padded": position >= case.positions - 2,
    }[case.globals_]
    masks = {"token_mask": real, "global_mask": chosen}
    return {name: None if mask is None else mask.to(DEVICE) for name, mask in masks.items()}


def check_against_reference(case: Case) -> None:
    """Compare the fused output and every gradient with the dense reference in float64."""
    generator = torch.Generator().manual_seed(case.positions)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE, case.dtype)

    shape = (2, case.positions, 2, case.head_dim)
    inputs = [draw(*shape) for _ in range(3)]
    if case.relative:
        inputs += [draw(*shape), draw(case.left + case.right + 1, 2, case.head_dim)]
    arriving = draw(*shape)
    options = {"left": case.left, "right": case.right, "dilation": case.dilation, "causal": case.causal}
    options |= masks(case, generator)

    with (
        patch.object(tiles, "choose_tiles", lambda *_: case.tiles),
        patch.object(tiles, "PROGRAMS", case.programs),
        patch.object(tiles, "CHUNK", case.chunk),
    ):
        ours = output_and_gradients(inputs, with_nan_at_padding(arriving, options["token_mask"]), options, "fused")
    exact = output_and_gradients([tensor.double() for tensor in inputs], arriving.double(), options, "reference")
    names = ("output", "query", "key", "value", "relative_query", "relative_key")
    for name, found, expected in zip(names, ours, exact, strict=False):
        error = (found - expected).abs().max() / (1 + expected.abs().max())
        assert error <= TOLERANCE[case.dtype], f"{name} is off by {error:.1e}"


def with_nan_at_padding(arriving: Tensor, token_mask: Tensor | None) -> Tensor:
    return arriving if token_mask is None else arriving.masked_fill(~token_mask[..., None, None], torch.nan)


def output_and_gradients(inputs: list[Tensor], arriving: Tensor, options: dict, backend: str) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    relative = dict(zip(("relative_query", "relative_key"), leaves[3:], strict=False))
    output = banded_attention(*leaves[:3], **relative, **options, backend=backend)
    return [output.detach(), *torch.autograd.grad(output, leaves, arriving)]
