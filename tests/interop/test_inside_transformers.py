"""Claims: our models, and Hugging Face's with our attention, live in Trainer, pipelines and peft."""

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import tokenizers
import torch
import transformers
from torch import Tensor

from longformer import models
from longformer.errors import LongformerError
from longformer.interop import patch
from tests.models.longformer_cases import HEADS

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "attention_window": [4, 8],
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
}
LED_SHAPE = {
    "vocab_size": 50,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "attention_window": [4, 8],
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 32,
}
OWNERS = ["ours", "patched"]


def build(owner: str, head: str) -> Any:
    torch.manual_seed(0)
    family, shape = ("LEDConfig", LED_SHAPE) if head.startswith("LED") else ("LongformerConfig", SHAPE)
    if owner == "ours":
        model = getattr(models, head)(getattr(models, family)(**shape))
    else:
        model = patch(getattr(transformers, head)(getattr(transformers, family)(**shape)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def texts() -> list[dict[str, Tensor]]:
    """Return texts whose class is told by their second token."""
    rows = torch.randint(5, 50, (32, 20))
    return [{"input_ids": row, "attention_mask": torch.ones(20).long(), "labels": (row[1] > 27).long()} for row in rows]


def logits(model: Any, rows: list[dict[str, Tensor]]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.stack([row["input_ids"] for row in rows])).logits


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_trainer_trains_and_evaluates_and_what_it_learnt_is_saved(owner: str, accumulated: int, tmp_path: Path) -> None:
    model, rows = build(owner, "LongformerForSequenceClassification"), texts()
    arguments = transformers.TrainingArguments(
        str(tmp_path / "trainer"), max_steps=30, learning_rate=3e-3, per_device_train_batch_size=8, use_cpu=True,
        gradient_accumulation_steps=accumulated, gradient_checkpointing=accumulated > 1, save_strategy="no",
        report_to=[], disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.01
    predicted = torch.from_numpy(trainer.predict(rows).predictions)
    if owner == "ours":
        model.save_pretrained(tmp_path / "saved")
    else:
        trainer.save_model(str(tmp_path / "saved"))
    for library in (models, transformers):
        again = library.LongformerForSequenceClassification.from_pretrained(tmp_path / "saved")
        torch.testing.assert_close(logits(again, rows), predicted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("head", ["LEDForConditionalGeneration", "LongformerForMaskedLM"])
def test_trainer_knows_the_labels_of_what_writes_words(owner: str, head: str, tmp_path: Path) -> None:
    is_led = head.startswith("LED")
    model, rows = build(owner, head), texts()
    for row in rows:
        row["labels"] = row["input_ids"][:8] if is_led else row["input_ids"]
    arguments = transformers.Seq2SeqTrainingArguments(
        str(tmp_path / "trainer"), max_steps=20, learning_rate=3e-3, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no" if owner == "ours" else "steps", save_steps=10,
        predict_with_generate=is_led and owner == "patched",
    )  # fmt: skip
    trainer = transformers.Seq2SeqTrainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.01
    saved = tmp_path / "saved"
    if owner == "ours":
        model.save_pretrained(saved)
    else:
        trainer.save_model(str(saved))
        assert len(trainer.predict(rows).predictions) == len(rows)
        trainer.train(resume_from_checkpoint=str(tmp_path / "trainer" / "checkpoint-10"))
    batch = {"input_ids": torch.stack([row["input_ids"] for row in rows])}
    batch |= {"decoder_input_ids": batch["input_ids"][:, :8]} if is_led else {}
    ours, theirs = (getattr(library, head).from_pretrained(saved).eval() for library in (models, transformers))
    torch.testing.assert_close(ours(**batch).logits, theirs(**batch).logits, rtol=1e-4, atol=1e-5)
    if owner == "ours":
        torch.testing.assert_close(ours(**batch).logits, model.eval()(**batch).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("head", HEADS)
def test_padding_on_the_left_changes_no_answer_or_is_refused(owner: str, head: str) -> None:
    model = build(owner, head)
    texts = [
        torch.cat([torch.tensor([0, 7, 2, 2]), torch.randint(5, 50, (length,)), torch.tensor([2])])
        for length in (9, 30)
    ]
    padded = {}
    for side in ("right", "left"):
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=1, padding_side=side)
        batch = {"input_ids": ids, "attention_mask": (ids != 1).long()}
        if head == "LongformerForMultipleChoice":
            batch = {name: each[None] for name, each in batch.items()}
        if (owner, head, side) == ("patched", "LongformerForSequenceClassification", "left"):
            with pytest.raises(LongformerError, match="texts are padded on the left"):
                model(**batch)
            return
        with torch.no_grad():
            output = model(**batch)
        # Of what is told about every position, that of tokens.
        is_token = ids != 1
        padded[side] = {
            name: each[is_token] if each.shape[:2] == ids.shape else each
            for name, each in output.items()
            if isinstance(each, Tensor)
        }
    assert padded["left"].keys() == padded["right"].keys()
    for name, expected in padded["right"].items():
        torch.testing.assert_close(padded["left"][name], expected, rtol=1e-4, atol=1e-5)


def test_a_folder_that_trainer_saved_of_our_class_is_refused_with_the_remedy(tmp_path: Path) -> None:
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    transformers.Trainer(build("ours", "LongformerForSequenceClassification"), arguments).save_model()
    with pytest.raises(
        LongformerError, match=r"config\.json is missing; .* save the model with model\.save_pretrained"
    ):
        models.LongformerForSequenceClassification.from_pretrained(tmp_path)


def test_a_patched_model_takes_more_tokens_and_ours_reads_them(tmp_path: Path) -> None:
    for head in ("LongformerForMaskedLM", "LEDForConditionalGeneration"):
        patched = build("patched", head)
        patched.resize_token_embeddings(60, mean_resizing=False)
        patched.save_pretrained(tmp_path / head)
        ids = torch.randint(5, 60, (2, 20))
        expected = patched.eval()(ids).logits
        assert expected.shape == (2, 20, 60)
        logits = getattr(models, head).from_pretrained(tmp_path / head)(ids).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(f"word{number}" for number in range(45))]
    vocabulary = {word: number for number, word in enumerate(words)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>"
    )


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize(
    ("task", "head"),
    [
        ("text-classification", "LongformerForSequenceClassification"),
        ("token-classification", "LongformerForTokenClassification"),
        ("fill-mask", "LongformerForMaskedLM"),
        ("feature-extraction", "LongformerModel"),
    ],
)
def test_pipelines_answer_one_by_one_and_in_batches_alike(owner: str, task: str, head: str, tokenizer: Any) -> None:
    answer = transformers.pipeline(task, model=build(owner, head), tokenizer=tokenizer, device="cpu")
    asked = ["word1 word2 <mask> word3", "word7 <mask> word9", "<mask> word4 word5 word6 word1 word2"]
    alone, together = answer(asked), answer(asked, batch_size=3)
    assert len(alone) == 3
    if task == "feature-extraction":
        assert [len(each[0]) for each in alone] == [4, 3, 6]
        for one, padded in zip(alone, together, strict=True):
            torch.testing.assert_close(torch.tensor(padded)[:, : len(one[0])], torch.tensor(one), rtol=1e-3, atol=1e-4)
    else:

        def name(found: Any) -> list[Any]:
            several = found if isinstance(found, list) else [found]
            return [each.get("label") or each.get("entity") or each.get("token_str") for each in several]

        assert [name(each) for each in together] == [name(each) for each in alone]


def test_an_adapter_of_the_words_is_in_the_loss_as_it_is_in_the_logits() -> None:
    config = peft.LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(build("ours", "LongformerForMaskedLM"), config)
    labels = torch.randint(5, 50, (2, 20))
    found = adapted(input_ids=labels, labels=labels, output_logits=True)
    torch.testing.assert_close(
        found.loss, torch.nn.functional.cross_entropy(found.logits.flatten(0, 1), labels.flatten())
    )
    found.loss.backward()
    assert all(bool(each.grad.any()) for name, each in adapted.named_parameters() if "decoder.lora" in name)


@pytest.mark.parametrize(
    ("owner", "targets"),
    [
        ("ours", ["query_key_value"]),
        ("ours", ["key_global", "value_global"]),
        ("ours", "all-linear"),
        ("patched", ["query", "value"]),
        ("patched", ["key_global", "value_global"]),
    ],
)
def test_adapters_learn_and_are_saved_read_and_merged(owner: str, targets: Any, tmp_path: Path) -> None:
    model, rows = build(owner, "LongformerForSequenceClassification"), texts()
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=targets, r=2, lora_alpha=32, init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    adapted(**batch).loss.backward()
    # Of the last layer only the first token is read, which is global: local projections learn nothing there.
    taught = [each.grad for name, each in adapted.named_parameters() if each.requires_grad and ".layer.1." not in name]
    assert taught
    assert all(gradient is not None and bool(gradient.any()) for gradient in taught)
    expected = logits(adapted, rows)
    assert float((expected - logits(model, rows)).abs().max()) > 1e-4
    adapted.save_pretrained(str(tmp_path))
    again = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path)).eval()
    torch.testing.assert_close(logits(again, rows), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits(again.merge_and_unload(), rows), expected, rtol=1e-3, atol=1e-5)


def test_a_config_takes_and_tells_what_transformers_asks_of_it(tmp_path: Path) -> None:
    model = build("ours", "LongformerForSequenceClassification")
    model.config.use_cache, model.config.num_labels = False, 2
    model.config.id2label = {0: "no", 1: "yes"}
    model.save_pretrained(tmp_path)
    config = models.LongformerForSequenceClassification.from_pretrained(tmp_path).config
    theirs = transformers.LongformerConfig.from_pretrained(tmp_path)
    assert config.name_or_path == str(tmp_path)
    assert config.id2label == theirs.id2label == {0: "no", 1: "yes"}
    assert config.use_cache is False
    told = config.to_dict()
    assert {name for name, value in theirs.to_dict().items() if name in told and told[name] != value} == {"id2label"}
    assert json.loads(config.to_json_string())["id2label"] == {"0": "no", "1": "yes"}
    assert not hasattr(config, "never_set")
    with pytest.raises(ValueError, match="even and positive"):
        models.LongformerConfig(**{**SHAPE, "attention_window": 3})
