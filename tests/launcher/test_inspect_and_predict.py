"""Claims about `longformer inspect` and `longformer predict`: they tell what a model is and run it on real text."""

import io
import json
import lzma
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from launcher.cli import main
from longformer import models
from longformer.interop.convert import convert
from tests.interop.test_conversion import ANTIBODY, GOLDEN

SHAPE: dict[str, Any] = {
    "vocab_size": 50265,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "attention_window": 32,
    "max_position_embeddings": 514,
}
Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns what it prints with --json."""

    def run_command(*arguments: Any) -> Any:
        assert main([str(argument) for argument in arguments] + ["--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run_command


@pytest.fixture
def paper(test_data: Path) -> str:
    with lzma.open(test_data / "sumpubmed" / "test.jsonl.xz", "rt", encoding="utf-8") as lines:
        return json.loads(next(lines))["article"]


def make_model(folder: Path, test_data: Path, name: str, *, added_tokens: Sequence[str] = (), **changes: Any) -> Any:
    """Save a small random model with RoBERTa's tokenizer beside it, which may get further tokens."""
    torch.manual_seed(0)
    if name.startswith("LED"):
        config: Any = models.LEDConfig(
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            attention_window=32,
            max_encoder_position_embeddings=512,
            max_decoder_position_embeddings=64,
            init_std=0.5,
        )
    else:
        shape = {**SHAPE, "vocab_size": SHAPE["vocab_size"] + len(added_tokens)}
        config = models.LongformerConfig(**shape, initializer_range=0.5, **changes)
    model = getattr(models, name)(config).eval()
    model.save_pretrained(folder)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(test_data / "tokenizer_gpt2_roberta" / file, folder)
    if added_tokens:
        (folder / "tokenizer_config.json").write_text(json.dumps({"extra_special_tokens": list(added_tokens)}))
    return model


def test_masked_letters_of_an_antibody_get_their_golden_probabilities(
    run: Run, test_data: Path, tmp_path: Path
) -> None:
    convert(test_data / "roberta_antibody" / "hf_vh", tmp_path / "long", max_length=1024, window=512)
    result = run("predict", tmp_path / "long", ANTIBODY.replace("*", "<mask>"), "--top", 25)
    assert result["task"] == "fill-mask"
    masks = [{each["text"]: each["score"] for each in candidates} for candidates in result["result"]]
    assert len(masks) == ANTIBODY.count("*")
    # The first two of the published rows and the last but one are masked letters: places 0, 1 and 5 of the sequence.
    for candidates, golden in zip(masks[:2], GOLDEN[:2], strict=True):
        assert [candidates[letter] for letter in "ACDE"] == pytest.approx(golden, abs=1e-6)


def test_a_text_is_classified_as_hugging_face_does(run: Run, test_data: Path, tmp_path: Path, paper: str) -> None:
    model = make_model(tmp_path, test_data, "LongformerForSequenceClassification", num_labels=3)
    text = paper[:800]
    (tmp_path / "text.txt").write_text(text)
    result = run("predict", tmp_path, tmp_path / "text.txt")["result"]
    tokenizer = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    theirs = transformers.LongformerForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    expected = theirs(ids).logits[0].softmax(-1)
    torch.testing.assert_close(model(ids).logits[0].softmax(-1), expected, rtol=1e-4, atol=1e-5)
    found = {each["text"]: each["score"] for each in result}
    assert [found[f"LABEL_{index}"] for index in range(3)] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [each["score"] for each in result] == sorted(found.values(), reverse=True)


def test_every_record_of_a_folder_is_answered_as_it_would_be_alone_and_bad_ones_say_why(
    run: Run, test_data: Path, tmp_path: Path, paper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model(tmp_path / "model", test_data, "LongformerForSequenceClassification", num_labels=3)
    source, output = tmp_path / "source", tmp_path / "out" / "found.jsonl"
    source.mkdir()
    texts = [paper[start : start + length] for start, length in ((0, 40), (100, 1_000), (50, 200), (0, 10_000))]
    rows = [{"id": number, "body": text} for number, text in enumerate(texts)] + [{"id": 4}, {"id": 5, "body": " "}]
    rows[1]["author"] = "half a pair: \ud800"
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    command = ["predict", str(tmp_path / "model"), str(source), "--output", str(output), "--field", "text=body"]
    assert main([*command, "--batch-size", "3"]) == 1
    told = capsys.readouterr()
    assert f"{output}: 7 records" in told.out
    assert "whose rest was left out: 1" in told.out
    assert "says why under `error`: 3" in told.err
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["source"] for line in found] == [f"{source / 'rows.jsonl'}:{number}" for number in range(1, 8)]
    assert [line["record"].get("id") for line in found] == [0, 1, 2, 3, 4, 5, None]
    for line, text in zip(found, texts, strict=False):
        alone = run("predict", tmp_path / "model", text)["result"]
        assert [each["text"] for each in line["classes"]] == [each["text"] for each in alone]
        assert [each["score"] for each in line["classes"]] == pytest.approx([each["score"] for each in alone], abs=1e-5)
    assert [line["error"].split(":")[0] for line in found[4:6]] == ["the text is missing", "the text is empty"]
    assert "cannot be read" in found[6]["error"]
    before = output.read_bytes()
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert [file.name for file in output.parent.iterdir()] == [output.name]


def answers_of_logits(starts: list[float], ends: list[float], first: int) -> list[tuple[float, int, int]]:
    """Returns the best 20 spans behind the token `first` with their probabilities beside each other and no answer."""
    spans = [
        (starts[start] + ends[end] - starts[0] - ends[0], start, end)
        for start in range(first, len(starts) - 1)
        for end in range(start, min(start + 30, len(ends) - 1))
    ]
    best = sorted(spans, reverse=True)[:20]
    scores = torch.tensor([0.0, *(score for score, _, _ in best)]).softmax(0)[1:].tolist()
    return [(score, start, end) for score, (_, start, end) in zip(scores, best, strict=True)]


def test_an_answer_is_the_most_probable_piece_of_the_text(
    run: Run, test_data: Path, tmp_path: Path, paper: str
) -> None:
    model = make_model(tmp_path, test_data, "LongformerForQuestionAnswering")
    question, text = "What was measured?", paper[:600]
    found = run("predict", tmp_path, text, "--question", question, "--top", 3)
    answers = found["result"]
    tokenizer = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(question, text)["input_ids"]
    output = model(torch.tensor([ids]))
    starts, ends = (logits[0].tolist() for logits in (output.start_logits, output.end_logits))
    (score, start, end), *others = answers_of_logits(starts, ends, len(tokenizer(question)["input_ids"]) + 1)
    assert [each["score"] for each in answers] == pytest.approx([score, *(each[0] for each in others[:2])], rel=1e-3)
    assert answers[0]["text"] == found["answer"] == tokenizer.decode(ids[start : end + 1]).strip()
    assert found["no_answer"] == pytest.approx(1 - score - sum(each[0] for each in others), abs=1e-4)
    assert all(text[answer["start"] : answer["end"]] == answer["text"] for answer in answers)


def test_every_token_is_labelled_as_hugging_face_does(run: Run, test_data: Path, tmp_path: Path, paper: str) -> None:
    make_model(tmp_path, test_data, "LongformerForTokenClassification", num_labels=3)
    text = paper[:400]
    labels = run("predict", tmp_path, text)["result"]
    tokenizer = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    theirs = transformers.LongformerForTokenClassification.from_pretrained(tmp_path).eval()
    expected = theirs(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, 1:-1].softmax(-1).max(-1)
    assert [each["label"] for each in labels] == [f"LABEL_{index}" for index in expected.indices.tolist()]
    assert [each["score"] for each in labels] == pytest.approx(expected.values.tolist(), abs=1e-5)
    assert all(text[each["start"] :].startswith(each["text"]) for each in labels)
    assert "".join(each["text"] for each in labels).replace(" ", "") == text.replace(" ", "")


def test_the_choices_have_the_probabilities_of_hugging_face(
    run: Run, test_data: Path, tmp_path: Path, paper: str
) -> None:
    make_model(tmp_path, test_data, "LongformerForMultipleChoice")
    text, choices = paper[:60], ["The cells died.", "It rained all day long.", "Nothing."]
    found = run("predict", tmp_path, text, *(part for choice in choices for part in ("--choice", choice)))["result"]
    tokenizer = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    theirs = transformers.LongformerForMultipleChoice.from_pretrained(tmp_path).eval()
    batch = tokenizer([text] * 3, choices, padding=True, return_tensors="pt")
    scores = theirs(**{name: ids[None] for name, ids in batch.items()}).logits[0].softmax(-1).tolist()
    expected = dict(zip(choices, scores, strict=True))
    assert max(scores) - min(scores) > 0.01
    assert {each["text"]: each["score"] for each in found} == pytest.approx(expected, abs=1e-5)
    assert [each["text"] for each in found] == sorted(choices, key=lambda choice: -expected[choice])


def test_an_led_answers_with_the_logits_of_hugging_face(run: Run, test_data: Path, tmp_path: Path, paper: str) -> None:
    make_model(tmp_path, test_data, "LEDForQuestionAnswering")
    question, text = "What was measured?", paper[:600]
    answers = run("predict", tmp_path, text, "--question", question, "--top", 3)["result"]
    tokenizer = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    asked, ids = (tokenizer(each, add_special_tokens=False)["input_ids"] for each in (question, text))
    theirs = transformers.LEDForQuestionAnswering.from_pretrained(tmp_path).eval()
    room = 64 - len(asked) - 4  # its decoder has 64 positions
    step, found = room - room // 2, []
    for number in range(-(-(len(ids) - room) // step) + 1):
        start = min(len(ids) - room, step * number)
        window = torch.tensor([[0, *asked, 2, 2, *ids[start : start + room], 2]])
        output = theirs(window, global_attention_mask=(torch.arange(64) <= len(asked)).long()[None])
        starts, ends = output.start_logits[0], output.end_logits[0]
        spans = (starts[:, None] + ends - starts[0] - ends[0]).triu().tril(29)[len(asked) + 3 : -1, len(asked) + 3 : -1]
        first, last = divmod(int(spans.argmax()), room)
        found.append((float(spans.max()), start + first, start + last))
    _, first, last = max(found)
    assert answers[0]["text"] == tokenizer.decode(ids[first : last + 1]).strip()
    assert all(text[answer["start"] : answer["end"]] == answer["text"] for answer in answers)


def test_a_summary_is_what_generate_writes_with_the_first_token_global(
    run: Run, test_data: Path, tmp_path: Path, paper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path, test_data, "LEDForConditionalGeneration")
    monkeypatch.setattr("sys.stdin", io.StringIO(paper[:1000]))
    summary = run("predict", tmp_path, "-", "--max-new-tokens", 12, "--num-beams", 3)["result"]
    tokenizer = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    theirs = transformers.LEDForConditionalGeneration.from_pretrained(tmp_path).eval()
    ids = torch.tensor([tokenizer(paper[:1000])["input_ids"]])
    is_global = torch.zeros_like(ids).index_fill(1, torch.tensor([0]), 1)
    expected = theirs.generate(ids, global_attention_mask=is_global, max_new_tokens=12, num_beams=3)
    assert summary == tokenizer.decode(expected[0], skip_special_tokens=True).strip() != ""


def test_the_end_of_a_text_that_is_too_long_is_left_out_with_a_warning(
    run: Run, test_data: Path, tmp_path: Path, paper: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_model(tmp_path, test_data, "LongformerForSequenceClassification")
    whole = run("predict", tmp_path, paper)
    assert "the model reads 512: the rest is left out; a longer model is made with longformer convert" in caplog.text
    assert run("predict", tmp_path, paper + " More.") == whole


def test_inspect_tells_what_a_model_is_without_its_weights(run: Run, test_data: Path, tmp_path: Path) -> None:
    source = test_data / "roberta_antibody" / "hf_vh"
    convert(source, tmp_path / "long", max_length=1024, window=512, freeze_pretrained=True)
    found = run("inspect", tmp_path / "long", "--length", 100)
    model = models.LongformerForMaskedLM.from_pretrained(tmp_path / "long")
    assert found["architecture"] == "LongformerForMaskedLM"
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["encoder"]["positions"] == 1024
    assert found["config"]["attention_window"] == [512] * 4
    assert (found["pretrained_rows"], found["freeze_pretrained"]) == (146, True)
    assert (found["tokenizer"], found["layout"], found["dtypes"]) == ("tokenizer.json", "Hugging Face", ["float32"])


def test_commands_word_their_refusals(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "answers", test_data, "LongformerForQuestionAnswering")
    make_model(tmp_path / "bare", test_data, "LongformerModel")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "gpt2"}')
    make_model(tmp_path / "untold", test_data, "LEDForConditionalGeneration")
    (tmp_path / "untold" / "vocab.json").unlink()
    for arguments, sentence in (
        (["predict", "answers", "A text."], "give the question with --question"),
        (["predict", "answers", "A text.", "--task", "choose"], "give the choices with --choice"),
        (["predict", "answers", "A text.", "--task", "label", "--choice", "A"], "--choice is for choosing, not"),
        (["predict", "bare", "A text."], "names the architecture LongformerModel"),
        (["predict", "bare", "A text."], "or choose with --task what it is to do"),
        (["predict", "answers", "answers", "--question", "Why?"], "is a folder: give a file of it, or the text"),
        (["register", "bare", "--name", "bare"], "write the class that its weights are of into architectures of its"),
        (["predict", "bare", "A text.", "--task", "classify"], "has no weights for classify"),
        (["predict", "answers", "missing.txt", "--question", "Why?"], "missing.txt does not exist"),
        (["predict", "answers", "", "--question", "Why?"], "the text is empty"),
        (["predict", "answers", "rows.csv", "--question", "Why?", "--output", "out.jsonl"], "are for one text; with"),
        (["predict", "answers", "A text.", "--field", "text=body"], "--field is for the records of a file"),
        (["predict", "untold", "A text."], "holds no tokenizer that can be read"),
        (["inspect", "other"], "is a model of the family gpt2, not a Longformer or an LED"),
        (["inspect", "nowhere"], "config.json is missing"),
        (["inspect", "answers", "--length", "600"], "length must be from 1 to the 512 tokens"),
    ):
        command, folder, *rest = arguments
        assert main([command, str(tmp_path / folder), *rest]) == 2
        assert sentence in capsys.readouterr().err.replace("\n", " ")
