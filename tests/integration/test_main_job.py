"""The main job as a user runs it: one command from raw text to a judged model, then everything that reads the run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
QUICKSTART = REPOSITORY / "configs" / "run" / "quickstart.yaml"
SHORTER = [
    "model.layers=2",
    "model.hidden_size=64",
    "model.feedforward_size=128",
    "phases.0={name: short, sequence_length: 64, windows: [16, 32], learning_rate: 3.0e-3, warmup_steps: 10, "
    "steps: 60, batch_size: 16}",
    "phases.1={name: medium, sequence_length: 128, windows: [32, 64], learning_rate: 2.0e-3, steps: 40, batch_size: 8}",
    "phases.2={name: long, sequence_length: 256, windows: [64, 128], learning_rate: 1.0e-3, steps: 20, batch_size: 8}",
    "evaluation={sequence_length: 256, stride: 128, batch_size: 8, limit_tokens: 10000}",
    "data.limit_bytes=400000",
]


def longformer(*arguments: str | Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, in an empty directory of their own."""
    return subprocess.run(
        [Path(sys.executable).with_name("longformer"), *map(str, arguments)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the quickstart, made shorter, has run with two ranks."""
    directory = tmp_path_factory.mktemp("workplace")
    finished = longformer("train", QUICKSTART, *SHORTER, "--ranks", "2", directory=directory)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    return directory


def test_bits_per_character_fall_from_phase_to_phase_on_held_out_text(workplace: Path) -> None:
    results = sorted((workplace / "runs" / "quickstart" / "phases").glob("*/result/evaluation.json"))
    validation = [json.loads(path.read_text())["validation"]["bits_per_character"] for path in results]
    assert len(validation) == 3
    assert validation[0] > validation[1] > validation[2]


def test_the_run_ends_with_a_report_of_every_phase_and_of_the_test_split(workplace: Path) -> None:
    report = workplace / "runs" / "quickstart" / "report"
    assert {path.suffix for path in report.iterdir()} >= {".md", ".json", ".png"}
    summary = (report / "summary.md").read_text()
    assert all(phase in summary for phase in ("short", "medium", "long", "xz"))


def test_all_that_a_run_leaves_can_be_read_by_whom_the_umask_lets(workplace: Path) -> None:
    (workplace / "probe").touch()
    allowed = (workplace / "probe").stat().st_mode & 0o666
    files = [path for path in workplace.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".tar", ".safetensors", ".json", ".html", ".db"}
    assert [path for path in files if path.stat().st_mode & allowed != allowed] == []


def test_the_same_command_again_has_nothing_to_do(workplace: Path) -> None:
    metrics = workplace / "runs" / "quickstart" / "metrics.jsonl"
    before = metrics.read_bytes()
    again = longformer("train", QUICKSTART, *SHORTER, "--ranks", "2", directory=workplace)
    assert again.returncode == 0, again.stderr
    assert metrics.read_bytes() == before


def test_evaluate_repeats_the_test_score_of_the_run(workplace: Path) -> None:
    last = max((workplace / "runs" / "quickstart" / "phases").glob("*/result/evaluation.json"))
    in_training = json.loads(last.read_text())["test"]["bits_per_character"]
    evaluated = longformer("evaluate", "runs/quickstart", "--split", "test", "--json", directory=workplace)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["bits_per_character"] == pytest.approx(in_training, rel=1e-4)


def test_generate_continues_a_prompt_and_repeats_itself_with_the_same_seed(workplace: Path) -> None:
    arguments = ("generate", "runs/quickstart", "--prompt", "The ", "--characters", "40", "--seed", "1")
    first, second = (longformer(*arguments, directory=workplace) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert len(first.stdout) > 20


def test_mlflow_holds_the_run_with_its_metrics_and_its_model(workplace: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{workplace}/runs/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'longformer'")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 120
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"model", "report"} <= artifacts


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("phases.0.sequence_lenght=64", "sequence_length"),
        ("training.zero_stage=7", "training.zero_stage"),
        ("data.source=nowhere/at/all data.recipe=enwik8", "nowhere/at/all"),
    ],
)
def test_a_mistake_is_one_sentence_with_exit_code_2(tmp_path: Path, change: str, sentence: str) -> None:
    refused = longformer("train", QUICKSTART, *change.split(" "), directory=tmp_path)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "runs").exists()
