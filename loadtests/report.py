"""What docs/performance shows of results.json: plots, and the tables between two markers of its README."""

from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any

import plots
from measures import Measure
from rich.table import Table

BEGIN, END = "<!-- made from results.json: begin -->", "<!-- end -->"
EMPTY = f"# Performance\n\n{BEGIN}\n{END}\n"


def write(out: Path, results: Mapping[str, Any], known: Mapping[str, Measure]) -> None:
    """Write plots and tables of all results."""
    sections = []
    for name in (name for name in known if name in results):
        images = []
        with plots.style():
            for stem, figure in known[name].plots(results[name]["result"]):
                (out / f"{stem}.svg").write_bytes(plots.svg(figure))
                images.append(stem)
        sections.append("\n\n".join(_section(known[name], results[name], images)))
    sections += _machines(results)
    readme = out / "README.md"
    before, _, rest = (readme.read_text(encoding="utf-8") if readme.exists() else EMPTY).partition(BEGIN)
    after = rest.partition(END)[2]
    made = "\n\n".join([before + BEGIN, *sections, END])
    readme.write_text(made + after, encoding="utf-8")


def _section(measure: Measure, entry: Mapping[str, Any], images: list[str]) -> Iterator[str]:
    yield f"## {measure.NAME.replace('-', ' ').capitalize()}"
    yield cleandoc(getattr(measure, "__doc__", None) or "")
    yield f"*{entry['date']}, commit {entry['commit']}, {entry['rounds']} rounds.*"
    for stem in images:
        yield f"![{stem.replace('-', ' ')}]({stem}.svg)"
    for table in measure.tables(entry["result"]):
        if table.title:
            yield f"**{table.title}**"
        yield markdown(table)


def _machines(results: Mapping[str, Any]) -> Iterator[str]:
    """Each machine that results are from, once."""
    machines: dict[str, tuple[dict[str, str], list[str]]] = {}
    for name, entry in sorted(results.items()):
        machines.setdefault(repr(entry["machine"]), (entry["machine"], []))[1].append(name)
    for machine, names in machines.values():
        yield "## The machine" if len(machines) == 1 else f"## The machine of {', '.join(names)}"
        yield "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in machine.items())])


def markdown(table: Table) -> str:
    """A rich table of plain texts, as Markdown."""
    columns = [[_cell(cell) for cell in column.cells] for column in table.columns]
    heads = [_cell(column.header) for column in table.columns]
    rules = ["---:" if all(cell[:1].isdigit() for cell in column if cell) else "---" for column in columns]
    lines = [heads, rules, *zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(content: object) -> str:
    return str(content).replace("|", "\\|").replace("\n", " ")
