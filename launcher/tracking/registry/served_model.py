"""The model that MLflow serves: raw records in, what the model is made for out.

MLflow stores this file with `longformer` beside the weights and runs it where the model is loaded, so it imports
nothing of the training stack. A record that cannot be answered is refused with one sentence.
"""

from pathlib import Path
from typing import Any

import mlflow.models
import pandas
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from longformer.errors import LongformerError
from longformer.inference.serving import open_model


class ServedModel(PythonModel):
    """Predicts row by row; the model's config says what it can be asked, under `task`, and how it answers."""

    def load_context(self, context: PythonModelContext) -> None:
        """Opens the model folder beside this file."""
        self.open(Path(context.artifacts["model"]), context.model_config)

    def open(self, folder: Path, settings: dict[str, Any]) -> None:
        """Reads a model for what `settings` say."""
        self._answer = open_model(
            folder, settings["task"], **{name: value for name, value in settings.items() if name != "task"}
        )

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pandas.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pandas.DataFrame:
        """Returns a row of results for every row of texts."""
        rows: list[Any] = model_input.to_dict("records")
        try:
            return pandas.DataFrame([self._answer(row, params or {}) for row in rows])
        except (LongformerError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


mlflow.models.set_model(ServedModel())
