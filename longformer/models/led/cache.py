"""The key-value cache of an LED decoder: what it has computed for earlier tokens, so that nothing is computed twice."""

from collections.abc import Sequence

from torch import Tensor

from longformer.models.led.attention import KeyValue


class KeyValueCache:
    """Keys and values of the documents, computed once, and of the tokens that the decoder has written so far.

    There may be several sequences per document (beams), as many for each, those of a document following each other; all
    of them read the document's one set of keys and values. Made by `LEDDecoder.new_cache`, grown by every call of the
    decoder that it is passed to.

    Args:
        source: per layer, keys and values of the documents.
        source_mask: (documents, source positions) bool, False for padding, or None.
    """

    def __init__(self, source: Sequence[KeyValue], source_mask: Tensor | None) -> None:
        self.source, self.source_mask = list(source), source_mask
        self.target: list[KeyValue | None] = [None] * len(self.source)

    @property
    def length(self) -> int:
        """Number of tokens cached of every sequence."""
        known = self.target[0]
        return 0 if known is None else known.key.shape[2]

    def select_sequences(self, sequences: Tensor) -> None:
        """Continues sequence i from sequence sequences[i]; (sequences,) long. The documents are not touched."""
        self.target = [None if known is None else known.select(sequences) for known in self.target]

    def select_documents(self, documents: Tensor) -> None:
        """Keeps the documents that `documents`, (documents,) long, names; their sequences are kept separately."""
        self.source = [each.select(documents) for each in self.source]
        if self.source_mask is not None:
            self.source_mask = self.source_mask.index_select(0, documents)
