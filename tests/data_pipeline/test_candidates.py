"""WikiHop and MedHop: read as they come, bad records named, and packed as for the Longformer paper."""

import json
import shutil
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.candidates import CandidateSequences, Marks
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.wikihop import wikihop
from data_pipeline.tokenizers.subword import TextTokenizer
from longformer.inference.queries import CANDIDATE_TOKENS, normalized
from longformer.interop.tokenizer import for_words, tokenizer_content, with_tokens

GOOD = {
    "id": "WH_train_0",
    "query": "country sms braunschweig",
    "answer": "german empire",
    "candidates": ["austria", "german empire"],
    "supports": ["The  German Empire , ( or Germany ) was 's .", "", "Austria is no german empire; germanempires no."],
}


def read_all(source: Path, quarantine: Quarantine | None = None, **named: Any) -> list[RawExample]:
    corpus = wikihop(source, normalized=normalized, **named)
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def test_a_query_has_its_candidates_and_documents_a_line_and_counts_who_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps([GOOD]))
    (example,) = read_all(tmp_path)
    assert example.split == "train"
    assert example.texts == {
        "query": "country sms braunschweig",
        "candidates": "austria\ngerman empire",
        "supports": "The German Empire, (or Germany) was's.\nAustria is no german empire; germanempires no.",
    }
    assert example.fields == {
        "id": "WH_train_0",
        "label": 1,
        "query": "country sms braunschweig",
        "candidates": ["austria", "german empire"],
        "mentions": [1, 2],
    }


def test_the_real_samples_are_read_whole(test_data: Path, tmp_path: Path) -> None:
    samples = test_data / "wikihop_samples"
    for name in ("wikihop_train_first22.json", "wikihop_dev_first28.json", "allennlp_qangaroo.json"):
        shutil.copy(samples / name, tmp_path)
    quarantine = Quarantine(0)
    splits = [example.split for example in read_all(tmp_path, quarantine)]
    assert len(splits) == 50
    assert splits.count("validation") == 28
    assert quarantine.left_out == {
        str(tmp_path / "allennlp_qangaroo.json"): "its name tells of no split, as those of other files do"
    }

    medhop = read_all(samples / "qangaroo_medhop.zip", benchmark="medhop")
    masked = read_all(samples / "qangaroo_medhop.zip", benchmark="medhop", masked=True)
    for found in (medhop, masked):
        assert sorted(example.fields["id"] for example in found) == ["MH_dev_0", "MH_train_0"]
        is_masked = {name.startswith("___MASK") for example in found for name in example.fields["candidates"]}
        assert is_masked == {found is masked}


def test_what_is_asked_for_is_told_by_names_and_never_mixed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "qangaroo_v1.1.zip", "w") as archive:
        for benchmark in ("wikihop", "medhop"):
            for name in ("train", "dev", "train.masked", "dev.masked"):
                identifier = f"{benchmark} {name}"
                archive.writestr(f"qangaroo_v1.1/{benchmark}/{name}.json", json.dumps([GOOD | {"id": identifier}]))
    source = tmp_path / "qangaroo_v1.1.zip"
    with pytest.raises(DataError, match=r"holds wikihop and medhop: say with data\.benchmark"):
        wikihop(source, normalized=normalized)
    found = read_all(source, benchmark="medhop", masked=True)
    assert {example.fields["id"] for example in found} == {"medhop train.masked", "medhop dev.masked"}
    shutil.unpack_archive(source, tmp_path)
    found = read_all(tmp_path / "qangaroo_v1.1/wikihop")
    assert {(example.fields["id"], example.split) for example in found} == {
        ("wikihop train", "train"),
        ("wikihop dev", "validation"),
    }
    found = read_all(tmp_path / "qangaroo_v1.1/wikihop/train.masked.json", masked=True)
    assert [example.fields["id"] for example in found] == ["wikihop train.masked"]
    with pytest.raises(DataError, match=r"are not masked; with data\.masked=true the others are read"):
        wikihop(tmp_path / "qangaroo_v1.1/wikihop/train.masked.json", normalized=normalized)
    shutil.rmtree(tmp_path / "qangaroo_v1.1/medhop")
    with pytest.raises(DataError, match="holds no files of medhop"):
        wikihop(tmp_path / "qangaroo_v1.1", normalized=normalized, benchmark="medhop")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "prussia"}, "the answer 'prussia' is none of its 2 candidates"),
        ({"answer": None}, "the answer is empty"),
        ({"query": " "}, "the query is empty"),
        ({"query": 7}, "the query is of the type int, but it should be a text"),
        ({"candidates": ["german empire"]}, "it has one candidate only"),
        ({"candidates": ["german empire", "a", "a"]}, "the candidate 'a' stands twice"),
        ({"candidates": "german empire"}, "the candidates are of the type str, but they should be a list"),
        ({"supports": []}, "it has no supports"),
        ({"supports": [""]}, "it has no supports"),
        ({"supports": ["a", None]}, "support 2 is empty"),
        ({"id": "b"}, "another record has its id b"),
    ],
)
def test_a_bad_record_is_named_and_skipped(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps([GOOD | {"id": "b"}, GOOD | change]))
    quarantine = Quarantine(1)
    assert len(read_all(tmp_path, quarantine)) == 1
    assert quarantine.items() == [(f"{tmp_path / 'train.json'}:2", reason)]


def test_windows_are_those_of_the_paper_in_another_order_every_epoch(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "tokenizer_gpt2_roberta"
    theirs = transformers.RobertaTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=True
    )
    theirs.add_tokens(list(CANDIDATE_TOKENS))
    samples = test_data / "wikihop_samples" / "wikihop_train_first22.json"
    records = {record["id"]: record for record in json.loads(samples.read_text())}
    shutil.copy(samples, tmp_path / "train.json")
    tokenizer = TextTokenizer(for_words(with_tokens(tokenizer_content(folder), CANDIDATE_TOKENS)))
    ids = [tokenizer.id_of(token) for token in CANDIDATE_TOKENS]
    assert ids == theirs.convert_tokens_to_ids(list(CANDIDATE_TOKENS))
    prepared = prepare(
        wikihop(tmp_path / "train.json", normalized=normalized),
        tokenizer=tokenizer,
        output=tmp_path / "out",
        task_map=in_this_process,
    )
    split = prepared.split("train")
    length = 512
    marks = Marks(tokenizer.special.begin, tokenizer.special.end, (ids[0], ids[1]), (ids[2], ids[3]))
    sequences = CandidateSequences(split, marks=marks, sequence_length=length, seed=1)
    sequences.check_room()

    @cache
    def of_paper(text: str) -> list[int]:
        found: list[int] = theirs(normalized(text), add_special_tokens=False)["input_ids"]
        return found

    def parts(tokens: list[int], begin: int, end: int) -> list[tuple[int, ...]]:
        """Returns what stands between begins and ends, which alternate."""
        marked = [place for place, token in enumerate(tokens) if token in (begin, end)]
        return [tuple(tokens[a + 1 : b]) for a, b in zip(marked[::2], marked[1::2], strict=True)]

    orders = set()
    for position in range(2 * sequences.per_epoch):
        found, piece = sequences.sequence(position), sequences._piece(position)
        example = split.read(piece.shard, piece.example)
        assert example is not None
        record = records[example.fields["id"]]
        rows = [row[mask == 1].tolist() for row, mask in zip(found["input_ids"], found["attention_mask"], strict=True)]
        before = int(found["global_attention_mask"][0].sum())
        assert all(len(row) == length for row in rows[:-1])
        assert before < len(rows[-1]) <= length
        front = rows[0][:before]
        assert all(row[:before] == front for row in rows)
        assert (found["global_attention_mask"].sum(1) == before).all()
        query = [theirs.bos_token_id, ids[0], *of_paper(record["query"]), ids[1]]
        assert front[: len(query)] == query
        candidates = parts(front[len(query) :], ids[2], ids[3])
        assert sorted(candidates) == sorted(tuple(of_paper(each)) for each in record["candidates"])
        assert candidates[found["labels"]] == tuple(of_paper(record["answer"]))
        assert [front[place] for place in found["candidate_positions"]] == [ids[2]] * len(candidates)
        assert len(found["candidate_positions"]) == len(candidates)
        documents = [token for row in rows for token in row[before:]]
        end = theirs.eos_token_id
        assert sorted(parts(documents, end, end)) == sorted(tuple(of_paper(each)) for each in record["supports"])
        assert sequences.most_windows() >= len(rows)
        orders.add((record["id"], tuple(candidates), tuple(documents)))
        again = sequences.sequence(position)
        assert all((found[name] == again[name]).all() for name in found)
    assert len(orders) == 2 * sequences.per_epoch

    first = CandidateSequences(split, marks=marks, sequence_length=length, seed=1, long_documents="truncate_end")
    summed = CandidateSequences(split, marks=marks, sequence_length=length, seed=1, window_scores="sum")
    position = next(p for p in range(sequences.per_epoch) if len(sequences.sequence(p)["input_ids"]) > 1)
    whole = sequences.sequence(position)
    assert (first.sequence(position)["input_ids"] == whole["input_ids"][:1]).all()
    assert (summed.sequence(position)["window_weights"] == [1] * len(whole["input_ids"])).all()
    with pytest.raises(DataError, match=r"the query WH_train_\d+ with its \d+ candidates has \d+ tokens"):
        CandidateSequences(split, marks=marks, sequence_length=64, seed=1).check_room()
