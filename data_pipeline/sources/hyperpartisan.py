"""Hyperpartisan news of SemEval-2019 task 4 as published: articles, ground truth, the splits of the Longformer paper.

The published splits leak: 51 of the 65 test articles stand in the training split too, 7 in the validation split. The
clean ones are made of the same articles by their content, in the same sizes, so that no text stands on two sides.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import SPLITS, TEXT, Corpus, RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.quarantine import Quarantine

Splits = Literal["published", "clean"]
_SPLIT_FILE = "hp-splits.json"
_PUBLISHED = {"train": "train", "validation": "dev", "test": "test"}
_HELD_OUT = {"test": 65, "validation": 64}
"""Articles of the published splits."""
_RUN = 5
"""Words in a row by which texts are compared."""
_RULES = {
    "published": f"as {_SPLIT_FILE} says, where 51 of 65 test articles are training articles too",
    "clean": "by a hash of the text: 65 articles for test, 64 for validation; what shares half of its runs of words "
    "stays together",
}


def hyperpartisan(source: Path, splits: Splits) -> Corpus:
    """Returns the articles, each with its label `true` or `false`, as preparation reads them.

    Texts are cleaned as the authors did: without addresses, slashed words and line ends, and with repeated marks and
    letters shortened (semantics.md 6).

    Args:
        source: a folder with articles-*.xml, ground-truth-*.xml, plain or packed, and, for the published splits,
            hp-splits.json.
        splits: `published`, or `clean`.

    Raises:
        DataError: one of the files is missing.
    """
    articles, truth = (_only_file(source, f"{name}*.xml*") for name in ("articles", "ground-truth"))
    files = [articles, truth]
    if splits == "published":
        files.append(_only_file(source, _SPLIT_FILE))

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        labels = {each.get("id", ""): each.get("hyperpartisan") for each in _elements(truth, reader)}
        texts = {each.get("id", ""): cleaned(" ".join(each.itertext())) for each in _elements(articles, reader)}
        for name in texts:
            if labels.get(name) not in ("true", "false"):
                quarantine.add(f"{articles}: article {name}", f"{truth} says neither true nor false of it")
        known = {name: text for name, text in texts.items() if labels.get(name) in ("true", "false")}
        found = _clean_splits(known) if splits == "clean" else _published_splits(files[2], reader, known)
        for split in SPLITS:
            for name in found[split]:
                yield RawExample({TEXT: known[name]}, {LABEL: labels[name], "id": name}, split)

    settings = {"splits": splits}
    return Corpus("hyperpartisan", settings, source, files, read, lambda: _RULES[splits], classes=(LABEL,))


def cleaned(text: str) -> str:
    """Returns the text of an article as the authors of the paper cleaned it."""
    text = text.replace("&#160;", " ").replace("\xa0", " ")
    text = re.sub(r"\S*(?:https?:|www\.|href)\S*", " ", text)
    text = re.sub(r"\b\w+/\w+\b", " ", text)
    text = re.sub(r"([!?.])\1+", r"\1", text)
    # No English word has a letter three times in a row.
    text = re.sub(r"([A-Za-z])\1{2,}", r"\1", text)
    return " ".join(text.split())


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"source {folder} holds {len(found) or 'no'} files {pattern}, but it should be a folder with "
            f"articles-*.xml, ground-truth-*.xml (SemEval-2019 task 4, by article) and {_SPLIT_FILE}"
        )
    return found[0]


def _content(file: Path, reader: DocumentReader) -> bytes:
    return b"".join(chunk for document in reader.only_document(file) for chunk in document)


def _elements(file: Path, reader: DocumentReader) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.fromstring(_content(file, reader)))
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is no XML ({error}): restore the file") from None


def _published_splits(file: Path, reader: DocumentReader, texts: Mapping[str, str]) -> dict[str, list[str]]:
    try:
        names = {int(name): name for name in texts}
        published = json.loads(_content(file, reader))
        return {split: [names[number] for number in published[theirs]] for split, theirs in _PUBLISHED.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} does not hold the published splits of these articles ({error!r})") from None


def _clean_splits(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the names of the articles of every split, in the order of a hash; those that are alike stay together."""
    groups = _alike(texts)
    order = sorted(texts, key=lambda name: (hashlib.sha256(groups[name].encode()).digest(), name))
    found: dict[str, list[str]] = {}
    for split, size in _HELD_OUT.items():
        while 0 < size < len(order) and groups[order[size - 1]] == groups[order[size]]:
            size += 1
        found[split], order = order[:size], order[size:]
    return {**found, "train": order}


def _alike(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns what stands for the group of each article: the first of its texts by the alphabet.

    Two articles are alike where half of the runs of five words of the one stand in the other.
    """
    runs = {}
    for name, text in texts.items():
        words = re.findall(r"\w+", text.lower())
        runs[name] = {tuple(words[start : start + _RUN]) for start in range(max(1, len(words) - _RUN + 1))}
    holders = defaultdict(list)
    for name, found in runs.items():
        for run in found:
            holders[run].append(name)
    shared = Counter(pair for names in holders.values() for pair in combinations(names, 2))
    group = {name: {name} for name in texts}
    for (first, second), count in shared.items():
        if 2 * count >= min(len(runs[first]), len(runs[second])) and group[first] is not group[second]:
            group[first] |= group[second]
            group.update(dict.fromkeys(group[second], group[first]))
    return {name: min(texts[member] for member in members) for name, members in group.items()}
