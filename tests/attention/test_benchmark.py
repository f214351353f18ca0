"""The benchmark compares engines that compute the same thing, and its command tells what it measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launcher.cli import main
from launcher.commands.bench import memory_growth
from longformer.benchmarks.attention import Measurement, memory_in_own_process, saved_bytes
from longformer.benchmarks.attention_engines import LONGEST_FOR_PEERS, OURS, Setting, engines

PLAIN = Setting(positions=128, heads=2, head_dim=8, window=32, dilation=1, global_tokens=0, causal=False, backward=True)


@pytest.mark.parametrize(
    "setting",
    [
        PLAIN,
        replace(PLAIN, global_tokens=3),
        replace(PLAIN, causal=True, global_tokens=2),
        replace(PLAIN, dilation=3),
        replace(PLAIN, positions=101, window=7),
    ],
)
def test_all_engines_of_the_benchmark_attend_alike(setting: Setting) -> None:
    query, key, value, _ = setting.inputs()
    outputs = {name: build(setting)(query, key, value) for name, build in engines(setting).items()}
    for name, output in outputs.items():
        # The rows of global queries are Hugging Face's own; the others must agree.
        rows = slice(setting.global_tokens, None)
        torch.testing.assert_close(output[:, rows], outputs[OURS][:, rows], msg=lambda m, n=name: f"{n}: {m}")


def test_peers_stand_back_where_they_cannot_compute_the_setting() -> None:
    assert "Hugging Face" not in engines(replace(PLAIN, causal=True))
    assert list(engines(replace(PLAIN, positions=LONGEST_FOR_PEERS + 1))) == [OURS]


def test_ours_keeps_query_key_and_value_and_nothing_else() -> None:
    assert saved_bytes(PLAIN, engines(PLAIN)[OURS](PLAIN)) == 3 * 128 * 2 * 8 * 4


def test_hugging_face_keeps_eight_times_as_much_at_the_papers_shape() -> None:
    pytest.importorskip("transformers", reason="the comparison needs transformers")
    setting = Setting(
        positions=4096, heads=12, head_dim=64, window=512, dilation=1, global_tokens=0, causal=False, backward=True
    )
    kept = {name: saved_bytes(setting, build(setting)) for name, build in engines(setting).items()}
    assert kept["Hugging Face"] >= 8 * kept[OURS]


def test_memory_grows_linearly_with_the_positions() -> None:
    setting = replace(PLAIN, positions=4096, heads=8, head_dim=64, window=256)
    short, _ = memory_in_own_process(setting, OURS)
    long, _ = memory_in_own_process(replace(setting, positions=16384), OURS)
    assert long <= 4.4 * short


def test_the_command_prints_a_table_and_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    shape = ["--length", "128", "--heads", "2", "--head-dim", "8", "--window", "32", "--causal"]
    assert main(["bench", "attention", *shape, "--repeats", "1", "--json", str(file)]) == 0
    assert "dense SDPA" in capsys.readouterr().out
    measurements = json.loads(file.read_text())["measurements"]
    assert [each["engine"] for each in measurements] == [OURS, "dense SDPA"]
    assert all(each["seconds"] > 0 and each["peak_bytes"] > 0 for each in measurements)


def test_memory_growth_compares_each_length_of_ours_with_the_next() -> None:
    def measured(engine: str, positions: int, extra_bytes: int) -> Measurement:
        return Measurement(engine, replace(PLAIN, positions=positions), 1.0, 1.0, extra_bytes, 0, 0)

    rows = [measured(OURS, 100, 50), measured("dense SDPA", 100, 7), measured(OURS, 400, 190)]
    assert memory_growth(rows) == [{"from_positions": 100, "to_positions": 400, "factor": 3.8}]
