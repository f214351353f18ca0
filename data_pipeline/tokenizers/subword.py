"""Subword tokenizers: opened, trained, and asked for token ids in bulk. The work is done by the Rust library.

Documents are tokenised as plain text: `<mask>` written in a document is six characters, never the mask token. What
stands around documents, <s> and </s>, is added when sequences are packed, not here.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.staging import write_file
from data_pipeline.tokenizers.tokenizer import SpecialTokens, TextFormat, content_sha256

ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# What the library keeps of a token besides its id is a hundred bytes: this many characters at once bound it.
_CALL_CHARACTERS = 1 << 20
_ROLES = {
    "begin": ("<s>", "[CLS]"),
    "end": ("</s>", "[SEP]"),
    "padding": ("<pad>", "[PAD]"),
    "mask": ("<mask>", "[MASK]"),
}


class TextTokenizer:
    """A tokenizer of the `tokenizers` library with its special tokens.

    Raises:
        DataError: one of the special tokens is missing.
    """

    file_name: ClassVar[str] = "tokenizer.json"

    def __init__(self, content: str) -> None:
        from tokenizers import Tokenizer

        self.content = content
        """tokenizer.json."""
        self._tokenizer: Any = Tokenizer.from_str(content)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True
        self.vocabulary_size: int = self._tokenizer.get_vocab_size()
        """Number of ids, special ones included."""
        self.special = self._special_tokens()

    @classmethod
    def open(cls, path: Path) -> "TextTokenizer":
        """Opens a tokenizer.json.

        Raises:
            DataError: it is missing or damaged.
        """
        try:
            return cls(path.read_text(encoding="utf-8"))
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): give a tokenizer.json") from None
        except Exception as error:  # the Rust library raises no narrower class
            raise DataError(f"{path} is no tokenizer ({error}): give a tokenizer.json") from None

    @property
    def sha256(self) -> str:
        """The identity of the tokenizer."""
        return content_sha256(self.content.encode())

    @property
    def token_type(self) -> np.dtype:
        """The narrowest type that holds every id: uint16 or uint32."""
        return np.dtype(np.uint16 if self.vocabulary_size <= 1 << 16 else np.uint32)

    def encode_batch(self, texts: Iterable[str | bytes]) -> Iterator[np.ndarray]:
        """Yields the ids of every text (1-D `token_type`), nothing added; memory does not grow with their number.

        Bytes are taken as UTF-8.
        """
        for encoding in self.encode_raw(
            text if isinstance(text, str) else text.decode(errors="replace") for text in texts
        ):
            yield np.array(encoding.ids, dtype=self.token_type)

    def encode_raw(self, texts: Iterable[str]) -> Iterator[Any]:
        """Yields what the library itself returns for every text, untouched."""
        for batch in _batches(texts):
            yield from self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)

    def encode_words(
        self, words: Sequence[str], spans: Iterable[tuple[int, int, int]] = ()
    ) -> tuple[np.ndarray, list[int], list[tuple[int, int]]]:
        """Returns the ids of a text that is given as words (1-D `token_type`), how many each word has, and the first
        and last token of every span, as `encode_spans` does.

        They are those of transformers with `is_split_into_words=True`; a word such as a lone zero-width space may have
        none. A span is the number of a word, and where it begins and ends there, in characters.
        """
        found = self._tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False)
        of_words = np.array(found.word_ids, dtype=np.int64)
        pieces = np.bincount(of_words, minlength=len(words))
        firsts = np.cumsum(pieces) - pieces
        marked = []
        for word, *span in spans:
            offsets = found.offsets[firsts[word] : firsts[word] + pieces[word]]
            marked += [
                (int(firsts[word]) + first, int(firsts[word]) + last)
                for first, last in token_spans(offsets, [(span[0], span[1])])
            ]
        return np.array(found.ids, dtype=self.token_type), pieces.tolist(), marked

    def encode_spans(self, text: str, spans: Iterable[tuple[int, int]]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Returns the ids of a text (1-D `token_type`), and the first and last token of each of its spans.

        A span is given by where it begins and ends in the text, in characters. Its tokens are all that hold a part of
        it; one of which the tokenizer makes nothing is left out.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, dtype=self.token_type), token_spans(encoding.offsets, spans)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Returns where each token of a text begins and ends in it, in characters."""
        found: list[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return found

    def id_of(self, token: str) -> int:
        """Returns the id of a token; KeyError where there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return found

    def word_offsets(self, word: str) -> list[tuple[int, int]]:
        """Returns where each token of a word begins and ends in it, in characters, as `encode_words` reads it."""
        found: list[tuple[int, int]]
        found = self._tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).offsets
        return found

    @property
    def format(self) -> TextFormat:
        """What stands around texts in a sequence, as tokenizer.json has it."""
        pair = self._tokenizer.encode("a", "a")
        parts, last = pair.sequence_ids, len(pair) - 1
        first, second = (place for place, part in enumerate(parts) if part is not None and parts.index(part) == place)
        end_of_first, end_of_second = (last - parts[::-1].index(part) for part in (0, 1))
        processor = self._tokenizer.post_processor
        listed = json.loads(processor.__getstate__()).get("special_tokens", {}) if processor is not None else {}
        unused = [token["ids"][0] for token in listed.values() if token["ids"][0] not in pair.ids]
        return TextFormat(
            before=tuple(pair.ids[:first]),
            between=tuple(pair.ids[end_of_first + 1 : second]),
            after=tuple(pair.ids[end_of_second + 1 :]),
            target_language=next(iter(unused), None),
            second_type=pair.type_ids[second],
        )

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of these ids, special tokens included."""
        return self._tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Returns what each of these ids adds to the text of those before it, special tokens included.

        A character of several ids stands at its last one.
        """
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        return [stream.step(self._tokenizer, int(number)) or "" for number in ids]

    def save(self, path: Path) -> None:
        """Writes tokenizer.json."""
        write_file(path, self.content.encode())

    def _special_tokens(self) -> SpecialTokens:
        found: dict[str, int] = {}
        for role, names in _ROLES.items():
            ids = [self._tokenizer.token_to_id(name) for name in names]
            known = [number for number in ids if number is not None]
            if not known:
                raise DataError(f"the tokenizer has no {role} token ({' or '.join(names)}): use another tokenizer")
            found[role] = known[0]
        added = self._tokenizer.get_added_tokens_decoder().items()
        others = {number for number, token in added if token.special} - set(found.values())
        return SpecialTokens(**found, others=tuple(sorted(others)))


def token_spans(offsets: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns the first and the last token of every span of a text that has any.

    Args:
        offsets: where each token begins and ends in the text, in characters.
        spans: where each begins and ends there.
    """
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    found = []
    for start, end in spans:
        inside = np.flatnonzero((starts < end) & (ends > start))
        if len(inside):
            found.append((int(inside[0]), int(inside[-1])))
    return found


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int) -> TextTokenizer:
    """Trains a byte-level BPE with RoBERTa's special tokens, which stand around texts as RoBERTa's do.

    The same texts give the same tokenizer.

    Raises:
        DataError: the texts are too few for a vocabulary of this size.
    """
    from tokenizers import processors, trainers

    smallest = len(ROBERTA_SPECIALS) + 256
    if vocabulary_size < smallest:
        raise DataError(f"a byte-level vocabulary needs at least {smallest} tokens, {vocabulary_size} are too few")
    tokenizer = _byte_level()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=list(ROBERTA_SPECIALS),
        initial_alphabet=_byte_alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    begin, end = ((name, tokenizer.token_to_id(name)) for name in (ROBERTA_SPECIALS[0], ROBERTA_SPECIALS[2]))
    tokenizer.post_processor = processors.RobertaProcessing(end, begin, add_prefix_space=False)
    found = tokenizer.get_vocab_size()
    if found < vocabulary_size:
        raise DataError(f"the text gives a vocabulary of {found} tokens only: give more text, or ask for {found}")
    return TextTokenizer(tokenizer.to_str())


def _byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _CALL_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
