"""The benchmark compares engines that compute the same thing, and its command tells what it measured."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launcher.cli import main
from launcher.commands.bench.attention import memory_growth
from longformer.benchmarks import attention_engines
from longformer.benchmarks.attention import Absence, Measurement, compare, memory, saved_bytes
from longformer.benchmarks.attention_engines import BLOCKED, ENGINES, FUSED, LONGEST_FOR_PEERS, Engine
from longformer.benchmarks.setting import Attend, Setting

PLAIN = Setting(positions=128, heads=2, head_dim=16, window=32)
PAPER = Setting(positions=4096)


def present(setting: Setting) -> dict[str, Attend]:
    """Build every engine that can compute the setting here."""
    return {engine.name: engine.build(setting) for engine in ENGINES if engine.why_not(setting) is None}


@pytest.mark.parametrize(
    "setting",
    [
        PLAIN,
        replace(PLAIN, batch=2, global_tokens=3),
        replace(PLAIN, causal=True, global_tokens=2),
        replace(PLAIN, dilation=3),
        replace(PLAIN, positions=101, window=7),
    ],
)
def test_all_engines_of_the_benchmark_attend_alike(setting: Setting) -> None:
    query, key, value, _ = setting.inputs()
    outputs = {name: attend(query, key, value) for name, attend in present(setting).items()}
    # The rows of global queries are Hugging Face's own; the others must agree.
    is_global = setting.global_mask()
    rows = torch.ones(setting.positions, dtype=torch.bool) if is_global is None else ~is_global[0]
    assert len(outputs) >= 2
    for name, output in outputs.items():
        torch.testing.assert_close(output[:, rows], outputs[BLOCKED][:, rows], msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow  # compiles C++
def test_flex_attention_attends_like_ours() -> None:
    setting = replace(PLAIN, positions=256, global_tokens=2, dilation=2, backward=False)
    query, key, value, _ = setting.inputs()
    with torch.no_grad():
        outputs = present(setting)
        expected = outputs[BLOCKED](query, key, value)
        torch.testing.assert_close(outputs["FlexAttention"](query, key, value), expected)


def reasons(setting: Setting) -> dict[str, str | None]:
    return {engine.name: engine.why_not(setting) for engine in ENGINES}


def test_peers_say_why_they_cannot_compute_a_setting() -> None:
    assert reasons(replace(PLAIN, causal=True))["Hugging Face"] == "is not causal"
    assert reasons(replace(PLAIN, dilation=2))["Hugging Face"] == "has no dilation"
    assert "divides" in str(reasons(replace(PLAIN, positions=101))["Hugging Face"])
    assert "backward" in str(reasons(PLAIN)["FlexAttention"])
    for name in (FUSED, "FlashAttention-2"):
        assert reasons(PLAIN)[name] == "runs on CUDA only"
    on_gpu = replace(PLAIN, device="cuda", dtype="bfloat16")
    assert reasons(on_gpu)["FlashAttention-2"] is None
    assert reasons(replace(on_gpu, dilation=2))["FlashAttention-2"] == "has no dilation"
    assert "global" in str(reasons(replace(on_gpu, global_tokens=1))["FlashAttention-2"])
    assert reasons(replace(on_gpu, dtype="float32"))["FlashAttention-2"] == "does not know float32"


def test_beyond_a_length_only_frugal_engines_remain() -> None:
    assert list(present(replace(PLAIN, positions=LONGEST_FOR_PEERS["cpu"] + 1))) == [BLOCKED]


def test_an_engine_that_fails_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(setting: Setting) -> Attend:
        raise RuntimeError("no kernel image is available\nmore lines")

    monkeypatch.setattr("longformer.benchmarks.attention.ENGINES", [Engine("broken", broken, lambda setting: None)])
    comparison = compare([PLAIN], repeats=1, report=lambda line: None)
    assert comparison.absences == [Absence("broken", PLAIN, "failed: no kernel image is available")]


def test_ours_keeps_query_key_and_value_and_nothing_else() -> None:
    assert saved_bytes(PLAIN, present(PLAIN)[BLOCKED]) == 3 * 128 * 2 * 16 * 4


def test_hugging_face_keeps_eight_times_as_much_at_the_papers_shape() -> None:
    pytest.importorskip("transformers", reason="the comparison needs transformers")
    kept = {name: saved_bytes(PAPER, attend) for name, attend in present(PAPER).items()}
    assert kept["Hugging Face"] >= 8 * kept[BLOCKED]


@pytest.mark.slow
def test_memory_grows_linearly_with_the_positions() -> None:
    setting = replace(PAPER, heads=2, window=128)
    longer = replace(setting, positions=16384)
    (short, _), (long, _) = (memory(each, BLOCKED, present(each)[BLOCKED]) for each in (setting, longer))
    assert long <= 4.4 * short


def test_the_benchmark_needs_nothing_heavier_than_torch() -> None:
    check = (
        "import sys, torch, torch.nn.attention.flex_attention; before = set(sys.modules);"
        "import longformer.benchmarks.attention;"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names) - {'longformer', 'torch', 'triton', 'numpy'}))"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_and_draws_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, picture = tmp_path / "result.json", tmp_path / "result.png"
    shape = ["--length", "128", "--heads", "2", "--head-dim", "8", "--window", "32", "--causal"]
    files = ["--json", str(file), "--plot", str(picture)]
    assert main(["bench", "attention", *shape, "--device", "cpu", "--repeats", "1", *files]) == 0
    printed = capsys.readouterr().out
    assert "dense SDPA" in printed
    assert "not measured: Hugging Face at 128: is not causal" in printed
    result = json.loads(file.read_text())
    assert [each["engine"] for each in result["measurements"]] == [BLOCKED, "dense SDPA"]
    assert all(each["forward_seconds"] > 0 < each["backward_seconds"] for each in result["measurements"])
    assert all(0 < each["share_of_peak"] < 2 and each["peak_bytes"] > 0 for each in result["measurements"])
    assert {each["engine"] for each in result["absences"]} >= {FUSED, "Hugging Face", "FlexAttention"}
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "attention", "--device", "cuda"]) == 2
    assert "finds none" in capsys.readouterr().err


def test_memory_growth_compares_each_length_of_ours_with_the_next() -> None:
    def measured(engine: str, positions: int, extra_bytes: int) -> Measurement:
        setting = replace(PLAIN, positions=positions)
        return Measurement(engine, setting, 1.0, 1.0, 1.0, 1.0, 0.5, extra_bytes, 0, 0)

    rows = [measured(BLOCKED, 100, 50), measured("dense SDPA", 100, 7), measured(BLOCKED, 400, 190)]
    (growth,) = memory_growth(rows)
    assert growth["engine"] == BLOCKED
    assert (growth["from_positions"], growth["to_positions"], growth["factor"]) == (100, 400, 3.8)


def test_no_engine_is_listed_twice() -> None:
    assert len({engine.name for engine in attention_engines.ENGINES}) == len(ENGINES)
