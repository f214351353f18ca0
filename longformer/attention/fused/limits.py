"""Which calls the Triton kernels can take. Needs only torch."""

from importlib.util import find_spec

import torch
from torch import Tensor

TRITON_INSTALLED = find_spec("triton") is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# CUDA starts no more programs than this along the axis that the kernels use for (example, head).
MAX_SEQUENCES = 65_535


def largest_head_dim(dtype: torch.dtype, *, relative: bool) -> int:
    """Returns how wide a head may be. A wider one with the relative term in float32 does not fit into registers."""
    return 64 if relative and dtype == torch.float32 else 128


def obstacle(query: Tensor, scale: float, *, relative: bool, sequences: int | None = None) -> str | None:
    """Returns what keeps the kernels from such a call, in words that begin with the argument's name, or None.

    Args:
        query: (batch, positions, heads, head_dim).
        scale: factor of the scores.
        relative: whether the relative term is asked for.
        sequences: how many there are in a packed batch; None: the batch is padded.
    """
    if query.is_cuda and torch.version.hip is not None:
        return "query is on an AMD GPU, for which there are no tiles"
    if query.is_cuda and torch.cuda.get_device_properties(query.device).major < 8:
        return "query is on a GPU older than compute capability 8.0"
    if query.dtype not in DTYPES:
        return f"query must be float32, bfloat16 or float16, not {query.dtype}"
    largest = largest_head_dim(query.dtype, relative=relative)
    if query.shape[3] > largest:
        return f"query has head_dim {query.shape[3]}, and at most {largest} fits in such a call"
    programs = (query.shape[0] if sequences is None else sequences) * query.shape[2]
    if programs > MAX_SEQUENCES:
        return f"query has batch * heads {programs}, and at most {MAX_SEQUENCES} fits"
    if not scale > 0:
        return f"scale must be positive, not {scale}"
    return None


def is_fastest_for(query: Tensor, scale: float, *, relative: bool, sequences: int | None = None) -> bool:
    """Whether the kernels run compiled, on CUDA with Triton installed, and take such a call with tiles worth having.

    Wide heads in float32 fit into registers only by tiles of 16 x 16, which compute little for what they load.
    """
    if not (TRITON_INSTALLED and query.is_cuda) or obstacle(query, scale, relative=relative, sequences=sequences):
        return False
    return query.dtype != torch.float32 or query.shape[3] <= 64
