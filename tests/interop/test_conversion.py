"""Claims: where every token sees every other, a converted model equals its source; beyond, positions repeat."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from longformer import models
from longformer.errors import LongformerError
from longformer.interop.convert import convert

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 34,
}
ENCODERS = {
    "roberta": ("Roberta", {"pad_token_id": 1, "type_vocab_size": 1}, 32),
    "xlm-roberta": ("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1}, 32),
    "bert": ("Bert", {"pad_token_id": 0}, 34),
    "electra": ("Electra", {"pad_token_id": 0, "embedding_size": 16}, 34),
}
# The masked sequence of the Sapiens README, one letter a token, and the first rows and columns (A, C, D, E) it prints.
ANTIBODY = (
    "**QLV*SGVEVKKPGASVKVSCKASGYTFTNYYMYWVRQAPGQGLEWMGGINPSNGGTNF"
    "NEKFKNRVTLTTDSSTTTAYMELKSLQFDDTAVYYCARRDYRFDMGFDYWGQGTTVTVSS"
)
GOLDEN = [
    [0.003272, 0.004147, 0.004011, 0.004590],
    [0.012038, 0.003854, 0.006803, 0.008174],
    [0.003384, 0.003895, 0.003726, 0.004068],
    [0.004612, 0.005325, 0.004443, 0.004641],
]


def make_source(family: str, folder: Path, head: str = "ForMaskedLM", **overrides: Any) -> Any:
    torch.manual_seed(0)
    name, options, _ = ENCODERS[family]
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **options, **overrides})
    model = getattr(transformers, name + head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("is_global", [False, True])
def test_a_converted_model_equals_its_source_where_everyone_sees_everyone(
    family: str, is_global: bool, tmp_path: Path
) -> None:
    source = make_source(family, tmp_path / "short")
    report = convert(tmp_path / "short", tmp_path / "long", max_length=100, window=70)
    assert len(report.initialised) == 2 * 6
    longest = ENCODERS[family][2]
    ids = torch.randint(3, 40, (2, longest))
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    ids[1, 20:] = source.config.pad_token_id
    expected = source(ids, attention_mask=mask).logits
    for library in (models, transformers):
        model = library.LongformerForMaskedLM.from_pretrained(tmp_path / "long")
        logits = model.eval()(ids, attention_mask=mask, global_attention_mask=mask * is_global).logits
        torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("window", "equal"), [(8, 5), (30, 16), (60, 31), (62, 32), (64, 32)])
def test_a_converted_model_equals_its_source_up_to_the_length_that_is_said(
    window: int, equal: int, tmp_path: Path
) -> None:
    source = make_source("roberta", tmp_path / "short")
    assert convert(tmp_path / "short", tmp_path / "long", max_length=64, window=window).equal_length == equal
    model = models.LongformerForMaskedLM.from_pretrained(tmp_path / "long")
    ids = torch.randint(3, 40, (1, 32))
    torch.testing.assert_close(model(ids[:, :equal]).logits, source(ids[:, :equal]).logits, rtol=1e-4, atol=1e-5)
    if equal < 32:
        longer = ids[:, : equal + 1]
        assert float((model(longer).logits - source(longer).logits).detach().abs().max()) > 1e-4
    # What has the same windows stays the same, whatever their width.
    again = convert(tmp_path / "long", tmp_path / "longer", max_length=128, window=window)
    other = convert(tmp_path / "long", tmp_path / "other", max_length=128, window=window + 2)
    assert (again.equal_length, other.equal_length) == (64, window // 2 + 1)


@pytest.mark.parametrize("family", ENCODERS)
def test_positions_repeat_block_by_block(family: str, tmp_path: Path) -> None:
    source = make_source(family, tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "long", max_length=75, window=8)
    model = models.LongformerForMaskedLM.from_pretrained(tmp_path / "long")
    assert model.config.max_tokens == 75
    known, table = ENCODERS[family][2], model.longformer.embeddings.position_embeddings.weight
    own = source.base_model.embeddings.position_embeddings.weight[-known:]
    first = model.config.pad_token_id + 1
    for token in range(75):
        assert torch.equal(table[first + token], own[token % known])
    if ENCODERS[family][2] == 32:
        assert torch.equal(table[:2], source.base_model.embeddings.position_embeddings.weight[:2])


def test_real_weights_give_their_golden_probabilities_after_conversion(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "roberta_antibody" / "hf_vh"
    convert(folder, tmp_path / "long", max_length=1024, window=512)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    ids = torch.tensor([[0, *(vocabulary[letter.replace("*", "<mask>")] for letter in ANTIBODY), 2]])
    with torch.no_grad():
        logits = models.LongformerForMaskedLM.from_pretrained(tmp_path / "long")(ids).logits[0]
        source = transformers.RobertaForMaskedLM.from_pretrained(folder).eval()(ids).logits[0]
    torch.testing.assert_close(logits, source, rtol=1e-4, atol=1e-4)
    probabilities = logits[1:5, [vocabulary[letter] for letter in "ACDE"]] - logits[1:5].logsumexp(-1, keepdim=True)
    torch.testing.assert_close(probabilities.exp(), torch.tensor(GOLDEN), atol=1e-6, rtol=0)


def test_a_converted_model_can_be_made_longer_again_and_keeps_its_global_projections(tmp_path: Path) -> None:
    make_source("roberta", tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=8)
    model = models.LongformerForMaskedLM.from_pretrained(tmp_path / "long")
    with torch.no_grad():
        model.longformer.encoder.layer[0].attention.self.query_global.weight.add_(1)
    model.save_pretrained(tmp_path / "trained")
    report = convert(tmp_path / "trained", tmp_path / "longer", max_length=200, window=16)
    longer = models.LongformerForMaskedLM.from_pretrained(tmp_path / "longer")
    assert report.initialised == []
    assert longer.config.max_tokens == 200
    own, kept = (each.longformer.encoder.layer[0].attention.self.query_global.weight for each in (model, longer))
    assert torch.equal(own, kept)


@pytest.mark.parametrize("max_length", [2**15, 2**16])
def test_texts_far_beyond_published_lengths_are_read(max_length: int, tmp_path: Path) -> None:
    source = make_source("xlm-roberta", tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "long", max_length=max_length, window=64)
    model = models.LongformerForMaskedLM.from_pretrained(tmp_path / "long")
    text = torch.randint(3, 40, (1, 32))
    with torch.no_grad():
        # Positions repeat every 32 tokens, so a text that does so too looks the same everywhere but near its ends.
        logits = model(text.repeat(1, max_length // 32)).logits[0]
    assert len(logits) == max_length
    torch.testing.assert_close(logits[1024:1056], logits[-1056:-1024], rtol=1e-4, atol=1e-4)
    known = source.base_model.embeddings.position_embeddings.weight[2:]
    assert torch.equal(model.longformer.embeddings.position_embeddings.weight[-32:], known)


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("roberta", "ForSequenceClassification"),
        ("roberta", "ForTokenClassification"),
        *((family, "ForQuestionAnswering") for family in ENCODERS),
    ],
)
def test_heads_that_a_longformer_has_too_come_along(family: str, head: str, tmp_path: Path) -> None:
    source = make_source(family, tmp_path / "short", head)
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=70)
    model = getattr(models, f"Longformer{head}").from_pretrained(tmp_path / "long")
    ids = torch.randint(3, 40, (2, 20))
    ours = model(ids, global_attention_mask=torch.zeros_like(ids))
    expected = source(ids)
    name = "start_logits" if head == "ForQuestionAnswering" else "logits"
    torch.testing.assert_close(getattr(ours, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


def test_a_masked_lm_head_with_another_activation_is_left_out(tmp_path: Path) -> None:
    source = make_source("bert", tmp_path / "short", hidden_act="relu")
    report = convert(tmp_path / "short", tmp_path / "long", max_length=64, window=70)
    assert "cls.predictions.bias" in report.left_out
    model = models.LongformerModel.from_pretrained(tmp_path / "long")
    ids = torch.randint(3, 40, (2, 20))
    torch.testing.assert_close(
        model(ids).last_hidden_state, source.base_model(ids).last_hidden_state, rtol=1e-4, atol=1e-5
    )


def test_a_limit_inside_the_tokenizer_grows_too(tmp_path: Path) -> None:
    make_source("roberta", tmp_path / "short")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 4, "<unk>": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(32)
    tokenizer.save(str(tmp_path / "short" / "tokenizer.json"))
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=8)
    converted = tokenizers.Tokenizer.from_file(str(tmp_path / "long" / "tokenizer.json"))
    assert len(tokenizer.encode("a " * 100)) == 32
    assert len(converted.encode("a " * 100)) == 64


def test_the_tokenizer_comes_along_with_its_new_limit(tmp_path: Path) -> None:
    make_source("bert", tmp_path / "short")
    words = ["[PAD]", "a", "b", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "short" / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "short" / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 34, "do_lower_case": True})
    )
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "long")
    assert tokenizer.model_max_length == 64
    assert tokenizer("a b")["input_ids"] == [4, 1, 2, 5]
    for folder, limit in (("long", 64), ("longer", 128)):
        if folder == "longer":
            # As transformers 5 saves it: the vocabulary is in tokenizer.json alone.
            tokenizer.save_pretrained(tmp_path / "saved")
            convert(tmp_path / "short", tmp_path / folder, max_length=limit, window=8, tokenizer=tmp_path / "saved")
        config = models.LongformerModel.from_pretrained(tmp_path / folder).config
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id, config.sep_token_id) == (0, 4, 5, 5)


def test_sources_that_cannot_be_converted_are_named(tmp_path: Path) -> None:
    make_source("electra", tmp_path / "small", embedding_size=8)
    with pytest.raises(LongformerError, match="embeddings of size 8 to 16"):
        convert(tmp_path / "small", tmp_path / "long", max_length=64, window=8)
    make_source("bert", tmp_path / "short")
    with pytest.raises(ValueError, match="max_length must be at least the 34 tokens"):
        convert(tmp_path / "short", tmp_path / "long", max_length=20, window=8)
    with pytest.raises(ValueError, match="window must be even and positive"):
        convert(tmp_path / "short", tmp_path / "long", max_length=64, window=7)
    config = tmp_path / "short" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "gpt2"}))
    with pytest.raises(LongformerError, match="family gpt2; convert knows roberta"):
        convert(tmp_path / "short", tmp_path / "long", max_length=64, window=8)


@pytest.mark.parametrize("named", [None, []])
@pytest.mark.parametrize("family", ENCODERS)
def test_a_config_with_nulls_is_converted_as_if_they_were_not_there(family: str, named: Any, tmp_path: Path) -> None:
    make_source(family, tmp_path / "short")
    file = tmp_path / "short" / "config.json"
    nulls = ("position_embedding_type", "embedding_size", "tie_word_embeddings", "pad_token_id", "sep_token_id")
    values = json.loads(file.read_text()) | {"architectures": named} | dict.fromkeys(nulls)
    file.write_text(json.dumps(values))
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=8)
    assert models.LongformerModel.from_pretrained(tmp_path / "long").config.max_tokens == 64


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", None, "config.json must say num_hidden_layers, a number, not null"),
        ("hidden_size", "16", 'config.json must say hidden_size, a number, not "16"'),
        ("intermediate_size", "24", "config.json says intermediate_size is '24', which is no number"),
        ("max_position_embeddings", 50, "max_position_embeddings 50, but the weights have 34 positions"),
        ("vocab_size", 41, r"word_embeddings.weight has shape \(40, 16\) instead of \(41, 16\)"),
        ("type_vocab_size", 3, "token_type_embeddings.weight has shape"),
        ("intermediate_size", 32, "intermediate.dense.weight has shape"),
        ("num_hidden_layers", 3, r"encoder\.layer\.2\.\S* is missing"),
        ("num_hidden_layers", 1, r"encoder\.layer\.1\.\S* is unknown"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(key: str, value: Any, message: str, tmp_path: Path) -> None:
    make_source("roberta", tmp_path / "short")
    file = tmp_path / "short" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(LongformerError, match=message):
        convert(tmp_path / "short", tmp_path / "long", max_length=64, window=8)
    assert not (tmp_path / "long").exists()
