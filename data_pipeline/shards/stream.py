"""The token ids of all examples of a split as one stream, of which any range can be read."""

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.prepared import Split
from data_pipeline.sources.corpora import TEXT


class TokenStream:
    """The token ids of one name, 0 .. len - 1, example after example in the order of the shards.

    Raises:
        DataError: the split has no token ids of that name.
    """

    def __init__(self, split: Split, name: str = TEXT) -> None:
        split.check_has(name, f"holds no {name}: prepare it as characters or documents")
        self.split = split
        self._name = name
        self._ends = np.cumsum([shard.tokens.get(name, 0) for shard in split.shards])
        """Where each shard ends."""

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the token ids start .. stop - 1 (1-D, in the type they are stored in).

        Raises:
            ValueError: the range does not lie inside the stream.
            DataError: an example in the range is damaged; the message names shard and example.
        """
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"tokens {start} to {stop} do not lie within the {len(self)} tokens of {self.split.name}")
        tokens = np.empty(stop - start, dtype=self.split.tokenizer.token_type)
        shard = int(np.searchsorted(self._ends, start, side="right"))
        position = start
        while position < stop:
            shard_start = int(self._ends[shard - 1]) if shard else 0
            shard_stop = min(stop, int(self._ends[shard]))
            self._read_of_shard(shard, position - shard_start, tokens[position - start : shard_stop - start])
            position = shard_stop
            shard += 1
        return tokens

    def _read_of_shard(self, shard: int, start: int, target: np.ndarray) -> None:
        """Fills `target` with the token ids of a shard from `start` on."""
        ends = self.split.ends(shard, self._name)
        example = int(np.searchsorted(ends, start, side="right"))
        done = 0
        while done < len(target):
            example_start = int(ends[example - 1]) if example else 0
            first = start + done - example_start
            last = min(first + len(target) - done, int(ends[example]) - example_start)
            found = self.split.read_tokens(shard, example, self._name, first, last)
            if found is None:
                raise DataError(f"{self.split.name} is damaged, and a stream cannot go on without a part of it")
            target[done : done + len(found)] = found
            done += len(found)
            example += 1
