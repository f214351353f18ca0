"""Prepared data exists or it does not, whatever happens while it is made: real kills, a real full disk."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.staging import staged_directory
from tests.data_pipeline.child_processes import status_of_child, status_when_killed
from tests.data_pipeline.preparing import prepare_characters

LONGFORMER = [sys.executable, "-m", "launcher.cli"]


def test_killed_at_any_file_operation_nothing_half_written_is_ever_used(small_text: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    def prepare_small_text() -> None:
        prepare_characters("text", source=small_text, output=output)

    for operation in range(1, 1_000):
        if output.exists():
            break
        status = status_when_killed(prepare_small_text, tmp_path, operation)
        assert status in (0, -signal.SIGKILL)
    assert operation > 20
    assert PreparedData.open(output).find_damage() == []
    prepare_small_text()
    assert list(tmp_path.iterdir()) == [output]


def test_control_c_stops_at_once_and_keeps_the_finished_shards(test_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    source = test_data / "enwik8" / "enwik8.xz"
    arguments = ["data", "prepare", "enwik8", "--source", str(source), "--output", str(output)]
    process = subprocess.Popen([*LONGFORMER, *arguments], stderr=subprocess.PIPE, text=True)
    finished = tmp_path / ".out.staging" / "train-000000.record.json"
    while not finished.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "stopped: finished shards are kept; the same command goes on\n"
    assert finished.exists()
    assert not output.exists()


def test_file_that_cannot_grow_gets_one_sentence_and_the_next_start_goes_on(small_text: Path, tmp_path: Path) -> None:
    def prepare_with_small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with pytest.raises(DataError, match="no space left"):
            prepare_characters("text", source=small_text, output=tmp_path / "out")

    assert status_of_child(prepare_with_small_files) == 0
    assert list(tmp_path.iterdir()) == [tmp_path / ".out.staging"]
    assert prepare_characters("text", source=small_text, output=tmp_path / "out").find_damage() == []
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_full_disk_gets_one_sentence_and_no_output(small_text: Path, tmp_path: Path) -> None:
    small_disk = 'mount -t tmpfs -o size=1m none "$0" && "$@"; status=$?; ls -A "$0"; exit $status'
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*unshare, 'mount -t tmpfs none "$0"', str(tmp_path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let us mount a small disk")
    arguments = ["data", "prepare", "text", "--source", str(small_text), "--output", str(tmp_path / "out")]
    result = subprocess.run(
        [*unshare, small_disk, str(tmp_path), *LONGFORMER, *arguments], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: no space left while preparing")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ".out.staging\n"


def test_second_prepare_of_the_same_output_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with staged_directory(output) as staging:
        (staging / "file").write_text("content")
        with pytest.raises(DataError, match="another process is preparing"), staged_directory(output):
            pass
    assert (output / "file").read_text() == "content"


def test_what_a_killed_process_left_behind_does_not_get_into_the_result(small_text: Path, tmp_path: Path) -> None:
    stale = tmp_path / ".out.staging"
    stale.mkdir()
    for name in ("train-000099.tar", "train-000000.tar.partial", "train-000000.record.json"):
        (stale / name).write_text('{"tokenizer_sha256": "", "text_sha256": ""}')
    prepared = prepare_characters("text", source=small_text, output=tmp_path / "out")
    assert prepared.find_damage() == []
    names = [f"{split}-000000.{kind}" for split in ("test", "train", "validation") for kind in ("index.npy", "tar")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", *names, "vocabulary.json"]


def test_output_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "big disk" / "room").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "big disk" / "room")
    with staged_directory(tmp_path / "out") as staging:
        (staging / "file").write_text("content")
    assert (tmp_path / "big disk" / "room" / "file").read_text() == "content"
    assert (tmp_path / "out").is_symlink()


def test_a_failing_block_makes_no_output_and_what_it_wrote_is_there_for_the_next(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_directory(tmp_path / "out") as staging:
            (staging / "file").write_text("content")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (tmp_path / "out").exists()
    with staged_directory(tmp_path / "out") as staging:
        assert (staging / "file").read_text() == "content"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_unwritable_place_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*choose another"), staged_directory(tmp_path / "file" / "out"):
        pass
