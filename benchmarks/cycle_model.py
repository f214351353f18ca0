"""Predict from what the fused kernels issue how fast an H100 runs them; nobody has measured it.

The case: heads of 64 in bfloat16, a window of 512, more tiles than the GPU holds at once. Every assumption is a number
below, with what it rests on; two are set so that the model gives what others measured. Trust it to 20 %.
"""

from collections.abc import Sequence
from typing import Any

from longformer.attention.fused.tiles import GLOBALS_AT_ONCE

HEAD_DIM, WINDOW = 64, 512
ROW = 2 * HEAD_DIM  # bytes

# Of an H100 SXM; schedulers and all that follows are those of a multiprocessor.
MULTIPROCESSORS, SCHEDULERS = 132, 4
CLOCK = 1.75e9  # Hz under load; at best 1.83e9
PRODUCTS = 4096  # operations of the tensor cores in a cycle: the data sheet's 989e12 a second at 1.83e9 Hz
L2 = 24  # bytes read from the L2 cache in a cycle: 5.5e12 a second for all, as measured
MEMORY = 13  # bytes read from memory in a cycle: 3.0e12 a second for all, as measured
# Cycles of a scheduler for an instruction that is no product. Triton's dense attention, whose program multiplies and
# computes its softmax by turns, then comes to the 400e12 a second that the authors of FlashAttention-3 measured.
INSTRUCTION = 1.4
# Of programs side by side one multiplies while another computes its softmax. They hide this share of the shorter of the
# two, as much as FlashAttention-3 does with its two groups of warps, which takes it to the 497e12 a second measured.
HIDDEN = 0.46
# A round trip to the L2 cache under load, in cycles, and how many a program waits for outside its walk: launch, bounds,
# own rows with the first keys, last stores. The programs beside it work on. Global keys are loaded meanwhile.
ROUND_TRIP, TRIPS = 750, 4

# Of each kernel: products of (rows, step, HEAD_DIM) in a step, and the tensors whose own rows a program moves.
WALKS = {"forward_kernel": (2, 2), "query_gradient_kernel": (3, 4), "key_gradient_kernel": (4, 4)}
FORWARD, BACKWARD = ("forward_kernel",), ("query_gradient_kernel", "key_gradient_kernel")
# What sums up the gradients of global keys reads every query and the gradient of its output once more, from memory.
GLOBAL_GRADIENT = 2 * ROW / MEMORY


def predict(plain: Sequence[dict[str, Any]], with_global: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return useful operations in 1e12 a second of either pass, and the share of time that one global token adds.

    Useful are the products of every query with the keys of its band, 2 in the forward pass and 5 in the backward pass.

    Args:
        plain: the kernels as `compile_kernels` yields them, without global keys.
        with_global: the same with one global key.
    """
    kernels, marked = ({kernel["kernel"]: kernel for kernel in each} for each in (plain, with_global))
    prediction = {}
    for name, walks, products, extra in (("forward", FORWARD, 2, 0.0), ("backward", BACKWARD, 5, GLOBAL_GRADIENT)):
        # Few tiles see an excluded token and look for it: the edges are those of the band.
        band = {walk: kernels[walk]["loops"][0] for walk in walks}
        edges = {walk: band[walk]["edge"] - band[walk]["middle"] for walk in walks}
        cycles = sum(cycles_of_row(kernels[walk], edges[walk]) for walk in walks)
        cycles_with_global = sum(cycles_of_row(marked[walk], edges[walk]) for walk in walks) + extra
        operations = 2 * products * (WINDOW + 1) * HEAD_DIM
        prediction[name] = operations / cycles * MULTIPROCESSORS * CLOCK / 1e12
        prediction[f"{name}, one global token"] = cycles_with_global / cycles - 1
    return prediction


def cycles_of_row(kernel: dict[str, Any], edges: int) -> float:
    """Return the cycles that a kernel takes of a multiprocessor for each row that its programs own.

    `edges` is what a step issues more that lies across both edges of the band.
    """
    tile, (products, own) = kernel["tile"], WALKS[kernel["kernel"]]
    rows, steps = tile["rows"], -(-(tile["rows"] + WINDOW) // tile["step"])
    walk, *global_steps = kernel["loops"]
    # Each edge lies across as many steps as cover the rows.
    issued = steps * walk["middle"] + edges * -(-rows // tile["step"]) + sum(step["middle"] for step in global_steps)
    keys = steps * tile["step"] + GLOBALS_AT_ONCE * len(global_steps)
    softmax = issued * tile["warps"] / SCHEDULERS * INSTRUCTION
    product = products * 2 * rows * keys * HEAD_DIM / PRODUCTS
    hidden = HIDDEN * min(softmax, product) if kernel["programs"] > 1 else 0.0
    busy = softmax + product - hidden + TRIPS * ROUND_TRIP / kernel["programs"]
    return max(busy, (own * rows + 2 * keys) * ROW / L2) / rows
