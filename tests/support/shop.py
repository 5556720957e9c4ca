"""A flag on its way through populations, from the command line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.cli import Cli, Outcome

PLAN = """\
flag: checkout
variants: {"on": true, "off": false}
released: "on"
baseline: "off"
owner: grace
description: the new checkout
stages:
  - population: dev
  - {population: beta, percent: 50}
  - percent: 10
  - percent: 100
"""

SAMPLE = '{"targetingKey": "d1"}\n\n{"plan": "beta", "targetingKey": "x"}\n{"plan": "free"}\n{"targetingKey": "d2"}\n'


@dataclass
class Shop:
    """An environment with populations and a plan in a file."""

    cli: Cli
    folder: Path

    def file(self, name: str, text: str) -> str:
        """A file with a text."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    @property
    def plan(self) -> str:
        return self.file("plan.yaml", PLAN)

    @property
    def sample(self) -> str:
        return self.file("contexts.jsonl", SAMPLE)

    def populate(self) -> "Shop":
        """Two populations: a list of keys, and an attribute."""
        self.cli.ok("populations", "put", "dev", "--keys", self.file("keys.txt", "d1\nd2\n"))
        self.cli.ok("populations", "put", "beta", "--equals", "plan=beta")
        return self

    def stored(self) -> "Shop":
        """With the plan stored: at revision 3."""
        self.release("plan", "--file", self.plan, "--apply")
        return self

    def started(self, to: str | None = None) -> "Shop":
        """At a stage: at revision 4."""
        self.stored().release("start", *(("--to", to) if to else ()))
        return self

    def release(self, action: str, *words: str, **variables: str) -> str:
        """What an action prints, which nobody is asked for."""
        return self.cli.ok("release", action, "checkout", "--yes", "--reason", "why", *words, **variables)

    def run(self, *words: str, stdin: str = "", terminal: bool = False) -> Outcome:
        return self.cli.run(*words, stdin=stdin, terminal=terminal)

    def served(self, **context: Any) -> Any:
        """What somebody has."""
        return self.cli.json("eval", "checkout", "--context", json.dumps(context))["value"]

    @property
    def revision(self) -> int:
        revision: int = self.cli.json("env", "list")[0]["revision"]
        return revision
