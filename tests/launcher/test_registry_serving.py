"""Claims about registered models in other processes: loaded without the training stack, served, trained on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from launcher.config.mlflow_address import ADDRESS_VARIABLE
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.inference.predictor import Predictor
from longformer.models.char_lm.model import CharacterLM
from tests.faults.tiny_run import TinyRun, prepare_text, tiny_config
from tests.launcher.test_evaluate_and_generate import finish_phase
from tests.launcher.test_inspect_and_predict import make_model
from tests.launcher.test_mlflow_server import free_port

pytestmark = pytest.mark.slow
TEXT = "A paper on long documents."
BAD_ROWS = {
    '[{"text": null}]': ["row 1 of 1: the text is missing: give a text"],
    '[{"text": "A text."}, {"text": NaN}, {}]': [
        "row 2 of 3: the text is missing: give a text",
        "row 3 of 3: the text is missing: give a text",
    ],
    '[{"text": 7}]': ["row 1 of 1: the text is not a text but of the type int: write it as a string"],
    '[{"text": 7}, {"text": "A text."}, {"text": ["a", "list"]}]': [
        "row 1 of 3: the text is not a text but of the type int: write it as a string",
        "row 3 of 3: the text is not a text but of the type list: write it as a string",
    ],
    '[{"text": ""}, {"text": " \\n"}]': ["row 1 of 2: the text is empty", "row 2 of 2: the text is empty"],
    # These are MLflow's own sentences.
    '[{"text": "a \\ud800 b"}]': ["surrogates not allowed'"],
    '[{"context": "A text."}]': ["Model is missing inputs ['text']. Note that there were extra inputs: ['context']."],
}
"""Rows of a request as JSON, and how the message ends that refuses them."""
LOAD = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("deepspeed", "ray", "webdataset", "launcher", "transformers"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import mlflow.pyfunc

model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(json.loads(sys.argv[2])).to_dict("records")))
import longformer

assert "mlflow-artifacts" in longformer.__file__, longformer.__file__
"""


@pytest.fixture
def environment(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A working directory with an empty MLflow store in it, and the variables of a process that uses it."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ADDRESS_VARIABLE, f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return dict(os.environ)


def loaded(address: str, row: dict[str, str], environment: dict[str, str]) -> dict[str, Any]:
    """What a model says of a row in a process of its own that cannot import the training stack."""
    command = [sys.executable, "-c", LOAD, address, json.dumps([row])]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])[0]


@contextmanager
def served(address: str, environment: dict[str, str]) -> Iterator[str]:
    """Run `mlflow models serve` until it answers and yield where."""
    port = free_port()
    mlflow = Path(sys.executable).with_name("mlflow")
    arguments = ["models", "serve", "--model-uri", address, "--env-manager", "local", "--port", str(port)]
    path = {"PATH": f"{mlflow.parent}:{environment['PATH']}"}
    log = Path("serve.log")
    with log.open("w") as output:
        server = subprocess.Popen(
            [mlflow, *arguments], env=environment | path, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 240
        while subprocess.run(["curl", "--silent", "--fail", f"http://127.0.0.1:{port}/ping"], check=False).returncode:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def curl(address: str, content: dict[str, Any]) -> dict[str, Any]:
    return json.loads(posted(address, json.dumps(content))[1])


def posted(address: str, body: str) -> tuple[int, str]:
    """The status and the answer of a server."""
    options = ["--silent", "--header", "Content-Type: application/json", "--data-binary", "@-"]
    command = ["curl", *options, "--write-out", "\n%{http_code}", address]
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), answer


def no_number(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def test_character_model_is_loaded_without_the_training_stack_and_served_over_http(
    environment: dict[str, str], created_run: Run, prepared: PreparedData
) -> None:
    model = finish_phase(created_run, 0, prepared)
    folder = created_run.result_directory(0) / "model"
    assert main(["register", str(folder), "--name", "letters"]) == 0
    assert main(["promote", "letters"]) == 0
    expected = evaluate_bits_per_character(
        model, prepared.vocabulary.encode(TEXT), sequence_length=2048, stride=512, batch_size=4
    ).bits
    there = loaded("models:/letters@champion", {"text": TEXT}, environment)
    assert there == {"bits_per_character": pytest.approx(expected, rel=1e-5), "continuation": ""}
    with served("models:/letters@champion", environment) as address:
        request = {"dataframe_records": [{"text": TEXT}] * 2, "params": {"new_characters": 5}}
        first, second = curl(address, request)["predictions"]
        assert first == second
        assert first["bits_per_character"] == pytest.approx(expected, rel=1e-5)
        assert first["continuation"]
        assert (
            "a text of 1 characters has none to score"
            in curl(address, {"dataframe_records": [{"text": "a"}]})["message"]
        )


def test_summaries_and_masked_words_over_the_registry_are_those_of_the_folder(
    environment: dict[str, str], tmp_path: Path, test_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model(tmp_path / "led", test_data, "LEDForConditionalGeneration")
    make_model(tmp_path / "masked", test_data, "LongformerForMaskedLM")
    for name in ("led", "masked"):
        assert main(["register", name, "--name", name]) == 0
        assert main(["promote", name]) == 0
    summary = Predictor.load(tmp_path / "led", "summarize").summarize(TEXT, max_new_tokens=8, num_beams=2)
    with served("models:/led@champion", environment) as address:
        request = {"dataframe_records": [{"text": TEXT}], "params": {"max_new_tokens": 8, "num_beams": 2}}
        assert curl(address, request) == {"predictions": [{"summary": summary}]}
        for rows, sentences in BAD_ROWS.items():
            status, answer = posted(address, f'{{"dataframe_records": {rows}}}')
            assert status == 400, answer
            message = json.loads(answer, parse_constant=no_number)["message"]
            assert message.endswith("\n".join(sentences)), message
            assert "Traceback" not in message
        for unreadable in ("", "{", "[]", "{}", '{"dataframe_records": 7}', '{"dataframe_records": ["text"]}'):
            assert posted(address, unreadable)[0] == 400
        assert curl(address, request) == {"predictions": [{"summary": summary}]}
    capsys.readouterr()
    hidden = TEXT.replace("paper", "<mask>")
    assert main(["predict", "models:/masked@champion", hidden, "--json"]) == 0
    here = json.loads(capsys.readouterr().out)["result"]
    assert loaded("models:/masked/1", {"text": hidden}, environment)["masks"] == [
        [{"text": each["text"], "score": pytest.approx(each["score"], rel=1e-4)} for each in mask] for mask in here
    ]


def test_run_from_the_registry_is_resumed_without_it(environment: dict[str, str], tmp_path: Path) -> None:
    data = prepare_text(tmp_path)
    first = TinyRun(tmp_path / "runs" / "first", tiny_config(tmp_path, data, steps=(4, 3)), data, ranks=1)
    assert first.go().status.name == "COMPLETED"
    assert main(["register", str(first.run.paths.root), "--name", "tiny"]) == 0
    assert main(["promote", "tiny", "--if", "bits_per_character <= 8"]) == 0
    train = ["train", str(tmp_path / "tiny.yaml"), f"data.source={tmp_path / 'words.txt'}"]
    further = ["tracking.register_as=tiny", "--init", "models:/tiny@champion", "--run-directory", "runs/second"]
    assert main([*train, *further]) == 0
    second = RunPaths(tmp_path / "runs" / "second")
    assert json.loads(second.registration_file.read_text()) == {"model": "models:/tiny/2", "task": "characters"}
    assert second.identity().start_model == "models:/tiny/1"
    trained = CharacterLM.from_pretrained(first.run.result_directory(1) / "model").state_dict()
    start = CharacterLM.from_pretrained(second.start_directory).state_dict()
    assert all((start[name] == trained[name]).all() for name in trained)
    losses = [json.loads(line)["loss"] for line in second.metrics_file.read_text().splitlines()]
    assert losses[0] < first.losses()[0][1]

    shutil.rmtree(second.root / "phases")
    shutil.rmtree(tmp_path / "mlflow-artifacts")
    assert main(["resume", "runs/second"]) == 0
    assert [json.loads(line)["loss"] for line in second.metrics_file.read_text().splitlines()] == losses
