"""Continued masked-LM pretraining on real weights: every step of the chain, and the order of the paper's table."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from example_run import SHIPPED
from safetensors.torch import save_file

from benchmarks.masked_lm_corpora import antibodies, write_documents
from launcher.cli import main
from launcher.config.load import load
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.registry import task_of
from launcher.training.phases import Status
from longformer.errors import LongformerError
from longformer.interop.checkpoint_files import read_tensors
from longformer.models.common.freezing import PRETRAINED_ROWS
from tests.faults.tiny_run import TinyRun, kill_all_ranks
from tests.launcher.test_html_report import Reader, has_ink

ROWS = "longformer.embeddings.position_embeddings.weight"


@pytest.fixture(scope="session")
def antibody_run(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file: a real RoBERTa of antibodies made long, and sequences drawn from it, one after the other in a row."""
    folder = tmp_path_factory.mktemp("antibodies")
    source = test_data / "roberta_antibody" / "hf_vh"
    write_documents(antibodies(source, folder / "own", count=300, rounds=4), folder / "sequences.jsonl")
    content: dict[str, Any] = {
        "name": "antibodies",
        "task": "masked_lm",
        "model": {"source": str(source), "max_length": 512, "window": 128},
        "data": {
            "directory": str(folder / "prepared"),
            "sources": [{"name": "heavy_chains", "path": str(folder / "sequences.jsonl")}],
            "cross_document_attention": True,  # no chain alone is long enough for new positions
        },
        "training": {"zero_stage": 2, "gradient_clipping": 5.0, "checkpoint_every_steps": 4},
        "phases": [
            {
                "name": "continue",
                "sequence_length": 512,
                "batch_size": 4,
                "steps": 16,
                "learning_rate": 1e-3,
                "warmup_steps": 2,
                "decay": "cubic",
            }
        ],
    }
    path = folder / "antibodies.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_copied_positions_beat_random_ones_training_beats_both_and_the_export_has_fresh_global_projections(
    antibody_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunPaths(tmp_path / "run")
    assert main(["check", str(antibody_run)]) == 0
    assert main(["train", str(antibody_run), "--run-directory", str(run.root)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run.root), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    source, random, copied, trained = (row["bits_per_masked_token"] for row in table["rows"])
    assert [row["sequence_length"] for row in table["rows"]] == [144, 512, 512, 512]
    assert trained < copied < random
    assert source < random
    (evaluation,) = Run.open(run.root).evaluations()
    assert evaluation["test"]["bits_per_masked_token"] == pytest.approx(trained, abs=1e-4)
    assert evaluation["test"]["scored"] == table["scored"]

    before, exported = read_tensors(run.start_directory), read_tensors(run.export_directory)
    twins = [name for name in exported if "_global." in name]
    assert twins
    for name in twins:
        assert torch.equal(exported[name], exported[name.replace("_global.", ".")])
        assert not torch.equal(exported[name], before[name]), "the copy is that of the trained projection"
    summary = json.loads((run.report_directory / "summary.json").read_text())
    assert summary["phases"][0]["validation"] == evaluation["validation"]
    assert main(["predict", str(run.export_directory), "QVQLVQSG<mask>EV", "--json"]) == 0

    page = Reader((run.report_directory / "report.html").read_text())
    assert all(map(has_ink, page.pictures()))
    # Loss, learning rate, lengths, attention, throughput, MFU.
    assert len(page.pictures()) == 6
    for heading in ("Documents", "Hidden tokens", "Attention", "Memory"):
        assert heading in page.text


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "frozen", "together"), [(2, False, True), (2, True, True), (3, False, False)])
def test_a_run_killed_and_resumed_on_another_number_of_ranks_follows_the_undisturbed_one(
    zero_stage: int, frozen: bool, together: bool, antibody_run: Path, tmp_path: Path
) -> None:
    def new_run(name: str, zero_stage: int) -> TinyRun:
        overrides = [f"model.freeze_pretrained={json.dumps(frozen)}", "evaluation.limit_tokens=2000"]
        overrides.append(f"data.cross_document_attention={json.dumps(together)}")
        overrides += ["model.max_length=256", "phases.0.sequence_length=256", "phases.0.steps=10"]
        overrides.append(f"training.zero_stage={zero_stage}")
        overrides.append(f"model.source={without_dropout(source, tmp_path / 'source')}")
        config = load(antibody_run, overrides)
        task = task_of(config)
        data = task.data.prepare()
        run = TinyRun(tmp_path / name, config, data)
        task.write_start(run.run.paths.start_directory)
        return run

    source = Path(yaml.safe_load(antibody_run.read_text())["model"]["source"])
    expected = new_run("expected", 2)
    assert expected.go().status is Status.COMPLETED
    run = new_run("run", zero_stage)
    with run.disturbed_at(6, kill_all_ranks):
        assert run.go().status is Status.FAILED
    fingerprint = run.run.paths.identity().data_fingerprint
    run.run = run.run.continued_with(run.run.config, ranks=1, data_fingerprint=fingerprint)
    run.ranks = 1
    assert run.go().status is Status.COMPLETED
    assert [loss for _, loss in run.losses()] == pytest.approx([loss for _, loss in expected.losses()], rel=1e-3)
    if frozen:
        start, result = (
            read_tensors(each) for each in (run.run.paths.start_directory, run.run.finished_results()[0] / "model")
        )
        settings = json.loads((run.run.paths.start_directory / "config.json").read_text())
        for name, tensor in start.items():
            kept = slice(settings[PRETRAINED_ROWS] if name == ROWS else None)
            assert torch.equal(result[name][kept], tensor[kept]), name
        assert not torch.equal(result[ROWS], start[ROWS])


def without_dropout(source: Path, target: Path) -> Path:
    """Copy a model, without the dropout that every rank draws for itself."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    settings = json.loads((source / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (target / "config.json").write_text(json.dumps(settings))
    return target


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("is_sentence_encoder", [False, True])
def test_check_tells_of_a_source_without_a_pretrained_head(
    layout: str, is_sentence_encoder: bool, antibody_run: Path, tmp_path: Path
) -> None:
    source = Path(yaml.safe_load(antibody_run.read_text())["model"]["source"])
    copy = without_dropout(source, tmp_path / "source")
    tensors = read_tensors(source)
    for name in [path.name for path in copy.iterdir() if path.suffix in (".bin", ".safetensors")]:
        (copy / name).unlink()
    kept = {name: each for name, each in tensors.items() if not (is_sentence_encoder and name.startswith("lm_head"))}
    if layout == "bin":
        torch.save(kept, copy / "pytorch_model.bin")
    else:
        save_file(kept, copy / "model.safetensors")
    notes = task_of(load(antibody_run, [f"model.source={copy}"])).data.check()
    assert any("no pretrained head" in note for note in notes) == is_sentence_encoder


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_shipped_recipes_are_the_published_ones_and_can_be_planned_without_the_model(size: str) -> None:
    config = load(SHIPPED / f"mlm_longformer_{size}.yaml")
    (phase,) = config.phases
    assert phase.positions_per_step == 2**18
    assert (phase.steps, phase.learning_rate, phase.warmup_steps, phase.decay) == (65_000, 3e-5, 500, "cubic")
    assert (config.training.adam_betas, config.training.adam_epsilon) == ((0.9, 0.98), 1e-6)
    task = task_of(config)
    # RoBERTa's 125 and 355 million, new positions and global projections.
    layers, width, own = {"base": (12, 768, 124_697_433), "large": (24, 1024, 355_412_057)}[size]
    assert task.parameters() == own + 3584 * width + layers * 3 * (width**2 + width)
    assert task.cost(0).memory(task.layout(0, ranks=8, on_gpu=True)).total < 80e9
    with pytest.raises(LongformerError, match="holds no model"):
        task.data.check()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("task=translation", "task is 'translation', but it should be one of characters, extractive_qa"),
        ("model.window=65", "model.window is 65, but it should be even"),
        ("phases.0.sequence_length=513", "phases[0].sequence_length is 513, but the model reads 3 to"),
        ("training={zero_stage: 0, offload_optimizer: true}", "training.offload_optimizer is true, but without ZeRO"),
        ("data.sources=[]", "data.sources is empty"),
        ("phases.0.windows=[1]", "phases[0].windows is not a known key"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(override: str, sentence: str, antibody_run: Path) -> None:
    with pytest.raises(LongformerError) as caught:
        load(antibody_run, [override])
    assert sentence in str(caught.value)
