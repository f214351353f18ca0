"""The run file: what is accepted comes back whole, what is refused is said in the words of the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from example_run import QUICKSTART, SHIPPED
from hypothesis import given
from hypothesis import strategies as st

from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.tasks.characters.config import CharacterRun
from longformer.errors import LongformerError

RUN_FILES = sorted(SHIPPED.glob("*.yaml"))

SMALLEST = """
name: mine
data: {directory: data/mine}
phases:
- {name: only, sequence_length: 64, windows: [8, 8, 8, 8], learning_rate: 1e-3, steps: 5, batch_size: 4}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SMALLEST)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(LongformerError) as caught:
        load(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_every_shipped_run_file_is_valid_and_survives_being_resolved(path: Path, tmp_path: Path) -> None:
    config = load(path)
    resolved = tmp_path / "run.yaml"
    resolved.write_text(config.to_yaml())
    assert load(resolved) == config
    assert load(resolved).fingerprint() == config.fingerprint()


def published(path: str) -> RunConfig:
    return load(SHIPPED / path)


@pytest.mark.parametrize(
    ("path", "steps", "warmup", "dropout", "layers"),
    [
        ("enwik8_small.yaml", (430_000, 50_000, 50_000, 35_000, 5_000), (10_000, 5_000, 5_000, 3_500, 500), 0.2, 12),
        ("text8_small.yaml", (430_000, 50_000, 50_000, 35_000, 5_000), (10_000, 5_000, 5_000, 3_500, 500), 0.2, 12),
        ("enwik8_large.yaml", (350_000, 25_000, 10_000, 5_000, 5_000), (10_000, 2_500, 1_000, 500, 500), 0.4, 30),
    ],
)
def test_paper_run_files_hold_the_published_numbers(
    path: str, steps: tuple[int, ...], warmup: tuple[int, ...], dropout: float, layers: int
) -> None:
    config = published(path)
    assert tuple(phase.total_steps for phase in config.phases) == steps
    assert tuple(phase.warmup_steps for phase in config.phases) == warmup
    assert tuple(phase.sequence_length for phase in config.phases) == (2048, 4096, 8192, 16384, 23040)
    assert tuple(phase.learning_rate for phase in config.phases) == tuple(2.5e-4 / 2**index for index in range(5))
    assert tuple(phase.positions_per_step for phase in config.phases) == (65_536, 131_072, 131_072, 262_144, 368_640)
    assert [(phase.windows[0], phase.windows[-1]) for phase in config.phases] == [
        (32 * 2**index, 512 * 2**index) for index in range(5)
    ]
    assert (config.model.dropout, config.model.shape["layers"]) == (dropout, layers)
    assert (config.training.weight_decay, config.training.gradient_clipping) == (0.01, 0.25)
    assert (config.evaluation.sequence_length, config.evaluation.stride) == (32_256, 512)


def test_small_ladder_has_the_published_mean_window() -> None:
    windows = published("enwik8_small.yaml").phases[0].windows
    assert sum(windows) / len(windows) == pytest.approx(230, abs=1)


def test_unknown_key_is_refused_with_file_path_and_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SMALLEST.replace("sequence_length", "sequence_lenght"))
    assert (
        f"{path}: phases[0].sequence_lenght is not a known key (did you mean sequence_length?)"
        in refusal(path).splitlines()
    )


def test_unknown_key_like_nothing_else_lists_the_known_ones(written: Path) -> None:
    assert refusal(written, "evaluation.qqq=1").endswith(
        "(known keys: sequence_length, stride, batch_size, limit_tokens)"
    )


def test_value_out_of_range_names_value_and_expectation(written: Path) -> None:
    written.write_text(SMALLEST.replace("steps: 5", "steps: -5"))
    assert refusal(written) == f"{written}: phases[0].steps is -5, but it should be greater than 0"


def test_a_metric_that_no_evaluation_has_is_refused_with_the_nearest(written: Path) -> None:
    assert (
        "phases[0].best.metric is 'bits_per_charakter', which no evaluation of this task has (did you mean "
        in refusal(
            written, "phases.0.evaluate_every={steps: 2}", "phases.0.best={metric: bits_per_charakter, mode: min}"
        )
    )


def test_problem_of_an_override_names_the_override(written: Path) -> None:
    assert refusal(written, "model.dropout=1.5") == (
        "override model.dropout=1.5: model.dropout is 1.5, but it should be less than 1"
    )


def test_problem_of_an_extended_file_names_that_file(written: Path) -> None:
    base = written.with_name("base.yaml")
    base.write_text("training: {zero_stage: 5}")
    written.write_text("extends: base.yaml" + SMALLEST)
    assert refusal(written).startswith(f"{base}: training.zero_stage is 5, but it should be 0, 1, 2 or 3")


def test_several_problems_are_told_at_once_one_line_each(written: Path) -> None:
    assert len(refusal(written, "model.dropout=2", "seed=-1", "nmae=x").splitlines()) == 3


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("phases.0.windows=[8,8,8]", "phases[0].windows has 3 values, but the model has 4 layers"),
        ("model.layers=5", "phases[0].windows has 4 values, but the model has 5 layers"),
        ("phases.0.windows=[8,8,8,0]", "windows[3] is 0, but it should be greater than 0"),
        ("phases.0.warmup_steps=6", "phases[0].warmup_steps is 6, more than the phase's steps (5)"),
        ("phases.0.epochs=2", "phases[0].steps is 5 beside epochs 2: give one of the two"),
        ("phases.0.steps=null", "phases[0].steps is missing, and epochs too: give one of the two"),
        ("phases.0.best={metric: bits_per_character}", "phases[0].best needs evaluate_every"),
        (
            "phases.0.evaluate_every={steps: 2, epochs: 1}",
            "phases[0].evaluate_every.steps is 2 beside epochs 1: give one of the two",
        ),
        ("phases.0.micro_batch_size=3", "phases[0].micro_batch_size is 3, which does not divide batch_size (4)"),
        ("evaluation.stride=4096", "evaluation.stride is 4096, more than sequence_length (2048)"),
        ("model.heads=3", "model.hidden_size must be an even multiple of heads"),
        ("model.dilations=[1,2]", "model.dilations must have one value per layer (4), got 2"),
        ("data.recipe=text", "data.source is missing"),
        ("data.source=x", "data.source must be null"),
        ("phases=[]", "phases is empty"),
        ("phases.0.name=a/b", "phases[0].name is 'a/b'"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(written: Path, override: str, sentence: str) -> None:
    message = refusal(written, override)
    assert sentence in message
    assert len(message.splitlines()) == 1


def test_two_phases_of_one_name_are_refused() -> None:
    assert "phases[1].name is 'short', which an earlier phase has" in refusal(QUICKSTART, "phases.1.name=short")


def test_batch_that_ranks_cannot_share_is_refused(written: Path) -> None:
    config = load(written)
    config.check_ranks(4)
    with pytest.raises(LongformerError, match="batch_size 4 cannot be divided over 3 ranks"):
        config.check_ranks(3)
    with pytest.raises(LongformerError, match="not a multiple of micro_batch_size 2 times 4 ranks"):
        load(written, ["phases.0.micro_batch_size=2"]).check_ranks(4)


@given(ranks=st.integers(1, 8), micro=st.integers(1, 8), accumulation=st.integers(1, 8))
def test_batching_accounts_for_every_sequence(ranks: int, micro: int, accumulation: int) -> None:
    batch_size = ranks * micro * accumulation
    phase = load(QUICKSTART).phases[0].model_copy(update={"batch_size": batch_size, "micro_batch_size": micro})
    batching = phase.batching(ranks)
    assert (batching.micro_batch_size, batching.accumulation_steps) == (micro, accumulation)


def test_extends_merges_sections_and_replaces_lists(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "base.yaml").write_text("model: {dropout: 0.1, position: rotary}\nseed: 3" + SMALLEST)
    (tmp_path / "folder" / "middle.yaml").write_text("extends: base.yaml\nmodel: {dropout: 0.2}")
    top = tmp_path / "top.yaml"
    top.write_text("extends: folder/middle.yaml\nname: top\nmodel: {dilations: [1, 1, 2, 2]}")
    config = load(top)
    assert (config.name, config.seed) == ("top", 3)
    assert (config.model.dropout, config.model.position, config.model.dilations) == (0.2, "rotary", (1, 1, 2, 2))


def test_files_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    assert "(a.yaml -> b.yaml -> a.yaml)" in refusal(tmp_path / "a.yaml")


def test_extending_a_missing_file_names_both(written: Path) -> None:
    written.write_text("extends: gone.yaml")
    assert refusal(written) == f"{written}: extends gone.yaml, but there is no file {written.with_name('gone.yaml')}"


@pytest.mark.parametrize(
    ("override", "lines"),
    [
        (
            "data.class_weights=5",
            ["data.class_weights is 5, but it should be 'balanced' or should hold keys and values"],
        ),
        ("data.class_weights={a: 0, b: x}", ["data.class_weights.a is 0, but", "data.class_weights.b is 'x', but"]),
        ("data.label=[a, 5]", ["data.label[1] is 5, but it should be a valid string"]),
        (
            "phases.0.best={metrik: f1}",
            ["phases[0].best.metric is missing", "phases[0].best.metrik is not a known key"],
        ),
    ],
)
def test_a_value_of_several_kinds_is_told_once_by_its_own_path(override: str, lines: list[str]) -> None:
    with pytest.raises(LongformerError) as caught:
        load(SHIPPED / "imdb.yaml", [override])
    for line, expected in zip(str(caught.value).splitlines(), lines, strict=True):
        assert f": {expected}" in line


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("name: [", "is not valid YAML, line"),
        ("name: a\nname: b", "name is written twice"),
        ("- a list", "should hold keys and values"),
        ("", "should hold keys and values"),
        ("extends: 3", "extends is 3, but it should be the path of a file"),
    ],
)
def test_what_is_not_a_run_file_is_refused(written: Path, content: str, sentence: str) -> None:
    written.write_text(content)
    assert sentence in refusal(written)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in refusal(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("phases.7.steps=1", "phases is a list, its items are numbered 0 to 2"),
        ("phases.steps=1", "phases is a list, its items are numbered 0 to 2"),
        ("name.x=1", "name is the value 'quickstart', there is nothing inside it"),
        ("name", "should look like key=value"),
        ("=3", "should look like key=value"),
        ("name=[", "is not a YAML value"),
    ],
)
def test_override_that_leads_nowhere_is_refused(override: str, sentence: str) -> None:
    assert sentence in refusal(QUICKSTART, override)


def test_overrides_reach_list_items_and_sections_that_are_not_written(written: Path) -> None:
    config = load(written, ["phases.0.windows.3=16", "tracking.experiment=ours", "phases.0.learning_rate=1e-4"])
    assert config.phases[0].windows == (8, 8, 8, 16)
    assert config.tracking.experiment == "ours"
    assert config.phases[0].learning_rate == 1e-4


@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**31),
            "model.dropout": st.floats(0, 0.99),
            "training.adam_epsilon": st.floats(1e-30, 1),
            "training.zero_stage": st.integers(0, 3),
            "phases.1.learning_rate": st.floats(1e-12, 10),
            "phases.2.windows": st.lists(st.integers(1, 10_000), min_size=4, max_size=4),
            "tracking.experiment": st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1),
        }
    )
)
def test_resolved_yaml_gives_the_same_run_whatever_the_values(values: dict[str, Any]) -> None:
    content = yaml.safe_load(QUICKSTART.read_text())
    config = load(QUICKSTART, [f"{key}={yaml.safe_dump(value)}" for key, value in values.items()])
    again = CharacterRun.model_validate(yaml.safe_load(config.to_yaml()))
    assert again == config
    assert again.fingerprint() == config.fingerprint()
    flat = config.values()
    assert all(flat[key] == value for key, value in values.items())
    assert flat["name"] == content["name"]


def test_diff_names_exactly_what_differs() -> None:
    one = load(QUICKSTART)
    other = load(QUICKSTART, ["phases.1.steps=17", "model.dilations=[1,1,2,2]"])
    assert sorted(one.diff(other)) == ["model.dilations: null -> [1, 1, 2, 2]", "phases.1.steps: 150 -> 17"]
    assert one.diff(one) == []
    assert one.fingerprint() != other.fingerprint()


def test_phases_share_weights_and_differ_in_windows() -> None:
    config = load(QUICKSTART)
    first, last = config.character_model(0, 100), config.character_model(2, 100)
    assert (first.layers, first.hidden_size) == (last.layers, last.hidden_size)
    assert (first.windows, last.windows) == (config.phases[0].windows, config.phases[2].windows)
    assert first.dilations == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "override",
    [
        "training.zero_stage=3",
        "training.offload_optimizer=true",
        "training.activation_checkpointing=true",
        "training.checkpoint_every_steps=7",
        "training.checkpoint_every_minutes=15",
        "training.activation_checkpointing=auto",
        "phases.1.micro_batch_size=auto",
        "training.checkpoints_kept=5",
        "training.permanent_checkpoint_every_steps=200",
        "training.checkpoint_in_background=true",
        "training.checkpoint_copies=file:///copies",
        "training.stall_seconds=9",
        "data.loader_workers=2",
        "tracking.register_as=letters",
        "phases.1.micro_batch_size=2",
        "phases.1.resources={ranks: 2-4, gpus_per_rank: 0}",
        "cluster.max_failures=0",
    ],
)
def test_a_run_may_be_resumed_with_another_value_of_what_does_not_decide_what_is_learned(override: str) -> None:
    before, after = load(QUICKSTART), load(QUICKSTART, [override])
    assert before.diff(after)
    assert before.learning_diff(after) == []


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=7", "seed: 0 -> 7"),
        ("training.precision=bf16", 'training.precision: "fp32" -> "bf16"'),
        ("training.on_bad_loss=skip", 'training.on_bad_loss: "stop" -> "skip"'),
        ("tracking.experiment=other", 'tracking.experiment: "longformer" -> "other"'),
        ("phases.1.learning_rate=0.5", None),
        ("phases.2.name=last", None),
    ],
)
def test_a_value_that_decides_what_is_learned_may_not_change(override: str, difference: str | None) -> None:
    (found,) = load(QUICKSTART).learning_diff(load(QUICKSTART, [override]))
    assert found.startswith(override.partition("=")[0])
    assert difference in (None, found)
