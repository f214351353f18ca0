"""All tasks by name. To add one, write its folder and add its line here."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.config.run_config import RunConfig
from launcher.config.yaml_file import LoadedYaml
from longformer.errors import LongformerError

if TYPE_CHECKING:  # bring torch, or much else that is not needed to read a run file
    from launcher.runs.run import Run
    from launcher.tasks.base import Task
    from launcher.tasks.data import TaskData
    from launcher.tasks.recipes import Recipe


@dataclass(frozen=True)
class TaskSpec:
    """The folder of a task, and the classes in it. None is imported before it is needed."""

    folder: str
    """Package with the modules config, data and task."""
    config: str
    """Its `RunConfig`, in config.py, which imports no torch."""
    data: str
    """Its `TaskData`, in data.py, which imports no torch."""
    task: str
    """Its `Task`, in task.py."""
    recipe: str | None = None
    """What `longformer new --task` calls it, where it has a `RECIPE` in recipe.py."""

    def load_config(self) -> type[RunConfig]:
        """Returns the class of its run files."""
        found: type[RunConfig] = self.load("config", self.config)
        return found

    def load(self, module: str, name: str) -> Any:
        """Returns what a module of the folder holds under a name."""
        return getattr(import_module(f"{self.folder}.{module}"), name)


TASKS = {
    "characters": TaskSpec("launcher.tasks.characters", "CharacterRun", "CharacterData", "CharacterTask"),
    "extractive_qa": TaskSpec(
        "launcher.tasks.extractive_qa", "ExtractiveQARun", "ExtractiveQAData", "ExtractiveQATask", "answer"
    ),
    "hotpotqa": TaskSpec("launcher.tasks.hotpotqa", "HotpotQARun", "HotpotQAData", "HotpotQATask"),
    "masked_lm": TaskSpec("launcher.tasks.masked_lm", "MaskedLMRun", "MaskedLMData", "MaskedLMTask", "mlm"),
    "multiple_choice": TaskSpec(
        "launcher.tasks.multiple_choice", "MultipleChoiceRun", "MultipleChoiceData", "MultipleChoiceTask"
    ),
    "sequence_classification": TaskSpec(
        "launcher.tasks.sequence_classification",
        "SequenceClassificationRun",
        "SequenceClassificationData",
        "SequenceClassificationTask",
        "classify",
    ),
    "summarization": TaskSpec(
        "launcher.tasks.summarization", "SummarizationRun", "SummarizationData", "SummarizationTask", "summarize"
    ),
    "token_classification": TaskSpec(
        "launcher.tasks.token_classification",
        "TokenClassificationRun",
        "TokenClassificationData",
        "TokenClassificationTask",
        "label",
    ),
    "triviaqa": TaskSpec("launcher.tasks.triviaqa", "TriviaQARun", "TriviaQAData", "TriviaQATask"),
    "coreference": TaskSpec("launcher.tasks.coreference", "CoreferenceRun", "CoreferenceData", "CoreferenceTask"),
    "wikihop": TaskSpec("launcher.tasks.wikihop", "WikihopRun", "WikihopData", "WikihopTask"),
}
DEFAULT = "characters"
"""The task of a run file that names none."""


def config_class_of(loaded: LoadedYaml) -> type[RunConfig]:
    """Returns the class of run file that the content's `task` asks for.

    Raises:
        LongformerError: there is no such task.
    """
    task = loaded.content.get("task", DEFAULT)
    if task not in TASKS:
        raise LongformerError(
            f"{loaded.origin(('task',))}: task is {task!r}, but it should be one of {', '.join(TASKS)}"
        )
    return TASKS[task].load_config()


def data_of(config: RunConfig, directory: Path | None = None) -> "TaskData[Any]":
    """Returns the data of a run; `directory` where it is not prepared in the one that the run file names."""
    spec = TASKS[config.task]
    data: TaskData[Any] = spec.load("data", spec.data)(config, directory or config.data.directory)
    return data


def task_of(config: RunConfig, directory: Path | None = None) -> "Task[Any, Any]":
    """Returns the task of a run; arguments as in `data_of`."""
    spec = TASKS[config.task]
    task: Task[Any, Any] = spec.load("task", spec.task)(config, data_of(config, directory))
    return task


def task_of_run(run: "Run") -> "Task[Any, Any]":
    """Returns the task of a run that has been created, on the data that it was created with."""
    return task_of(run.config, Path(run.paths.identity().data_directory))


def recipe_of(name: str) -> "Recipe":
    """Returns the recipe of new run files that `longformer new --task` calls by a name."""
    spec = next(spec for spec in TASKS.values() if spec.recipe == name)
    recipe: Recipe = spec.load("recipe", "RECIPE")
    return recipe


def recipe_names() -> list[str]:
    """Returns the names that `recipe_of` knows."""
    return [spec.recipe for spec in TASKS.values() if spec.recipe]
