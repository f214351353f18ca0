"""`longformer doctor`: is everything here that training needs, on this machine or on every node of a Slurm job."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from launcher.config.load import load
from launcher.doctor.examination import checks_of_this_machine, examine
from launcher.doctor.finding import Finding, Level, worst
from launcher.doctor.nodes import examine_nodes
from launcher.reporting.terminal import terminal, terminal_table

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.MISS: "bold red"}


def doctor(
    run_file: Annotated[
        Path | None, typer.Argument(metavar="[RUN.yaml]", help="A run file, whose MLflow address is asked.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder where runs are to lie; it need not exist yet.")] = Path("runs"),
    nodes: Annotated[bool, typer.Option("--nodes", help="Examine every node of this Slurm job.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Examine this machine and its surroundings; exit code 1 where something is missing that training needs."""
    tracking = load(run_file).tracking.uri if run_file else None
    content: dict[str, Any]
    if nodes:
        by_node = examine_nodes(runs, tracking)
        level = worst(chain.from_iterable(by_node.values()))
        content = {"nodes": {node: [asdict(each) for each in found] for node, found in by_node.items()}}
        tables = tables_of_nodes(by_node)
    else:
        found = examine(checks_of_this_machine(runs, tracking))
        level = worst(found)
        content = {"findings": [asdict(each) for each in found]}
        tables = [_table("this machine", ("", found))]
    if as_json:
        print(json.dumps({"level": level, **content}, indent=1))
    else:
        console = terminal()
        for table in tables:
            console.print(table)
        console.print(_SUMMARY[level])
    return 1 if level is Level.MISS else 0


_SUMMARY = {
    Level.OK: "Everything is there.",
    Level.WARN: "Training works here; see the warnings for what does not.",
    Level.MISS: "Something is missing that training needs.",
}


def tables_of_nodes(by_node: dict[str, list[Finding]]) -> list[Table]:
    """Returns a table of what all nodes have in common, and one for each check in which they differ."""
    checks = dict.fromkeys(finding.check for found in by_node.values() for finding in found)
    common: list[Finding] = []
    tables = []
    for check in checks:
        nodes_of: dict[tuple[Finding, ...], list[str]] = {}
        for node, found in by_node.items():
            nodes_of.setdefault(tuple(each for each in found if each.check == check), []).append(node)
        if len(nodes_of) == 1:
            common += next(iter(nodes_of))
        else:
            rows = [(", ".join(nodes), found or _NOTHING) for found, nodes in nodes_of.items()]
            tables.append(_table(check, *rows))
    return [_table(f"the same on all {len(by_node)} nodes", ("", common)), *tables]


_NOTHING = (Finding("", Level.WARN, "not examined"),)


def _table(title: str, *groups: tuple[str, Iterable[Finding]]) -> Table:
    """Returns a table of findings; a group with a name shows it in place of the check's."""
    rows = [
        (
            Text(each.level, style=_STYLES[each.level]),
            nodes or each.check,
            Text(each.found) + Text(f"\n{each.remedy}" if each.remedy else "", style="dim"),
        )
        for nodes, findings in groups
        for each in findings
    ]
    return terminal_table(("", "", ""), rows, title=title, names=2, words=("",))
