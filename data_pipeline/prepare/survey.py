"""What documents look like before anything is prepared: their fields, lengths in tokens and languages.

Only the first documents are looked at, in the fixed order of preparation; the whole is estimated from them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from data_pipeline.errors import DataError
from data_pipeline.prepare.survey_labels import LabelledCorpus, find_labelled, find_questions, find_tagged
from data_pipeline.sources.corpora import SPLITS, TEXT, Corpus, NamedSplits
from data_pipeline.sources.documents import documents, find_documents
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.labels import ClassCounts
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading, first_records, form_of, joined_text
from data_pipeline.sources.summaries import DOCUMENT, LAYOUTS, SUMMARY, summaries
from data_pipeline.tokenizers.subword import TextTokenizer

MEASURED = 500
"""Documents whose tokens are counted."""
COUNTED = 5_000
"""Documents that are read, to estimate how many there are."""
LABELS_COUNTED = 100_000
"""Labelled documents that are read, which may be sorted by their labels."""
BYTES_PER_TOKEN = 4
"""Assumed where there is no tokenizer: byte-level vocabularies take 4 to 5 of English."""
_RECORDS = 20
"""Lines or rows that tell the fields."""
_CHARACTERS = 2_000
"""Characters of a document that tell its language."""
_SURE = 0.5
"""Least probability at which a language is believed."""
_RARE = 0.01
"""Languages with a smaller share of the documents are not named."""
_MUCH_DAMAGED = 0.05
"""Share of the readable records above which damage is told."""
_SUMMARY_NAMES = ("summary", "abstract", "highlights", "target", "tldr")
_OTHER_ROLES = {"query": ("query", "question"), "identifier": ("identifier", "id")}


@dataclass(frozen=True)
class Survey:
    """What documents look like."""

    kind: str
    """The form of the first file: text, json lines, json, csv or parquet."""
    fields: str
    """Where they keep the text, or the layout of documents with summaries, in the words of a run file."""
    lengths: np.ndarray
    """Tokens of the documents that were measured, in increasing order."""
    summary_lengths: np.ndarray
    """Tokens of their summaries, in increasing order; empty where there are none."""
    documents: int
    """How many there are, estimated where there are more than COUNTED."""
    damaged: int
    """Lines that cannot be read, estimated likewise."""
    languages: tuple[tuple[str, float], ...]
    """ISO 639 codes with their shares of the documents, the largest first; und: not known, zxx: no language."""

    notes: tuple[str, ...] = ()
    """What looks wrong: much that cannot be read, lists, summaries as long as their documents."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Documents of each split, where names of files tell of splits; estimated likewise."""
    section: Mapping[str, Any] = field(default_factory=dict)
    """Of labelled documents: what the data section of a run file says to read them so."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """How often every class stands in the training documents that were read; empty where labels are no classes."""

    @property
    def damaged_allowed(self) -> int:
        """Twice what is damaged; nothing where that is much, for then something else is wrong."""
        return 0 if self.damaged > _MUCH_DAMAGED * self.documents else 2 * self.damaged

    @property
    def tokens(self) -> int:
        """Of all documents, estimated."""
        return int(self.documents * self.lengths.mean())


def survey_documents(source: Path, tokenizer: TextTokenizer | None) -> Survey:
    """Looks at a file or folder of text or records.

    Args:
        source: the file or folder.
        tokenizer: counts tokens; None = they are estimated from bytes.

    Raises:
        DataError: there are no documents, they cannot be read, or no field holds text.
    """
    first = find_documents(source)[0]
    is_text = form_of(first, Reading()) == "text"
    field = "text" if is_text else _text_fields(first, first_records(first, _RECORDS, Reading()))[0]
    return _survey(documents(source, field=field), field, tokenizer)


def survey_summaries(source: Path, tokenizer: TextTokenizer | None) -> Survey:
    """Looks at documents with summaries; arguments as in `survey_documents`.

    Raises:
        DataError: there are none, they are no records, or have no two fields of text.
    """
    files = summaries(source, next(iter(LAYOUTS))).files
    layout = _layout(files[0])
    return _survey(summaries(source, layout), layout, tokenizer)


def survey_labelled(source: Path, tokenizer: TextTokenizer | None) -> Survey:
    """Looks at texts with labels; arguments as in `survey_documents`.

    Raises:
        DataError: there are none, no field looks like a label, or its values are no classes that can be learned.
    """
    return _survey_labels(find_labelled(source), tokenizer)


def survey_tagged(source: Path, tokenizer: TextTokenizer | None) -> Survey:
    """Looks at words with a label each; arguments and errors as in `survey_labelled`."""
    return _survey_labels(find_tagged(source), tokenizer)


def survey_questions(source: Path, tokenizer: TextTokenizer | None) -> Survey:
    """Looks at questions about texts; arguments as in `survey_documents`.

    Raises:
        DataError: there are none, or no fields look like context, question and answers.
    """
    return _survey_labels(find_questions(source), tokenizer)


def _survey_labels(found: LabelledCorpus, tokenizer: TextTokenizer | None) -> Survey:
    fields = ", ".join(f"{key} {value}" for key, value in found.section.items()) or found.corpus.name
    survey = _survey(found.corpus, fields, tokenizer, count_most=LABELS_COUNTED)
    return replace(survey, section=found.section, notes=(*survey.notes, *found.notes))


def _survey(corpus: Corpus, fields: str, tokenizer: TextTokenizer | None, *, count_most: int = COUNTED) -> Survey:
    done, total = 0, 1

    def report_progress(*progress: int) -> None:
        nonlocal done, total
        done, total = progress

    quarantine = Quarantine(count_most)
    examples = corpus.read(DocumentReader(corpus.files, report_progress), quarantine)
    first_ones = list(islice(examples, MEASURED))
    if not first_ones:
        raise corpus.nothing(quarantine)
    measured = [example.texts for example in first_ones]
    splits, classes = Counter[str | None](), ClassCounts()
    for each in chain(first_ones, islice(examples, count_most - MEASURED)):
        splits[each.split] += 1
        for name in corpus.classes:
            classes.add(each.split or "train", name, each.fields[name])
    classes.check()
    read = splits.total()
    texts = [str(each.get(DOCUMENT, each.get(TEXT))) for each in measured]
    if corpus.words:
        texts = [text.replace("\n", " ") for text in texts]
    written = [str(text) for each in measured for name, text in each.items() if name.startswith(SUMMARY)]
    count = read if read < count_most else round(read * total / done)
    notes = []
    if len(damaged := quarantine.items()) > _MUCH_DAMAGED * read:
        name, reason = damaged[0]
        notes.append(
            f"{len(damaged):,} of {len(damaged) + read:,} records cannot be read, and the run file allows none; the "
            f"first is {name}: {reason}"
        )
    first = [str(each[f"{SUMMARY}0"]) for each in measured if f"{SUMMARY}0" in each]
    alike = sum(2 * len(text) > len(document) for text, document in zip(first, texts, strict=False))
    if 2 * alike > len(texts):
        notes.append(f"most summaries are at least half as long as their documents: are the fields right ({fields})?")
    if len(written) > len(texts) and fields not in LAYOUTS:
        notes.append(
            f"{len(texts):,} documents have {len(written):,} summaries, for their field is a list: each string in it "
            "is a summary by itself; where they are the sentences of one, join them first"
        )
    return Survey(
        kind=form_of(corpus.files[0], Reading()),
        fields=fields,
        lengths=_lengths(texts, tokenizer),
        summary_lengths=_lengths(written, tokenizer),
        documents=count,
        damaged=round(len(quarantine.items()) * count / read),
        languages=_languages([text[:_CHARACTERS] for text in texts]),
        notes=tuple(notes),
        splits=_splits(corpus, splits, count),
        classes=classes.as_json().get(LABEL, {}).get("train", {}),
    )


def _splits(corpus: Corpus, read: Counter[str | None], count: int) -> dict[str, int]:
    """Returns how many documents every split has that names tell of; nothing where none do.

    Args:
        corpus: all of it.
        read: the documents that were read, by split.
        count: how many there are.
    """
    found = {split: number for split, number in read.items() if split is not None}
    if found and read.total() < count and corpus.source is not None:
        # Those read first are of the first files: the sizes of all tell more.
        names = NamedSplits.of(corpus.source, corpus.files).names
        sizes = Counter[str]()
        for file in corpus.files:
            sizes[names.get(str(file)) or "train"] += file.stat().st_size
        found = {split: round(count * size / sizes.total()) for split, size in sizes.items()}
    if found and "train" not in found:
        raise DataError(f"{corpus.source} holds no training documents: its names tell only of {', '.join(found)}")
    return {split: found[split] for split in SPLITS if split in found}


def _lengths(texts: list[str], tokenizer: TextTokenizer | None) -> np.ndarray:
    if tokenizer is None:
        return np.sort([-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts])
    return np.sort([len(tokens) for tokens in tokenizer.encode_batch(texts)])


def _languages(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    guesser = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=_SURE)
    counts = Counter(guesser.classify(text)[0] for text in texts)
    shares = [(language, count / len(texts)) for language, count in counts.most_common()]
    return tuple((language, share) for language, share in shares if share >= _RARE)


def _layout(file: Path) -> str:
    """Returns the published layout that the first lines have, or else the names of their fields."""
    records = first_records(file, _RECORDS, Reading())
    for name, layout in LAYOUTS.items():
        try:
            for record in records:
                list(layout("", record))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        return name
    texts = _text_fields(file, records)
    roles = {
        role: next(name for name in names if name in texts)
        for role, names in _OTHER_ROLES.items()
        if any(name in texts for name in names)
    }
    longest = [name for name in texts if name not in roles.values()]
    if len(longest) < 2:
        raise DataError(f"{file} has no two fields for a document and its summary; it has {_described(records)}")
    summary = next((name for name in _SUMMARY_NAMES if name in longest), longest[1])
    document = next(name for name in longest if name != summary)
    roles = {"document": document, "summary": summary, **roles}
    return ",".join(f"{role}={name}" for role, name in roles.items())


def _text_fields(file: Path, records: list[dict[str, Any]]) -> list[str]:
    """Returns the fields that hold text in all records, those with the most of it first.

    Raises:
        DataError: there is none; the sentence names those there are.
    """
    sizes: Counter[str] = Counter()
    for name in records[0]:
        try:
            sizes[name] = sum(len(joined_text(record[name])) for record in records)
        except (KeyError, TypeError):
            continue
    if not sizes:
        raise DataError(f"{file} has no field of text; it has {_described(records)}")
    return [name for name, _ in sizes.most_common()]


def _described(records: list[dict[str, Any]]) -> str:
    return ", ".join(f"{name} ({type(value).__name__})" for name, value in records[0].items()) or "no fields"
