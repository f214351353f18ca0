"""The model that MLflow serves: raw text in, what the model is made for out.

MLflow stores this file with `longformer` and `data_pipeline` beside the weights and runs it where the model is loaded,
so it imports nothing of the training stack. A row that cannot be answered is refused with one sentence.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow.models
import pandas
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from data_pipeline.errors import DataError
from data_pipeline.tokenizers.byte import Vocabulary
from longformer.errors import LongformerError
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.inference.predictor import Predictor
from longformer.models.char_lm.generate import generate
from longformer.models.char_lm.model import CharacterLM

Row = dict[str, Any]
Answer = Callable[[Row, Row], Row]
"""Turns the columns of a row and the request's parameters into the columns of the result."""


class ServedModel(PythonModel):
    """Predicts row by row; the model's config names the task and, of a character model, how text is scored."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the model folder beside this file."""
        self.open(Path(context.artifacts["model"]), context.model_config)

    def open(self, folder: Path, settings: dict[str, Any]) -> None:
        """Read a model for what `settings` say."""
        task = settings["task"]
        if task in _PREDICTIONS:
            self._answer = _PREDICTIONS[task](Predictor.load(folder, task))
        else:
            self._answer = _characters(folder, settings)

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pandas.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pandas.DataFrame:
        """Return a row of results for every row of texts."""
        rows: list[Any] = model_input.to_dict("records")
        try:
            return pandas.DataFrame([self._answer(row, params or {}) for row in rows])
        except (LongformerError, DataError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def _characters(folder: Path, settings: dict[str, Any]) -> Answer:
    model = CharacterLM.from_pretrained(folder)
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    how = {name: settings[name] for name in ("sequence_length", "stride", "batch_size")}

    def answer(row: Row, params: Row) -> Row:
        tokens = torch.from_numpy(vocabulary.encode(row["text"])).long()
        score = evaluate_bits_per_character(model, tokens, **how)
        written = generate(
            model,
            tokens,
            new_tokens=params.get("new_characters", 0),
            temperature=params.get("temperature", 1.0),
            seed=params.get("seed", 0),
        )
        return {"bits_per_character": score.bits, "continuation": vocabulary.decode(written)}

    return answer


def _fill_mask(predictor: Predictor) -> Answer:
    return lambda row, params: {
        "masks": [list(map(asdict, mask)) for mask in predictor.fill_mask(row["text"], top=params.get("top", 5))]
    }


def _classify(predictor: Predictor) -> Answer:
    return lambda row, params: {"classes": list(map(asdict, predictor.classify(row["text"])))}


def _label(predictor: Predictor) -> Answer:
    return lambda row, params: {"labels": list(map(asdict, predictor.label(row["text"])))}


def _answers(predictor: Predictor) -> Answer:
    return lambda row, params: {
        "answers": list(map(asdict, predictor.answer(row["question"], row["context"], top=params.get("top", 5))))
    }


def _summarize(predictor: Predictor) -> Answer:
    # 0, which MLflow can store as a default, leaves a setting to the model.
    return lambda row, params: {
        "summary": predictor.summarize(row["text"], **{name: value for name, value in params.items() if value})
    }


_PREDICTIONS: dict[str, Callable[[Predictor], Answer]] = {
    "fill-mask": _fill_mask,
    "classify": _classify,
    "label": _label,
    "answer": _answers,
    "summarize": _summarize,
}

mlflow.models.set_model(ServedModel())
