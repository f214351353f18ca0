"""Claims: a file that cannot be written is refused before the work, and the folder of one that can is made."""

import os
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.commands.output_file import writable

STEP = ["bench", "step", "--model", "longformer-base", "--length", "64"]
ATTENTION = ["bench", "attention", "--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "option", "name", "sentence"),
    [
        (STEP, "--json", "file/steps.json", "the folder {}/file cannot be made (File exists): choose another"),
        (STEP, "--json", "file/deeper/steps.json", "the folder {}/file/deeper cannot be made (Not a directory)"),
        (STEP, "--json", "folder", "{}/folder is a folder: name a file in it"),
        (ATTENTION, "--plot", "file/lines.png", "the folder {}/file cannot be made"),
        (ATTENTION, "--plot", "lines.jpg", "{}/lines.jpg must end in .png, .svg or .pdf"),
        (["data", "train-tokenizer", "--source", "."], "--output", "folder", "{}/folder is a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(
    arguments: list[str], option: str, name: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    # The measurements and the training of a tokenizer would outlast the patience of any test.
    assert main([*arguments, option, str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert sentence.format(tmp_path) in printed.err
    assert printed.out == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o555)
    assert main([*STEP, "--json", str(tmp_path / "steps.json")]) == 2
    assert f"you may not write to the folder {tmp_path}" in capsys.readouterr().err


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    file = tmp_path / "results" / "today" / "attention.json"
    assert writable(file) == file
    assert file.parent.is_dir()
