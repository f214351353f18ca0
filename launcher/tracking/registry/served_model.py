"""The model that MLflow serves: raw records in, what the model is made for out.

MLflow stores this file with `longformer` beside the weights and runs it where the model is loaded, so it imports
nothing of the training stack. Records that cannot be answered are refused together, with a sentence for each.
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
        """Returns a row of results for every row of texts.

        Raises:
            MlflowException: rows cannot be answered, which a server tells as status 400; a line says why for each.
        """
        rows: list[Any] = model_input.to_dict("records")
        results, refusals = [], []
        for number, row in enumerate(rows, 1):
            try:
                results.append(self._answer(row, params or {}))
            except (LongformerError, ValueError) as error:
                refusals.append(f"row {number} of {len(rows)}: {error}")
        if refusals:
            raise MlflowException.invalid_parameter_value("\n".join(refusals))
        return pandas.DataFrame(results)


mlflow.models.set_model(ServedModel())
