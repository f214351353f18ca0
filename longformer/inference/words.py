"""Where the words and the sentences of raw text are: one rule for preparation and prediction."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from longformer.evaluation.words import TextUnits


def words_of(text: str) -> list[tuple[int, int]]:
    """Returns where each word of a text begins and ends, in characters.

    Where no line holds more than one, these are the words. Else white space parts them, and punctuation marks and
    symbols at either end of a word are words of their own.
    """
    found = (match.span() for match in re.finditer(r"\S+", text))
    if _is_list(text):
        return list(found)
    return [word for start, end in found for word in _without_marks(text, start, end)]


def sentence_lengths(text: str, words: Sequence[tuple[int, int]]) -> list[int]:
    """Returns how many words each sentence of a text has; a word belongs to the sentence in which it begins.

    Args:
        text: its sentences end at line ends and by the rules of English (see `TextUnits.sentences`); where no line
            holds more than one word, at empty lines.
        words: where each begins and ends, in characters, as `words_of` finds them.
    """
    sentences = re.split(r"\n\s*\n", text) if _is_list(text) else TextUnits().sentences(text)
    starts, end = [], 0
    for sentence in filter(None, map(str.strip, sentences)):
        starts.append(text.index(sentence, end))
        end = starts[-1] + len(sentence)
    borders = np.searchsorted([start for start, _ in words], [*starts[1:], len(text)])
    return [int(each) for each in np.diff(borders, prepend=0) if each]


def _is_list(text: str) -> bool:
    return "\n" in text.strip() and all(len(line.split()) <= 1 for line in text.split("\n"))


def _without_marks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    first, last = start, end
    while first < last and _is_mark(text[first]):
        first += 1
    while first < last and _is_mark(text[last - 1]):
        last -= 1
    yield from ((place, place + 1) for place in range(start, first))
    if first < last:
        yield first, last
    yield from ((place, place + 1) for place in range(last, end))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
