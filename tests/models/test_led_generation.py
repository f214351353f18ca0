"""Claims: an LED writes the very tokens that Hugging Face's writes, and words what it cannot do."""

import json
import lzma
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from longformer import models
from longformer.errors import LongformerError
from longformer.models import LEDForConditionalGeneration

VOCABULARY, PADDING, END = 60, 1, 2


def make_pair(folder: Path, *, seed: int = 0, end_bias: float = 0.0, **overrides: Any) -> tuple[Any, Any]:
    """Return Hugging Face's LED and ours with the same weights, sharp enough that tokens hardly tie."""
    torch.manual_seed(seed)
    options = {
        "vocab_size": VOCABULARY,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 32,
        "attention_window": [4],
        "max_encoder_position_embeddings": 64,
        "max_decoder_position_embeddings": 40,
    }
    theirs = transformers.LEDForConditionalGeneration(transformers.LEDConfig(**{**options, **overrides})).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.4)
        theirs.final_logits_bias.normal_()
        theirs.final_logits_bias[0, END] += end_bias
    theirs.save_pretrained(folder)
    return theirs, LEDForConditionalGeneration.from_pretrained(folder)


def make_documents(generator: random.Random) -> dict[str, Tensor]:
    documents, positions = generator.randint(1, 4), generator.randint(6, 40)
    ids = torch.randint(3, VOCABULARY, (documents, positions))
    mask = torch.ones_like(ids)
    for row in range(1, documents):
        mask[row, generator.randint(3, positions) :] = 0
    is_global = torch.zeros_like(ids)
    is_global[:, 0] = generator.randint(0, 1)
    return {
        "input_ids": ids.masked_fill(mask == 0, PADDING),
        "attention_mask": mask,
        "global_attention_mask": is_global,
    }


def draw_settings(generator: random.Random) -> dict[str, Any]:
    """Draw settings, most of the time a few at once."""
    choices: dict[str, list[Any]] = {
        "num_beams": [1, 1, 2, 3, 5],
        "max_length": [12, 25, 40],
        "min_length": [0, 0, 8],
        "no_repeat_ngram_size": [0, 0, 1, 2, 3],
        "length_penalty": [1.0, 0.0, 2.0, -1.0],
        "early_stopping": [False, True, "never"],
        "forced_bos_token_id": [None, None, 7],
        "forced_eos_token_id": [None, END],
        "eos_token_id": [END, END, [END, 9]],
        "do_sample": [False, False, True],
        "temperature": [1.0, 0.7, 1.5],
        "top_k": [50, 0, 5],
        "top_p": [1.0, 0.8],
    }
    settings = {name: generator.choice(values) for name, values in choices.items()}
    if generator.random() < 0.3:
        settings["max_new_tokens"] = generator.randint(1, 20)
    if generator.random() < 0.2:
        settings["min_new_tokens"] = generator.randint(1, 10)
    return settings


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(25))
def test_the_tokens_are_those_of_hugging_face(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    # A model with tied embeddings tends to repeat itself, one without hardly does.
    tied, end_bias = generator.random() < 0.5, generator.choice([0.0, 3.0, 6.0])
    theirs, ours = make_pair(tmp_path, seed=seed, end_bias=end_bias, tie_word_embeddings=tied)
    for _ in range(3):
        documents, settings = make_documents(generator), draw_settings(generator)
        torch.manual_seed(seed)
        expected = theirs.generate(**documents, **settings)
        torch.manual_seed(seed)
        written = ours.generate(**documents, **settings)
        assert written.tolist() == expected.tolist(), settings


@pytest.mark.filterwarnings("ignore")
def test_the_tokens_are_those_of_hugging_face_on_real_papers(test_data: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    files = test_data / "tokenizer_gpt2_roberta"
    tokenizer = tokenizers.ByteLevelBPETokenizer(str(files / "vocab.json"), str(files / "merges.txt"))
    with lzma.open(test_data / "sumpubmed" / "test.jsonl.xz", "rt", encoding="utf-8") as lines:
        papers = [json.loads(line)["article"] for line, _ in zip(lines, range(2), strict=False)]
    texts = [[0, *tokenizer.encode(paper).ids[:1500], 2] for paper in papers]
    texts[1] = texts[1][:900]
    ids = torch.full((2, len(texts[0])), PADDING)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    theirs, ours = make_pair(
        tmp_path,
        end_bias=4.0,
        vocab_size=50265,
        attention_window=[64],
        max_encoder_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    documents = {"input_ids": ids, "attention_mask": (ids != PADDING).long()}
    documents["global_attention_mask"] = torch.zeros_like(ids).index_fill(1, torch.tensor([0]), 1)
    for settings in ({"max_length": 30}, {"num_beams": 4, "max_length": 30, "no_repeat_ngram_size": 3}):
        assert ours.generate(**documents, **settings).tolist() == theirs.generate(**documents, **settings).tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("in_own_file", [True, False])
def test_defaults_come_from_the_folder_and_go_back_into_it(in_own_file: bool, tmp_path: Path) -> None:
    defaults = {"num_beams": 3, "max_length": 15, "forced_bos_token_id": 7, "length_penalty": 2.0}
    make_pair(tmp_path / "plain")
    path = tmp_path / "plain" / ("generation_config.json" if in_own_file else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | defaults))
    if not in_own_file:
        (tmp_path / "plain" / "generation_config.json").unlink()
    ours = LEDForConditionalGeneration.from_pretrained(tmp_path / "plain")
    ours.save_pretrained(tmp_path / "again")
    again, theirs = (
        library.LEDForConditionalGeneration.from_pretrained(tmp_path / "again") for library in (models, transformers)
    )
    ids = torch.randint(3, VOCABULARY, (2, 30))
    expected = theirs.generate(ids).tolist()
    assert expected[0][1] == 7
    assert ours.generate(ids).tolist() == again.generate(ids).tolist() == expected
    shorter = again.generate(ids, max_length=9)
    assert shorter.shape == (2, 9)
    assert shorter.tolist() == theirs.generate(ids, max_length=9).tolist()


def test_padding_is_found_where_no_mask_is_given(tmp_path: Path) -> None:
    _, ours = make_pair(tmp_path)
    ids = torch.randint(3, VOCABULARY, (1, 30))
    padded = torch.cat([ids, torch.full((1, 10), PADDING)], 1)
    assert ours.generate(ids, max_length=20).tolist() == ours.generate(padded, max_length=20).tolist()


def test_beams_share_their_documents_keys_and_what_is_complete_leaves_the_batch(tmp_path: Path) -> None:
    _, ours = make_pair(tmp_path, seed=3, end_bias=5.0)
    seen = []

    def note(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        hidden, source, _ = arguments
        seen.append((hidden.shape[0], source.key.shape[0], source.key.data_ptr()))

    ours.led.decoder.layers[0].encoder_attn.register_forward_pre_hook(note)
    ours.generate(torch.randint(3, VOCABULARY, (6, 20)), num_beams=3, max_length=40, early_stopping=True)
    rows, documents, addresses = zip(*seen, strict=True)
    assert all(each == 3 * count for each, count in zip(rows, documents, strict=True))
    assert documents[0] == 6
    assert documents[-1] < 6
    # One copy of the keys per step at which a document was left out, and no other.
    assert len(set(addresses)) <= len(set(documents))


def test_one_text_does_not_depend_on_the_others_of_its_batch(tmp_path: Path) -> None:
    _, ours = make_pair(tmp_path, end_bias=4.0)
    ids = torch.randint(3, VOCABULARY, (4, 20))
    for settings in ({"num_beams": 3}, {}):
        together = ours.generate(ids, max_length=30, **settings)
        for row, text in zip(ids, together, strict=True):
            alone = ours.generate(row[None], max_length=30, **settings)[0].tolist()
            assert text.tolist() == alone + [PADDING] * (len(text) - len(alone))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_beam": 2}, "generate has no argument num_beam"),
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"max_length": 42}, "max_length must be at most 41"),
        ({"max_new_tokens": 41}, "max_new_tokens must be at most 40, the positions of the decoder, got 41"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"early_stopping": "always"}, "early_stopping must be True, False"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    _, ours = make_pair(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        ours.generate(torch.randint(3, VOCABULARY, (1, 10)), **settings)


def test_a_folder_that_asks_for_more_than_there_is_is_refused(tmp_path: Path) -> None:
    _, ours = make_pair(tmp_path)
    ours.generation_config = {"repetition_penalty": 1.2}
    with pytest.raises(LongformerError, match=r"ask for repetition_penalty 1\.2, which is not supported"):
        ours.generate(torch.randint(3, VOCABULARY, (1, 10)))
