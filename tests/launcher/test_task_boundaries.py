"""Claims about the folders of tasks: nobody else names a task, none knows another, and a run file needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher
from launcher.tasks.registry import TASKS

PACKAGE = Path(launcher.__path__[0])
ALLOWED = {
    ("commands/generate.py", "characters"): "the option --characters says how many to write",
    ("commands/data.py", "characters"): "a kind of corpus of data_pipeline, whose tokens are characters",
}


def words_of(tree: ast.AST) -> Iterator[str]:
    """Yield every identifier, imported module and string of a module, but for docstrings."""
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def test_nothing_outside_the_folders_of_tasks_names_a_task() -> None:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        if not name.startswith("tasks/"):
            words = "\n".join(words_of(ast.parse(file.read_text()))).lower()
            found |= {(name, task) for task in TASKS if task in words}
    assert found == set(ALLOWED)


@pytest.mark.parametrize("task", TASKS)
def test_no_task_knows_another(task: str) -> None:
    for file in (PACKAGE / "tasks" / task).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for other in TASKS.keys() - {task}:
                assert not any(f"tasks.{other}" in module for module in modules), file


@pytest.mark.parametrize("task", TASKS)
def test_config_and_data_of_a_task_need_no_torch(task: str) -> None:
    program = f"import sys, launcher.tasks.{task}.config, launcher.tasks.{task}.data; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
