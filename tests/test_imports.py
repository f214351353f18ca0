"""What may import what, beyond the contracts of import-linter in pyproject.toml; and where docs say things lie."""

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

PACKAGES = ("launcher", "longformer", "data_pipeline")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Every module of ours with those it imports, at its top or inside a function, but not for type checkers only."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Returns the modules of one import circle, the first of them again at the end; nothing where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_over_others(imports: dict[str, set[str]]) -> None:
    assert " <- ".join(circle(imports)) == ""


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def test_no_task_imports_another(imports: dict[str, set[str]]) -> None:
    tasks = {folder.parent.name for folder in Path("launcher/tasks").glob("*/task.py")}
    assert {"characters", "masked_lm", "summarization"} <= tasks

    def task_of(module: str) -> str | None:
        name = module.removeprefix("launcher.tasks.").partition(".")[0]
        return name if module.startswith("launcher.tasks.") and name in tasks else None

    crossings = [
        f"{module} imports {imported}"
        for module, names in imports.items()
        for imported in names
        if task_of(module) and task_of(imported) and task_of(module) != task_of(imported)
    ]
    assert crossings == []


def test_every_cited_section_of_the_semantics_is_there() -> None:
    page = Path("docs/semantics.md").read_text(encoding="utf-8")
    sections = re.findall(r"^##+ (\d(?:\.\d)?)", page, re.MULTILINE)
    folders = (*PACKAGES, "configs", "docs", "tests")
    files = [path for folder in folders for path in Path(folder).rglob("*.*") if path.suffix in (".py", ".md", ".yaml")]
    cited = {
        section
        for path in files
        for place in re.findall(
            r"semantics\.md (\d(?:\.\d)?(?:(?:, | and )\d(?:\.\d)?)*)", path.read_text(encoding="utf-8")
        )
        for section in re.findall(r"\d(?:\.\d)?", place)
    }
    assert len(cited) > 10
    assert cited <= set(sections)


def test_every_file_that_the_architecture_names_is_there() -> None:
    page = Path("docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:launcher|longformer|data_pipeline|tests)/[\w/.]*)`", page)
    assert len(named) > 60
    assert [path for path in named if not Path(path).exists()] == []
