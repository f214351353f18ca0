"""Coreference: columns and records of all forms read, bad documents named, written columns read again, and cropping."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.sources.conll import conll_documents, conll_lines
from data_pipeline.sources.coreference import coreference
from data_pipeline.sources.corpora import Corpus, RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine


def split_words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def split_sentences(text: str, words: Sequence[tuple[int, int]]) -> list[int]:
    """Sentences end behind full stops."""
    ends = [number for number, (start, end) in enumerate(words, start=1) if text[start:end] == "."]
    return np.diff(sorted({0, *ends, len(words)})).tolist()


def corpus_of(source: Path, **named: Any) -> Corpus:
    options = {"split_words": split_words, "split_sentences": split_sentences, "singletons": True} | named
    return coreference(source, **options)


def read_all(source: Path, quarantine: Quarantine | None = None, **named: Any) -> list[RawExample]:
    corpus = corpus_of(source, **named)
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def test_litbank_has_what_its_paper_counts_and_is_split_by_tens(litbank: Path) -> None:
    # Bamman, Lewke and Mansoor 2020: 210,532 words, 29,103 mentions, 7,927 entities.
    examples = read_all(litbank, held_out=10)
    found = [example.fields for example in examples]
    assert len(found) == len({fields["document"] for fields in found}) == 100
    assert sum(len(fields["words"]) for fields in found) == 210_532
    clusters = [cluster for fields in found for cluster in fields["clusters"]]
    assert (sum(map(len, clusters)), len(clusters)) == (29_103, 7_927)
    assert sum(len(fields["sentences"]) for fields in found) == 8_562
    assert {(fields["part"], fields["genre"], *set(fields["speakers"])) for fields in found} == {("0", "", "")}
    splits = [example.split for example in examples]
    assert [splits.count(split) for split in ("train", "validation", "test")] == [80, 10, 10]

    (dracula,) = read_all(litbank / "conll" / "345_dracula_brat.conll", singletons=False)
    assert dracula.texts["text"].startswith("CHAPTER\nI\nJONATHAN\nHARKER\n'S\nJOURNAL\n(\n")
    (whole,) = (fields["clusters"] for fields in found if fields["document"] == "345_dracula_brat")
    assert whole[0][0] == (2, 3)
    assert dracula.fields["clusters"] == [cluster for cluster in whole if len(cluster) > 1]


def test_the_official_scorer_s_files_are_read(test_data: Path) -> None:
    folder = test_data / "coref_scorer_tests" / "test" / "DataFiles"
    (key,) = read_all(folder / "TC-A.key")
    assert key.fields["clusters"] == [[(0, 1)], [(3, 6), (9, 9)], [(11, 12), (14, 14), (16, 18)]]
    assert key.fields["sentences"] == [9, 11]
    (key,) = read_all(folder / "TC-B.key")
    assert (key.fields["document"], key.fields["part"], key.fields["genre"]) == (
        "nw/xinhua/00/chtb_0009", "000", "nw"
    )  # fmt: skip
    bad = []
    for file in folder.iterdir():
        quarantine = Quarantine(1)
        assert len(read_all(file, quarantine)) == 1 - len(quarantine.items())
        bad += [(file.name, reason) for _, reason in quarantine.items()]
    # On purpose, as TestCases.README says: the scorer drops the second.
    reason = "the mention of the words 3 to 6 is in two clusters"
    assert sorted(bad) == [("TC-A-8.response", reason), ("TC-A-9.response", reason)]


ONTONOTES = """#begin document (bc/cctv/00/cctv_0000); part 000
bc/cctv/00/cctv_0000   0   0     John   NNP  (TOP(S(NP*   -    -   -   Anna#1     (PERSON*   (ARG0*   (12|(3
bc/cctv/00/cctv_0000   0   1       's   POS           *   -    -   -   Anna#1            *)       *       3)
bc/cctv/00/cctv_0000   0   2   friend    NN           *   -    -   -   Bob               *        *   12)|(0
bc/cctv/00/cctv_0000   0   3       /.     .           *   -    -   -   Anna#1            *        *         -

bc/cctv/00/cctv_0000   0   0       He   PRP           *   -    -   -        -            *   0)|(12)
bc/cctv/00/cctv_0000   0   1     left   VBD           *   -    -   -        -            *         -

#end document
#begin document (bc/cctv/00/cctv_0000); part 001
bc/cctv/00/cctv_0000   1   0       Go    VB           *   -    -   -        -            *         -

#end document
"""


def test_ontonotes_is_read_with_speakers_nested_and_crossing_mentions(tmp_path: Path) -> None:
    (tmp_path / "a.gold_conll").write_text(ONTONOTES.replace("\n", "\r\n"))
    first, second = read_all(tmp_path / "a.gold_conll")
    assert first.texts == {"text": "John\n's\nfriend\n.\nHe\nleft"}
    assert first.fields == {
        "document": "bc/cctv/00/cctv_0000",
        "part": "000",
        "words": ["John", "'s", "friend", ".", "He", "left"],
        "sentences": [4, 2],
        "speakers": ["Anna#1", ""],
        "genre": "bc",
        "clusters": [[(0, 1)], [(0, 2), (4, 4)], [(2, 4)]],
    }
    assert (second.fields["part"], second.fields["words"], second.fields["clusters"]) == ("001", ["Go"], [])
    without = read_all(tmp_path / "a.gold_conll", singletons=False)
    assert without[0].fields["clusters"] == [[(0, 2), (4, 4)]]


def test_folders_of_ontonotes_tell_the_splits_and_only_gold_files_are_read(tmp_path: Path) -> None:
    for split in ("train", "development", "test"):
        # Names below `annotations` say something else.
        folder = tmp_path / "v4" / "data" / split / "data" / "english" / "annotations" / "wb" / "dev_09_c2e" / "00"
        folder.mkdir(parents=True)
        for kind in ("gold", "auto"):
            content = ONTONOTES.replace("bc/cctv/00/cctv_0000", f"wb/{split}")
            (folder / f"dev_09_c2e_0000.v4_{kind}_conll").write_text(content)
    quarantine = Quarantine(0)
    found = {(example.fields["document"], example.split) for example in read_all(tmp_path, quarantine)}
    assert found == {("wb/train", "train"), ("wb/development", "validation"), ("wb/test", "test")}
    assert set(quarantine.left_out.values()) == {"it is not called gold_conll, as other files are"}
    assert len(quarantine.left_out) == 3


def test_fewer_columns_are_told_apart_by_the_one_that_numbers_words(tmp_path: Path) -> None:
    words, cells = ["2", "dogs", "#bark", "."], ["(animal-1", "animal-1)", "_", "_"]
    lines = list(zip(range(4), words, cells, strict=True))
    forms = {
        "ontogum.conll": "# begin document GUM_a\n" + "".join(f"{n}\t{word}\t{cell}\n" for n, word, cell in lines),
        "five.tsv": "#begin document GUM_a\n" + "".join(f"x\t{n}\t{word}\tNN\t{cell}\n" for n, word, cell in lines),
        "two.txt": "#begin document (GUM_a)\n# text\n" + "".join(f"{word}  {cell}\n" for _, word, cell in lines),
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        (example,) = read_all(tmp_path / name)
        assert (example.fields["document"], example.fields["words"]) == ("GUM_a", words), name
        assert (example.fields["sentences"], example.fields["clusters"]) == ([4], [[(0, 1)]]), name
    # Without names and empty lines: a file is a document, and its sentences are told by their words.
    (tmp_path / "plain.conll").write_text("0\tA\t(1)\n1\t.\t_\n2\tB\t(1)\n3\t.\t_\n")
    (example,) = read_all(tmp_path / "plain.conll")
    assert (example.fields["document"], example.fields["sentences"]) == ("plain.conll", [2, 2])


RECORD: dict[str, Any] = {
    "doc_key": "nw/a",
    "tokens": ["Ann", "left", ".", "She", "ran"],
    "sentences": [["Ann", "left", "."], ["She", "ran"]],
    "speakers": [["Ann", "Ann", None], ["-", "-"]],
    "clusters": [[[3, 3], [0, 0], [0, 0]]],
}
FORMS = [
    RECORD,
    {name: RECORD[name] for name in ("doc_key", "sentences", "speakers", "clusters")},
    RECORD | {"sentences": None, "sentence_map": [0, 0, 0, 1, 1], "speakers": ["Ann", "Ann", "Bob", "", ""]},
    RECORD | {"sentences": None, "speakers": ["Ann", ""], "id": 7},
    {"id": "nw/a", "text": "Ann left. She ran", "speakers": ["Ann", None], "clusters": [[[0, 3], [10, 13]]]},
    {
        "id": "nw/a",
        "text": "Ann left. She ran",
        "speakers": ["Ann", "_"],
        "clusters": [[[0, 3], [10, 13]]],
        "sentences": ["Ann left.", " She ran"],
    },
    {
        "id": "a",
        "genre": "nw",
        "text": "Ann left. She ran",
        "clusters": [[[0, 3], [10, 13]]],
        "sentences": RECORD["sentences"],
        "speakers": ["Ann", ""],
        "doc_key": "nw/a",
    },
]


@pytest.mark.parametrize("number", range(len(FORMS)))
@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_every_form_of_a_record_gives_the_same_document(number: int, form: str, tmp_path: Path) -> None:
    record = FORMS[number]
    (tmp_path / f"a.{form}").write_text(json.dumps(record if form == "jsonl" else [record]))
    (example,) = read_all(tmp_path)
    assert example.texts == {"text": "Ann\nleft\n.\nShe\nran"}
    assert example.fields == {
        "document": "nw/a",
        "part": "",
        "words": RECORD["tokens"],
        "sentences": [3, 2],
        "speakers": ["Ann", ""],
        "genre": "nw",
        "clusters": [[(0, 0), (3, 3)]],
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokens": []}, "it has no words"),
        ({"tokens": ["a", 5]}, "word 1 is of the type int, but it should be a word"),
        ({"tokens": ["a\n"]}, "word 0 holds a line end, but it should be a word"),
        ({"tokens": "a"}, "tokens is of the type str, but it should be a list of words"),
        ({"tokens": ["a"] * 6}, "its sentences have 5 words, but it has 6"),
        ({"sentences": ["a"]}, "sentences should be a list with a list of words for every sentence"),
        ({"sentence_map": [0]}, "sentence_map should be a list of 5 numbers, one for every word"),
        ({"speakers": ["a"] * 4}, "it has 5 words, but 4 speakers"),
        ({"clusters": [[0, 1]]}, "the mention 0 should be two numbers"),
        ({"clusters": {}}, "clusters should be a list with a list of mentions for every cluster"),
        ({"clusters": [[[4, 5]]]}, "the mention [4, 5] lies outside its 5 words, counted from 0"),
        ({"clusters": [[[2, 1]]]}, "the mention [2, 1] lies outside its 5 words, counted from 0"),
        ({"clusters": [[[1, 2], [4, 4]], [[1, 2]]]}, "the mention of the words 1 to 2 is in two clusters"),
        ({"doc_key": "b"}, "another document is called b"),
    ],
)
def test_a_bad_record_is_named_and_skipped(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    lines = [RECORD | {"doc_key": "b"}, RECORD | change]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    quarantine = Quarantine(1)
    assert len(read_all(tmp_path, quarantine)) == 1
    assert quarantine.items() == [(f"{tmp_path / 'train.jsonl'}:2", reason)]


def test_a_mention_of_a_text_that_holds_no_word_is_bad(tmp_path: Path) -> None:
    record = {"text": "Ann left", "clusters": [[[3, 4]]]}
    wrong = {"text": "Ann left", "sentences": ["Ann", "went"], "clusters": []}
    (tmp_path / "a.jsonl").write_text(
        "\n".join(map(json.dumps, (record, wrong, {"text": "a"}, {"id": 3}, {"text": 5})))
    )
    quarantine = Quarantine(5)
    assert read_all(tmp_path, quarantine) == []
    assert [reason for _, reason in quarantine.items()] == [
        "the mention [3, 4] holds no word",
        "its sentences are not those of its text",
        "it has no field clusters, only text",
        "it has neither tokens nor sentences nor text, only id",
        "the text is of the type int, but it should be a text",
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("0 a (1\n1 b -", "the mention of the cluster 1 that begins in line 2 does not end"),
        ("0 a -\n1 b 1)", "line 3 ends a mention of the cluster 1, but none has begun"),
        ("0 a (1))\n1 b -", "line 2 ends with '(1))', which is neither - nor mentions such as (3|4)"),
        ("0 a b\n1 b -", "line 2 ends with 'b', which is neither - nor mentions such as (3|4)"),
        ("0 a -\n1 -\n2 c -", "line 3 has 2 columns, but column 2 should hold the word"),
        ("0 a (1)|(2)\n1 b -", "the mention of the words 0 to 0 is in two clusters"),
        ("0 caf\udce9 -\n1 b -", "it is not UTF-8"),
        ("", "it has no words"),
    ],
)
def test_bad_columns_are_named_and_the_next_document_is_read(lines: str, reason: str, tmp_path: Path) -> None:
    good = "#begin document (b); part 000\n0 a -\n1 b -\n#end document\n"
    text = f"#begin document (a)\n{lines}\n#end document\n{good}"
    (tmp_path / "a.conll").write_text(text, errors="surrogateescape")
    quarantine = Quarantine(1)
    assert [example.fields["document"] for example in read_all(tmp_path / "a.conll", quarantine)] == ["b"]
    ((name, why),) = quarantine.items()
    assert name == f"{tmp_path / 'a.conll'}:1"
    assert why.startswith(reason)


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """Sentences, and clusters whose mentions do not cross others of the same cluster."""
    sentences = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    place = st.integers(0, sum(sentences) - 1)
    mentions = draw(st.sets(st.tuples(place, place).map(lambda pair: (min(pair), max(pair))), max_size=12))
    clusters: list[list[tuple[int, int]]] = [[] for _ in range(4)]
    for first, last in sorted(mentions):
        cluster = clusters[draw(st.integers(0, 3))]
        if not any(begin < first <= end < last for begin, end in cluster):
            cluster.append((first, last))
    return sentences, sorted(filter(None, clusters))


@given(documents())
def test_written_columns_are_read_as_the_same_document(
    document: tuple[list[int], list[list[tuple[int, int]]]],
) -> None:
    sentences, clusters = document
    words = [f"w{number}" for number in range(sum(sentences))]
    text = conll_lines("a (b)", "", words, sentences, clusters)
    (record,) = conll_documents("x", iter([text]), "utf-8")
    found = record.load()
    assert (found["doc_key"], found["part"]) == ("a (b)", "000")
    assert sorted(sorted(cluster) for cluster in found["clusters"]) == clusters
    assert found.get("tokens") == words if len(sentences) == 1 else list(map(len, found["sentences"])) == sentences
