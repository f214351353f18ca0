"""The report says what the run directory holds, the same each time, and its pictures show something."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from example_run import records
from rich.console import Console

from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream
from launcher.reporting.run_report import show_summary
from launcher.runs.run import Run
from tests.launcher.example_run import write_numbers


def summary_of(run: Run) -> dict[str, Any]:
    write_numbers(run)
    return json.loads((run.paths.report_directory / "summary.json").read_text())


def test_summary_holds_the_numbers_of_the_run(finished_run: Run) -> None:
    summary = summary_of(finished_run)
    phases = summary["phases"]
    assert [phase["name"] for phase in phases] == ["short", "medium", "long"]
    bits = [phase["validation"]["bits_per_character"] for phase in phases]
    assert bits == pytest.approx([3.0, 2.6, 2.2])
    assert sum(phase["tokens"] for phase in phases) == records(finished_run.config)[-1].tokens
    assert [phase["tokens_per_second"] for phase in phases] == pytest.approx([9000, 4500, 3000])
    assert phases[2]["test"]["bits_per_character"] == pytest.approx(2.25)
    assert summary["ranks"] == 2
    assert phases[2]["steps"] == 10


def test_report_written_again_is_the_same_to_the_byte(finished_run: Run) -> None:
    write_numbers(finished_run)
    first = {path.name: path.read_bytes() for path in finished_run.paths.report_directory.iterdir()}
    write_numbers(finished_run)
    again = {path.name: path.read_bytes() for path in finished_run.paths.report_directory.iterdir()}
    assert set(first) == {"summary.md", "summary.json", "bits_per_character.png", "cost.png"}
    assert again == first


def test_pictures_have_ink(finished_run: Run) -> None:
    write_numbers(finished_run)
    for name in ("bits_per_character.png", "cost.png"):
        pixels = matplotlib.image.imread(finished_run.paths.report_directory / name)
        assert min(pixels.shape[:2]) > 400
        assert 0.01 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.5


def test_comparison_is_what_the_xz_command_needs(finished_run: Run, prepared: PreparedData, tmp_path: Path) -> None:
    if shutil.which("xz") is None:
        pytest.skip("the xz command is not installed")
    test = TokenStream(prepared.split("test"))
    text = prepared.vocabulary.decode_bytes(test.read(0, len(test)))
    packed = subprocess.run(["xz", "-9e", "--stdout"], input=text, capture_output=True, check=True).stdout
    assert summary_of(finished_run)["xz_bits_per_character"] == pytest.approx(8 * len(packed) / len(text))


def test_printed_table_has_a_row_per_phase_and_the_test_score(finished_run: Run) -> None:
    addition = write_numbers(finished_run)
    output = io.StringIO()
    show_summary(finished_run, addition, parameters=1, console=Console(file=output, width=100))
    text = output.getvalue()
    for expected in ("short", "16-128", "61.4k", "9,000", "3.000", "Test: 2.250 bits per character", "xz -9e needs"):
        assert expected in text
        assert expected in (finished_run.paths.report_directory / "summary.md").read_text()


def test_run_of_a_single_phase_is_reported_too(finished_run: Run) -> None:
    config = finished_run.config
    evaluation = finished_run.result_directory(0) / "evaluation.json"
    content = json.loads(evaluation.read_text())
    evaluation.write_text(json.dumps(content | {"test": content["validation"]}))
    single = config.model_copy(update={"phases": config.phases[:1]})
    assert len(summary_of(Run(finished_run.paths, single))["phases"]) == 1
