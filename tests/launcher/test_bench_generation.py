"""Claims: the benchmark of writing compares the same work, and its table sets everything beside ours."""

import io

import pytest
from rich.console import Console

from launcher.commands.bench.generation import as_table
from longformer.benchmarks.generation import HUGGING_FACE, OURS, WritingMeasurement, compare_writing

SMALL = {
    "vocab_size": 200,
    "d_model": 32,
    "attention_window": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}


def test_both_write_the_same_and_are_timed_in_parts() -> None:
    reports: list[str] = []
    measurements = compare_writing(positions=100, beams=3, new_tokens=6, repeats=2, report=reports.append, shape=SMALL)
    assert [each.contender for each in measurements] == [OURS, HUGGING_FACE]
    assert reports[-1] == "Hugging Face: run 2 of 2"
    for each in measurements:
        assert each.seconds == pytest.approx(each.reading_seconds + each.writing_seconds)
        assert min(each.reading_seconds, each.writing_seconds) > 0


def test_the_table_sets_everything_beside_ours() -> None:
    measurements = [WritingMeasurement(OURS, 3.0, 1.0, 2.0), WritingMeasurement(HUGGING_FACE, 9.0, 4.0, 5.0)]
    page = io.StringIO()
    Console(file=page, width=80).print(as_table(measurements, "LED-base"))
    row = next(line.split() for line in page.getvalue().splitlines() if "Hugging" in line)
    assert row == ["Hugging", "Face", "9.00", "3.0x", "4.00", "4.0x", "5.00", "2.5x"]
