"""All tasks by name: which run file belongs to each, and the class that does its work."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from launcher.config.run_config import RunConfig
from launcher.config.yaml_file import LoadedYaml
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.masked_lm.config import MaskedLMRun
from launcher.tasks.summarization.config import SummarizationRun
from longformer.errors import LongformerError

if TYPE_CHECKING:  # a task works on runs, which are opened by the names that stand here
    from launcher.tasks.base import Task


@dataclass(frozen=True)
class Kind:
    """A task before it is loaded, which may bring heavy imports."""

    run_file: type[RunConfig]
    work: str
    """Module and class that do its work."""


KINDS = {
    "characters": Kind(CharacterRun, "launcher.tasks.characters.task:CharacterTask"),
    "masked_lm": Kind(MaskedLMRun, "launcher.tasks.masked_lm.task:MaskedLMTask"),
    "summarization": Kind(SummarizationRun, "launcher.tasks.summarization.task:SummarizationTask"),
}
DEFAULT = "characters"
"""The task of a run file that names none."""


def run_file_of(written: LoadedYaml) -> type[RunConfig]:
    """Return the kind of run file that the content's `task` asks for.

    Raises:
        LongformerError: there is no such task.
    """
    task = written.content.get("task", DEFAULT)
    if task not in KINDS:
        raise LongformerError(
            f"{written.origin(('task',))}: task is {task!r}, but it should be one of {', '.join(KINDS)}"
        )
    return KINDS[task].run_file


def task_of(config: RunConfig) -> "Task":
    """Return what does the work of a run's task."""
    module, _, name = KINDS[config.task].work.partition(":")
    task: Task = getattr(import_module(module), name)(config)
    return task
