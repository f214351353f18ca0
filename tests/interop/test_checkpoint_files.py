"""Claims: shapes and types are known without the numbers, whichever files hold them."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from longformer.errors import LongformerError
from longformer.inference.inspect import inspect_folder
from longformer.interop.checkpoint_files import read_tensors, write_folder
from longformer.models import LongformerForMaskedLM

CONFIG = transformers.LongformerConfig(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    attention_window=8,
    max_position_embeddings=66,
)


@pytest.mark.parametrize("layout", ["whole", "shards", "older"])
def test_a_folder_is_described_without_reading_its_numbers(layout: str, tmp_path: Path) -> None:
    model = transformers.LongformerForMaskedLM(CONFIG).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="4KB" if layout == "shards" else "1GB")
    if layout == "older":
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    described, read = read_tensors(tmp_path, device="meta"), read_tensors(tmp_path)
    assert all(tensor.is_meta for tensor in described.values())
    assert {name: (each.shape, each.dtype) for name, each in described.items()} == {
        name: (each.shape, each.dtype) for name, each in read.items()
    }
    found = inspect_folder(tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.dtypes == ["bfloat16"]
    assert found.length == found.encoder.positions == 64


def test_the_original_layout_is_recognised_and_a_cut_file_is_not_described(tmp_path: Path) -> None:
    transformers.LongformerModel(CONFIG).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    original = {"model_type": "roberta", "attention_mode": "sliding_chunks", "attention_window": [4, 4]}
    path.write_text(json.dumps(json.loads(path.read_text()) | original))
    found = inspect_folder(tmp_path)
    assert found.layout == "allenai's original code"
    assert found.config.attention_window == (8, 8)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(LongformerError, match="damaged or cut short"):
        inspect_folder(tmp_path)


def test_weights_of_several_precisions_are_read_in_the_one_that_holds_all(tmp_path: Path) -> None:
    model = transformers.LongformerForMaskedLM(CONFIG).eval()
    model.longformer.encoder.to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    ours = LongformerForMaskedLM.from_pretrained(tmp_path)
    assert ours.dtype == torch.float32
    ids = torch.randint(3, 30, (1, 20))
    torch.testing.assert_close(ours(ids).logits, model.float()(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_an_index_that_names_no_shards_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(LongformerError, match="has no weight_map"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
def test_weights_can_be_read_by_whom_the_umask_lets(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        # What a writer that died has left.
        (tmp_path / ".model.safetensors.staging").touch(0o600)
        write_folder(tmp_path, {}, {"weight": torch.ones(3)})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("config.json", "model.safetensors"), 0o666 & ~umask)
