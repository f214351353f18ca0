"""`longformer submit`, `status`, `logs` and `stop` where there is no Slurm: scripts, refusals, local jobs."""

import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from example_run import QUICKSTART

from launcher.backends.slurm.batch_script import JobRequest, seconds_of
from launcher.backends.slurm.commands import NodeKind
from launcher.backends.slurm.defaults import JobDefaults, job_defaults
from launcher.cli import main
from launcher.config.load import load
from launcher.planning.fit import phase_memory
from launcher.planning.node_needs import NodeNeeds, node_needs
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.runs.sweep import combinations
from launcher.tasks.registry import task_of
from tests.faults.tiny_run import prepare_text, tiny_config


def script(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a dry run prints."""
    assert main(["submit", str(QUICKSTART), "--dry-run", *arguments]) == 0
    return capsys.readouterr().out


def test_a_dry_run_prints_a_script_that_bash_accepts_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = script(
        capsys, "--nodes", "1-2", "--gpus-per-node", "4", "--time", "1-12:00:00", "--partition", "a100,h100",
        "--sbatch", "account=physics", "--sbatch", "exclusive", "--checkpoint-seconds", "300",
    )  # fmt: skip
    options = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert options >= {
        "nodes=1-2",
        "gpus-per-node=4",
        "time=1-12:00:00",
        "partition=a100,h100",
        "account=physics",
        "exclusive",
        "signal=B:USR1@300",
        "requeue",
        f"chdir={tmp_path}",
    }
    assert '--ranks "$((SLURM_JOB_NUM_NODES * 4))"' in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_job_asks_for_what_its_ranks_need_and_for_their_gpus_share_of_the_nodes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = load(QUICKSTART, ["data.loader_workers=2"])
    alone = node_needs(config, ranks=8, ranks_of_node=4, on_gpu=False)
    assert alone.processors == 4 * 3
    of_rank = phase_memory(task_of(config).cost(2), config, 2, ranks=8, on_gpu=False).total
    assert alone.memory > 4 * of_rank + 4 * 2**30

    request = JobRequest(
        nodes="2", gpus_per_node=4, ranks_per_node=4, time="60", partition=None, checkpoint_seconds=120
    )
    large = NodeKind(processors=128, memory=1000 * 2**30, gpus=8, time_limit="1-00:00:00")
    needs = NodeNeeds(processors=12, memory=30 * 2**30)
    assert job_defaults(request, needs, [large]) == JobDefaults(("cpus-per-task=64", "mem=512000M"), ())
    assert job_defaults(request, needs, []) == JobDefaults(("cpus-per-task=12", "mem=30720M"), ())
    assert job_defaults(replace(request, options=("exclusive",)), needs, [large]).options == ("mem=0",)
    own = ("cpus-per-task=7", "mem-per-cpu=2G")
    assert job_defaults(replace(request, options=own), needs, [large]) == JobDefaults((), ())

    small = NodeKind(processors=2, memory=8 * 2**30, gpus=4, time_limit="infinite")
    tight = job_defaults(replace(request, time=None), needs, [small])
    assert tight.options == ("cpus-per-task=2", "mem=8192M")
    assert [note.partition(" want ")[0] for note in tight.notes[:1]] == ["4 ranks of a node"]
    assert "about 30 GiB, but the partition's nodes have 8 GiB" in tight.notes[1]
    assert "without --time the partition's own limit holds (infinite)" in tight.notes[2]

    assert main(["submit", str(QUICKSTART), "--dry-run", "--ranks-per-node", "4", "data.loader_workers=2"]) == 0
    said = capsys.readouterr()
    assert "#SBATCH --cpus-per-task=12\n" in said.out
    assert "#SBATCH --mem=" in said.out
    assert "without --time" in said.err


def test_a_dry_run_of_another_backend_prints_the_command_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "my runs" / "one"
    train = ["-m", "launcher.cli", "train", str(run / "submission" / "run.yaml"), "--run-directory", str(run)]
    address = ("--address", "http://head:8265")
    words = shlex.split(script(capsys, "--backend", "ray", *address, "--ranks", "2-4", "--run-directory", str(run)))
    assert words[:4] == ["cd", str(tmp_path), "&&", "exec"]
    assert words[words.index("-m") :] == [
        *train,
        "--backend",
        "ray",
        "--ranks",
        "2-4",
        ">>" + str(run / "logs/job.log"),
        "2>&1",
    ]
    words = shlex.split(script(capsys, "--backend", "local", "--ranks", "2", "--run-directory", str(run)))
    assert words[words.index("-m") :] == [
        *train,
        "--ranks",
        "2",
        "</dev/null",
        ">>" + str(run / "logs/job.log"),
        "2>&1",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_jobs_of_a_chain_leave_going_on_to_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert "#SBATCH --no-requeue" in (chained := script(capsys, "--chain", "3"))
    assert "scontrol requeue" not in chained
    assert "scontrol requeue" in script(capsys)


def test_a_sweep_is_an_array_with_a_run_directory_per_combination(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("--sweep", "seed=0,1,2", "--sweep", "phases.0.learning_rate=1e-3,2e-3")
    text = script(capsys, *sweep, "--run-directory", str(tmp_path / "sweep"))
    assert "#SBATCH --array=0-5\n" in text
    assert f"#SBATCH --output={tmp_path}/sweep/%a/logs/job.log" in text
    assert f"run={tmp_path}/sweep/$SLURM_ARRAY_TASK_ID\n" in text
    assert combinations([sweep[1], sweep[3]])[:3] == [
        ("seed=0", "phases.0.learning_rate=1e-3"),
        ("seed=0", "phases.0.learning_rate=2e-3"),
        ("seed=1", "phases.0.learning_rate=1e-3"),
    ]


def test_modules_are_loaded_before_the_job_sets_its_own_paths(capsys: pytest.CaptureFixture[str]) -> None:
    text = script(capsys, "--module", "python/3.11", "--module", "cuda")
    assert "module load python/3.11\nmodule load cuda\n" in text
    assert text.index("module load cuda") < text.index("export PYTHONPATH")


@pytest.mark.parametrize(
    ("options", "driver", "node"),
    [
        ((), f"{sys.executable} ", "$ray_start"),
        (
            ("--container", "site.sif", "--gpus-per-node", "4"),
            "apptainer exec --nv --bind {here},{here}/data,{here}/runs site.sif python3 ",
            "apptainer exec --nv --bind {here},{here}/data,{here}/runs site.sif $ray_start",
        ),
        (
            ("--container", "docker://site/image:1", "--pyxis"),
            'srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" --container-image=docker://site/image:1 '
            "--container-mounts={here}:{here},{here}/data:{here}/data,{here}/runs:{here}/runs "
            "--container-workdir={here} python3 ",
            "--container-image=docker://site/image:1 "
            "--container-mounts={here}:{here},{here}/data:{here}/data,{here}/runs:{here}/runs "
            "--container-workdir={here} $ray_start",
        ),
    ],
    ids=["none", "apptainer", "pyxis"],
)
def test_in_a_job_with_ray_the_driver_and_every_node_work_in_the_container(
    options: tuple[str, ...], driver: str, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    text = script(capsys, "--ray", "--nodes", "2", *options)
    lines = [line.strip() for line in text.splitlines()]
    driver = driver.format(here=tmp_path)
    assert any(line.startswith(f"{driver}-m launcher.cli train") for line in lines)
    assert sum(node.format(here=tmp_path) in line for line in lines) == 2
    assert f'ray_start="{driver.split()[-1]} -m ray.scripts.scripts start' in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nodes", "two"], "--nodes 'two' is not a number such as 2"),
        (["--nodes", "4-2"], "--nodes 4-2: the lower number comes first, such as 2-4"),
        (["--time", "soon"], "--time 'soon' is not minutes"),
        (["--time", "2:59"], "--time 2:59 leaves less than 60 seconds until the checkpoint that is due 120 seconds"),
        (["--partition", "a\n#SBATCH --uid=0"], "is not the name of a partition"),
        (["--sbatch", "wrap=$(reboot)"], "is not an option of sbatch"),
        (["--gpus-per-node", "2", "--ranks-per-node", "4"], "each rank needs a GPU of its own"),
        (["--nodes", "1-3"], "cannot be divided over 3 ranks"),
        (["--sweep", "seed"], "--sweep 'seed' is not a key with its values, such as seed=0,1,2"),
        (["--sweep", "seed=1", "--sweep", "seed=2"], "--sweep seed is there twice"),
        (["--sweep", "sede=1,2"], "sede"),
        (["--sweep", "seed=1,2", "--chain", "2"], "--chain and --sweep exclude each other"),
        (["--container", "site.sif"], "--container needs --ray"),
        (["--pyxis"], "name an image with --container"),
        (["--module", "cuda; reboot"], "is not the name of a module"),
        (["--run-directory", "my runs; reboot"], "cannot be written into a batch script"),
    ],
)
def test_bad_requests_are_refused_with_the_remedy(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["submit", str(QUICKSTART), "--dry-run", *arguments]) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400), ("90:30", 5430), ("2:00:10", 7210), ("1-12", 129_600), ("1-12:30", 131_400),
        ("1-12:30:05", 131_405), ("0", 0),
    ],
)  # fmt: skip
def test_a_time_limit_is_read_as_slurm_reads_it(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


def test_without_slurm_the_remedy_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["submit", str(QUICKSTART)]) == 2
    assert "sbatch was not found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_slurm_backend_outside_a_job_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    assert main(["train", str(QUICKSTART), "--backend", "slurm"]) == 2
    assert "works inside a Slurm job" in capsys.readouterr().err


def test_a_run_that_was_not_submitted_has_no_words_of_a_driver(
    finished_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", str(finished_run.paths.root)]) == 2
    assert "was not submitted" in capsys.readouterr().err
    assert main(["status", str(finished_run.paths.root)]) == 0
    assert capsys.readouterr().out.startswith("finished\n")


@pytest.mark.slow
def test_a_local_job_runs_by_itself_and_can_be_asked_for_and_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_config(tmp_path, prepare_text(tmp_path), steps=(5000, 10), checkpoint_every_steps=1000)
    run = RunPaths(tmp_path / "runs" / "tiny")
    source = f"data.source={tmp_path / 'words.txt'}"
    command = ["submit", str(tmp_path / "tiny.yaml"), source, "--backend", "local", "--run-directory", str(run.root)]
    assert main(command) == 0
    job = json.loads((run.submission_directory / "job.json").read_text())["jobs"][0]
    assert capsys.readouterr().out.startswith(f"process {job};")
    assert main(["status", str(run.root)]) == 0
    assert capsys.readouterr().out == "starting\n"
    assert main(command) == 2
    assert "a run is going on" in capsys.readouterr().err
    assert (run.submission_directory / "code" / "launcher" / "cli.py").exists()
    while not run.metrics_file.exists():
        assert Path(f"/proc/{job}").exists(), run.job_log.read_text()
        time.sleep(0.1)
    assert main(command) == 2
    assert "a run is going on" in capsys.readouterr().err
    assert main(["status", str(run.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "running"
    following = subprocess.Popen(
        [sys.executable, "-m", "launcher.cli", "logs", str(run.root), "--follow"], stdout=subprocess.PIPE, text=True
    )
    assert main(["stop", str(run.root)]) == 0
    said, _ = following.communicate(timeout=60)
    assert "stopped; `longformer resume" in said
    capsys.readouterr()
    assert main(["status", str(run.root)]) == 0
    assert capsys.readouterr().out.startswith("stopped\nphase 1 of 2 (short), step ")
    assert main(["logs", str(run.root), "--rank", "0"]) == 0
    assert "phase short: 0 of 5000 steps done" in capsys.readouterr().out


def test_a_hint_names_a_run_as_a_shell_reads_it() -> None:
    for folder in ("runs/my run", "runs/a'b", "runs/$HOME #1", "runs/plain"):
        assert shlex.split(f"longformer resume {RunPaths(Path(folder)).in_shell}") == ["longformer", "resume", folder]
