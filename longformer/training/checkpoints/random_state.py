"""The random generators of one rank, saved without pickle.

Training draws only from torch (dropout); order and masking of the data are functions of the position.
"""

from pathlib import Path

import torch


def random_state_bytes() -> bytes:
    """Return the states of torch's generators on the CPU and, where in use, on this rank's CUDA device, as a file."""
    from safetensors.torch import save

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return save(states)


def load_random_state(path: Path) -> None:
    """Set torch's generators to the saved states."""
    from safetensors.torch import load_file

    states = load_file(path)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
