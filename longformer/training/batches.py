"""What training asks of a source of batches: nothing else is known here about data.

The source promises that its whole state is the small dictionary of `state_dict()`, valid at every step
border, and that two sources with equal states yield equal batches.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor

Batch = dict[str, Tensor]


class BatchSource(Protocol):
    """An endless stream of micro-batches for one rank."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield micro-batches; for language models {"tokens": (micro_batch, sequence_length + 1) long}."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data as JSON-compatible values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; refuses the state of other data."""
        ...

    def mock_batch(self) -> Batch:
        """Return a batch of the real shape without reading data."""
        ...
