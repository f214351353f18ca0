"""What a decoder remembers between the tokens that it writes, so that nothing is computed twice."""

from collections.abc import Sequence

from torch import Tensor

from longformer.models.led.attention import KeyValue


class DecoderMemory:
    """What a decoder remembers while it writes: of the documents, computed once, and of the tokens so far.

    There may be several rows per document (beams), as many for each, those of a document following each other; all
    of them read the document's one set of keys and values. Made by `LEDDecoder.remember`, grown by every call of the
    decoder that it is handed to.

    Args:
        source: per layer, what a document offers; rows are documents.
        source_mask: (documents, source positions) bool, False for padding, or None.
    """

    def __init__(self, source: Sequence[KeyValue], source_mask: Tensor | None) -> None:
        self.source, self.source_mask = list(source), source_mask
        self.target: list[KeyValue | None] = [None] * len(self.source)

    @property
    def length(self) -> int:
        """Number of tokens remembered of every row."""
        known = self.target[0]
        return 0 if known is None else known.key.shape[2]

    def keep_rows(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has written; (rows,) long. The documents are not touched."""
        self.target = [None if known is None else known.rows(rows) for known in self.target]

    def keep_documents(self, documents: Tensor) -> None:
        """Keep only the documents that `documents`, (documents,) long, names; their rows are kept by `keep_rows`."""
        self.source = [each.rows(documents) for each in self.source]
        if self.source_mask is not None:
            self.source_mask = self.source_mask.index_select(0, documents)
