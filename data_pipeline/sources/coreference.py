"""Documents with clusters of mentions: columns as of CoNLL-2012 (`conll.py`), or records."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, count, groupby
from operator import itemgetter
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from data_pipeline.sources.conll import conll_documents
from data_pipeline.sources.corpora import HELD_OUT, TEXT, Corpus, NamedSplits, RawExample, split_of
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Content, Reading, Record, contents, field_of, joined_text
from data_pipeline.sources.text import files_below

COREFERENCE = "coreference"
DOCUMENT, PART, WORDS, SENTENCES = "document", "part", "words", "sentences"
SPEAKERS, GENRE, CLUSTERS = "speakers", "genre", "clusters"
GENRES = ("bc", "bn", "mz", "nw", "pt", "tc", "wb")
"""Those of OntoNotes, with which the names of its documents begin."""
SplitWords = Callable[[str], list[tuple[int, int]]]
SplitSentences = Callable[[str, Sequence[tuple[int, int]]], list[int]]
Mention = tuple[int, int]
_UNKNOWN = ("", "-", "_", "*")
_GOLD = "gold_conll"
_ANNOTATIONS = "annotations"
"""The folder of OntoNotes below which documents are called dev_09_c2e though they are for training."""


def coreference(
    source: Path,
    *,
    split_words: SplitWords,
    split_sentences: SplitSentences,
    singletons: bool,
    held_out: int = HELD_OUT,
    encoding: str | None = None,
) -> Corpus:
    """Returns documents with clusters of mentions, as the text TEXT, a word a line.

    Fields are DOCUMENT and PART (its name and which part of it this is, as in the source), WORDS, SENTENCES (how many
    words each has), SPEAKERS (that of most words of each sentence, empty where unknown), GENRE (one of GENRES, what a
    record names, or empty) and CLUSTERS: the first and last word of every mention, in order, those of each cluster
    together. Where files are called gold_conll, others are left out. Splits are told as by `labelled`, but not by names
    inside a folder `annotations`.

    A record has `tokens` (words) or `sentences` (the words of each) or both, or else `text`; `clusters`, of which a
    mention is its first and last word, counted from 0, of a text where it begins and ends, in characters; and where
    they are known, `sentences` of a text (their texts or words), `sentence_map` (the number of the sentence of every
    word), `speakers` (one for each sentence, for each word, or for each word of each sentence), `genre`, `part`, and
    its name as `doc_key` or `id`.

    Args:
        source: a file of columns or records (`records.py`), plain or packed, or a folder of such files.
        split_words: returns where each word of a text begins and ends, in characters.
        split_sentences: returns how many words each sentence of a text has, given what `split_words` returned.
        singletons: whether a cluster of one mention is kept.
        held_out: where names tell of no splits, of so many documents one is for validation and one for test.
        encoding: of files that are not UTF-8.

    Raises:
        DataError: there are no files.
    """
    files = files_below(source, recipe=COREFERENCE, expects="columns as of CoNLL-2012, JSON lines or JSON arrays")
    splits = NamedSplits.of(source, files, held_out=held_out, except_below=_ANNOTATIONS)
    reading = Reading(encoding=encoding)
    gold_only = any(_GOLD in PurePath(name).name for name in splits.names)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        splits.name_skipped(quarantine)
        deal, numbers = splits.dealer(), count()
        known: set[tuple[str | None, str, str]] = set()
        for content in chain.from_iterable(contents(file, reader, reading, quarantine) for file in splits.files):
            if splits.is_skipped(content.name):
                continue
            if gold_only and _GOLD not in PurePath(content.name).name:
                quarantine.leave_out(content.name, f"it is not called {_GOLD}, as other files are")
                continue
            for record in _records(content):
                try:
                    example = _example(record, split_words, split_sentences, singletons=singletons)
                    name = splits.names.get(content.name), example.fields[DOCUMENT], example.fields[PART]
                    if name in known:
                        raise ValueError(f"another document is called {' part '.join(filter(None, name[1:]))}")
                except (ValueError, TypeError) as error:
                    quarantine.add(record.name, str(error))
                else:
                    known.add(name)
                    split = deal(content.name) or split_of(next(numbers), held_out)
                    yield RawExample(example.texts, example.fields, split)

    settings = {"singletons": singletons, "held_out": held_out, **reading.settings}
    return Corpus(COREFERENCE, settings, source, splits.files, read, lambda: splits.rule, words=(TEXT,))


def _records(content: Content) -> Iterator[Record]:
    if content.form == "text":
        return conll_documents(content.name, content.text, content.encoding)
    if content.form == "csv":  # columns parted by tabs look like a table
        return conll_documents(content.name, content.text_again(), content.encoding)
    return content.records


def _example(
    record: Record, split_words: SplitWords, split_sentences: SplitSentences, *, singletons: bool
) -> RawExample:
    """Returns the example of a record.

    Raises:
        ValueError, TypeError: something is missing, of another form, or contradicts something else.
    """
    found = record.load()
    is_text = "tokens" not in found and "text" in found
    if is_text:
        text = found["text"]
        if not isinstance(text, str):
            raise TypeError(f"the text is of the type {type(text).__name__}, but it should be a text")
        spans = split_words(text)
        words = joined_text([text[start:end] for start, end in spans]).split("\n")
    else:
        words = _words(found)
        text, spans = _joined(words)
    if not any(map(str.strip, words)):
        raise ValueError("it has no words")
    lengths = _sentence_lengths(found, words)
    if lengths is None:
        lengths = split_sentences(text, spans)
    clusters = _clusters(field_of(found, CLUSTERS), len(text) if is_text else len(words), spans if is_text else None)
    named = (found[key] for key in ("doc_key", "id") if found.get(key) not in (None, ""))
    name = str(next(named, PurePath(record.name).name))
    genre = re.match(rf"({'|'.join(GENRES)})(?![a-z])", name)
    fields = {
        DOCUMENT: name,
        PART: str(found.get("part", "")),
        WORDS: words,
        SENTENCES: lengths,
        SPEAKERS: _speakers(found.get(SPEAKERS), lengths),
        GENRE: str(found.get(GENRE) or (genre[0] if genre else "")),
        CLUSTERS: [cluster for cluster in clusters if singletons or len(cluster) > 1],
    }
    return RawExample({TEXT: "\n".join(words)}, fields)


def _words(record: Mapping[str, Any]) -> list[str]:
    """Returns the words of a record that has them, one by one or by sentences."""
    if "tokens" in record:
        found = record["tokens"]
    elif "sentences" in record:
        found = _flat(record["sentences"], "sentences")
    else:
        raise ValueError(f"it has neither tokens nor sentences nor text, only {', '.join(record) or 'nothing'}")
    if not isinstance(found, list):
        raise TypeError(f"tokens is of the type {type(found).__name__}, but it should be a list of words")
    for place, word in enumerate(found):
        if not isinstance(word, str) or "\n" in word:
            what = "holds a line end" if isinstance(word, str) else f"is of the type {type(word).__name__}"
            raise ValueError(f"word {place:,} {what}, but it should be a word")
    return joined_text(found).split("\n")


def _flat(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(each, list) for each in value):
        raise TypeError(f"{name} should be a list with a list of words for every sentence")
    return list(chain.from_iterable(value))


def _joined(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Returns words as a text, and where each begins and ends there, in characters."""
    ends = list(accumulate(len(word) + 1 for word in words))
    return " ".join(words), [(end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True)]


def _sentence_lengths(record: Mapping[str, Any], words: Sequence[str]) -> list[int] | None:
    """Returns how many words each sentence of a record has, None where it does not tell.

    A word belongs to the sentence in which it begins; spaces do not matter.
    """
    if "sentence_map" in record:
        numbers = record["sentence_map"]
        if not isinstance(numbers, list) or len(numbers) != len(words):
            raise ValueError(f"sentence_map should be a list of {len(words):,} numbers, one for every word")
        return [len(list(same)) for _, same in groupby(numbers)]
    sentences = record.get("sentences")
    if sentences is None:
        return None
    if "text" not in record or "tokens" in record:
        if (given := len(_flat(sentences, "sentences"))) != len(words):
            raise ValueError(f"its sentences have {given:,} words, but it has {len(words):,}")
        return [len(sentence) for sentence in sentences if sentence]
    if not isinstance(sentences, list) or not all(isinstance(sentence, str | list) for sentence in sentences):
        raise TypeError("sentences should be a list with the text or the words of every sentence")
    letters = ["".join("".join(sentence).split()) for sentence in sentences]
    bare = ["".join(word.split()) for word in words]
    if "".join(letters) != "".join(bare):
        raise ValueError("its sentences are not those of its text")
    starts = np.cumsum([0, *map(len, bare)])[:-1]
    borders = np.searchsorted(starts, np.cumsum([0, *map(len, letters)]))
    return [int(length) for length in np.diff(borders) if length]


def _clusters(value: Any, size: int, spans: Sequence[tuple[int, int]] | None) -> list[list[Mention]]:
    """Returns the mentions of each cluster in order, by their first and last word, each once.

    Args:
        value: as a record has it.
        size: how many words or characters there are.
        spans: where each word begins and ends, where mentions are given in characters.
    """
    if not isinstance(value, list) or not all(isinstance(cluster, list) for cluster in value):
        raise TypeError("clusters should be a list with a list of mentions for every cluster")
    owner: dict[Mention, int] = {}
    clusters: list[list[Mention]] = []
    for number, cluster in enumerate(value):
        mentions = sorted({_mention(each, size, spans) for each in cluster})
        for mention in mentions:
            if owner.setdefault(mention, number) != number:
                first, last = mention
                raise ValueError(f"the mention of the words {first:,} to {last:,} is in two clusters")
        if mentions:
            clusters.append(mentions)
    return sorted(clusters)


def _mention(value: Any, size: int, spans: Sequence[tuple[int, int]] | None) -> Mention:
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(each) is int for each in value)
    if not is_pair:
        raise TypeError(f"the mention {str(value)[:50]} should be two numbers")
    first, last = value
    if spans is None:
        if not 0 <= first <= last < size:
            raise ValueError(f"the mention [{first}, {last}] lies outside its {size:,} words, counted from 0")
        return first, last
    if not 0 <= first < last <= size:
        raise ValueError(f"the mention [{first}, {last}] lies outside its {size:,} characters, counted from 0")
    first_word = bisect_right(spans, first, key=itemgetter(1))
    last_word = bisect_left(spans, last, key=itemgetter(0)) - 1
    if first_word > last_word:
        raise ValueError(f"the mention [{first}, {last}] holds no word")
    return first_word, last_word


def _speakers(value: Any, lengths: Sequence[int]) -> list[str]:
    """Returns the speaker of most words of each sentence, empty where it is unknown."""
    if value is None:
        return [""] * len(lengths)
    if not isinstance(value, list):
        raise TypeError("speakers should be a list")
    if len(value) == len(lengths) and not any(isinstance(each, list) for each in value):
        of_words = [[each] for each in value]
    else:
        flat = list(chain.from_iterable(each if isinstance(each, list) else [each] for each in value))
        if len(flat) != sum(lengths):
            raise ValueError(f"it has {sum(lengths):,} words, but {len(flat):,} speakers")
        ends = list(accumulate(lengths))
        of_words = [flat[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    most = (Counter("" if each is None else str(each) for each in names).most_common(1)[0][0] for names in of_words)
    return ["" if speaker in _UNKNOWN else speaker for speaker in most]
