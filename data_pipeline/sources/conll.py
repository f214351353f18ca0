"""Coreference in columns, as of CoNLL-2012: a word a line, and last where the mentions of each cluster begin and end.

A line holds `(3` where a mention of the cluster 3 begins, `3)` where one ends and `(3)` where both do, several parted
by `|`. What ends is the mention of that cluster that began last, as in the official scorer: mentions of one cluster
may stand in each other, but where they cross the form does not tell which end is whose.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import PurePath
from typing import Any

from data_pipeline.sources.records import Record, lines_of, text_damage

Clusters = Sequence[Sequence[Sequence[int]]]
"""The mentions of each, by the numbers of their first and last word."""
FIRST_PART = "000"
_BOUNDARY = re.compile(
    r"# ?(?:begin|(?P<end>end)) document\b\s*(?:\((?P<quoted>.*)\)|(?P<bare>[^\s;]*))"
    r"\s*(?:;\s*(?:part\s+(?P<part>\S+))?)?"
)
_NO_MENTION = ("-", "_", "*", "")
_MENTIONS = re.compile(r"(?:\|?(?:\([^()|]+\)?|[^()|]+\)))+")
_MENTION = re.compile(r"(\()?([^()|]+)(\))?")
_WORD, _SPEAKER, _FULL_WIDTH = 3, 9, 12
"""Columns of CoNLL-2012, and how many it has at least."""
_ESCAPED = ("/.", "/?")
"""Words of OntoNotes that stand for the mark alone."""


def conll_documents(name: str, text: Iterator[str], encoding: str) -> Iterator[Record]:
    """Yields the documents of columns as records with doc_key, part, tokens or sentences, speakers and clusters.

    Documents stand between lines `#begin document (name); part 000` and `#end document`; without such lines a file is
    one. Empty lines part sentences; a document that has none is given as tokens. Other lines that begin with "# " are
    comments. The word stands behind the column that numbers words; where none does, it is the 4th of 5 or more columns,
    else the last but one. Where columns are those of CoNLL-2012, the 10th is the speaker.

    Args:
        name: of the file; a document without a name is called by it.
        text: in chunks.
        encoding: in which it was decoded, for damage.
    """
    lines: list[tuple[int, str]] = []
    key, part, begin = PurePath(name).name, "", 0
    for number, line in enumerate(chain(lines_of(name, text), ["#end document"]), start=1):
        if boundary := _BOUNDARY.match(line):
            if begin or any(each.strip() for _, each in lines):
                yield Record(f"{name}:{begin or 1}", partial(_document, key, part, lines, encoding))
            key = boundary["quoted"] or boundary["bare"] or PurePath(name).name
            part, begin, lines = boundary["part"] or "", 0 if boundary["end"] else number, []
        elif not line.startswith("# "):
            lines.append((number, line))


def conll_lines(document: str, part: str, words: Sequence[str], sentences: Sequence[int], clusters: Clusters) -> str:
    """Returns a document in columns that the official scorer reads: its name and part, number, word and mentions.

    Args:
        document, part: its name, and which part of it this is; FIRST_PART where that is empty.
        words: those of all sentences; in their place a tab is a space.
        sentences: how many words each has.
        clusters: become the numbers in the columns, from 0.
    """
    begins: list[list[str]] = [[] for _ in words]
    ends: list[list[str]] = [[] for _ in words]
    for number, cluster in enumerate(clusters):
        for first, last in cluster:
            begins[first].append(f"({number})" if first == last else f"({number}")
            if first != last:
                ends[last].append(f"{number})")
    part = part or FIRST_PART
    lines = [f"#begin document ({document}); part {part}"]
    word = 0
    for length in sentences:
        for place in range(length):
            # What ends comes first: of one cluster, readers would else close what begins here.
            mentions = "|".join(ends[word] + begins[word]) or "-"
            lines.append("\t".join((document, part, str(place), words[word].replace("\t", " "), mentions)))
            word += 1
        lines.append("")
    return "\n".join((*lines, "#end document", ""))


def _document(key: str, part: str, lines: Sequence[tuple[int, str]], encoding: str) -> dict[str, Any]:
    """Returns the record of a document.

    Raises:
        ValueError: a line has too few columns or is no text, or mentions begin and end in no order.
    """
    if damage := text_damage("\n".join(line for _, line in lines), encoding):
        raise ValueError(damage)
    rows: list[list[str]] = []
    numbers: list[int] = []
    firsts: list[int] = []
    begins_sentence = True
    for number, line in lines:
        if cells := line.split():
            if begins_sentence:
                firsts.append(len(rows))
            rows.append(line.rstrip("\r").split("\t") if "\t" in line else cells)
            numbers.append(number)
        begins_sentence = not cells
    if not rows:
        raise ValueError("it has no words")
    word = _word_column(rows)
    for number, row in zip(numbers, rows, strict=True):
        if len(row) < word + 2:
            raise ValueError(f"line {number:,} has {len(row)} columns, but column {word + 1} should hold the word")
    words = [row[word][1:] if row[word] in _ESCAPED else row[word] for row in rows]
    speakers = [row[_SPEAKER] if word == _WORD and len(row) >= _FULL_WIDTH else "" for row in rows]
    found = {"doc_key": key, "part": part, "clusters": _clusters(rows, numbers)}
    if len(firsts) == 1:
        return {**found, "tokens": words, "speakers": speakers}
    spans = [slice(*each) for each in pairwise([*firsts, len(rows)])]
    return {**found, "sentences": [words[span] for span in spans], "speakers": [speakers[span] for span in spans]}


def _word_column(rows: Sequence[Sequence[str]]) -> int:
    ((width, _),) = Counter(map(len, rows)).most_common(1)
    for column in range(width - 2):
        values = {row[column] for row in rows if len(row) > column}
        # The number of a document or of its part is the same in every line.
        if len(values) > 1 and all(map(str.isdecimal, values)):
            return column + 1
    return _WORD if width > _WORD + 1 else max(0, width - 2)


def _clusters(rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Returns the mentions of each cluster, given the line number of every word."""
    clusters: dict[str, list[tuple[int, int]]] = defaultdict(list)
    begun: dict[str, list[int]] = defaultdict(list)
    for word, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        cell = row[-1].strip()
        if cell in _NO_MENTION:
            continue
        if not _MENTIONS.fullmatch(cell):
            raise ValueError(f"line {number:,} ends with {cell[:50]!r}, which is neither - nor mentions such as (3|4)")
        for begins, cluster, ends in _MENTION.findall(cell):
            if begins:
                begun[cluster].append(word)
            if ends:
                if not begun[cluster]:
                    raise ValueError(f"line {number:,} ends a mention of the cluster {cluster}, but none has begun")
                clusters[cluster].append((begun[cluster].pop(), word))
    for cluster, words in begun.items():
        if words:
            begin = numbers[words[-1]]
            raise ValueError(f"the mention of the cluster {cluster} that begins in line {begin:,} does not end")
    return list(clusters.values())
