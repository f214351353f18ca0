"""Claims: files and pipes are UTF-8 under any locale: data, tokenizers and what is printed are the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from launcher.cli import main
from tests.interop.tokenizer_folders import SCRIPTS, unigram, write_json

COMMAND = [sys.executable, "-X", "utf8=0", "-m", "launcher.cli"]


@pytest.fixture(params=["C", "en_US.ISO-8859-1"])
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose locale has another encoding; that of ISO-8859-1 is built here."""
    name: str = request.param
    if name == "C":
        return {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    if shutil.which("localedef") is None:
        pytest.skip("localedef, which builds locales, is not installed")
    built = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / name)]
    if subprocess.run(built, capture_output=True, check=False).returncode:
        pytest.skip("localedef finds no definition of en_US in ISO-8859-1 (Debian: the package locales)")
    environment = {**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": name}
    ask = [sys.executable, "-X", "utf8=0", "-c", "import locale; print(locale.getpreferredencoding())"]
    assert subprocess.run(ask, env=environment, capture_output=True, check=True).stdout.strip() == b"ISO-8859-1"
    return environment


def test_data_prepared_under_another_locale_is_the_same(locale: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    unigram(transformers.XLMRobertaTokenizer, tmp_path / "tokenizer")
    lines = [
        json.dumps({"text": f"{script} {number}"}, ensure_ascii=False)
        for number in range(3)
        for script in SCRIPTS.values()
    ]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare = ["data", "prepare", "documents", "--source", str(tmp_path / "lines.jsonl")]
    prepare += ["--tokenizer", str(tmp_path / "tokenizer"), "--output"]
    assert main([*prepare, str(tmp_path / "here")]) == 0
    subprocess.run([*COMMAND, *prepare, str(tmp_path / "there")], env=locale, check=True)
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert {path.name for path in (tmp_path / "there").iterdir()} == names
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_what_is_printed_under_another_locale_is_utf8(locale: dict[str, str], tmp_path: Path) -> None:
    write_json(tmp_path / "run.yaml", {"task": "masked_lm", "Überfluss für Привет": 1})
    printed = subprocess.run(
        [*COMMAND, "check", str(tmp_path / "run.yaml")], env=locale, capture_output=True, check=False
    )
    assert "Überfluss für Привет is not a known key" in " ".join(printed.stderr.decode().split())
    assert printed.returncode == 2
