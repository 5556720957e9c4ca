"""The command line in the test's own process, through its entry point; and as a process where it must be one."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from flagrelay.cli.main import main

FLAG = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}


AT_A_TERMINAL = {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
"""Variables with which rich prints as it does at a terminal, which has no colours."""


class Terminal(io.TextIOWrapper):
    """Standard input, as somebody at a terminal gives it."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


@dataclass
class Cli:
    """`flagrelay`, with an environment of its own."""

    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, stdin: str | bytes = "", terminal: bool = False, **variables: str) -> Outcome:
        """A command, in this process."""
        given = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with (
            patch.dict(os.environ, self.environment_for(variables), clear=True),
            patch.object(sys, "argv", ["flagrelay", *words]),
            patch.object(sys, "stdin", Terminal(given) if terminal else io.TextIOWrapper(given)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as end:
                status = end.code
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        assert isinstance(status, int)
        return Outcome(status, *texts)

    def ok(self, *words: str, stdin: str | bytes = "", **variables: str) -> str:
        """What a command prints that succeeds."""
        outcome = self.run(*words, stdin=stdin, terminal=False, **variables)
        assert outcome.status == 0, outcome
        return outcome.out

    def json(self, *words: str, stdin: str | bytes = "", **variables: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self.ok(*words, "--json", stdin=stdin, **variables))

    def refused(self, *words: str, stdin: str | bytes = "", **variables: str) -> str:
        """The one line in which a command says why it failed."""
        outcome = self.run(*words, stdin=stdin, terminal=False, **variables)
        assert (outcome.status, outcome.out) == (1, ""), outcome
        assert outcome.err.startswith("error: ")
        assert outcome.err.count("\n") == 1
        assert outcome.err.endswith("\n")
        return outcome.err.removeprefix("error: ").strip()

    def misused(self, *words: str, stdin: str | bytes = "", **variables: str) -> str:
        """What a command says that was called wrongly."""
        outcome = self.run(*words, stdin=stdin, terminal=False, **variables)
        assert (outcome.status, outcome.out) == (2, ""), outcome
        assert outcome.err.startswith("Usage: flagrelay")
        return outcome.err

    def environment_for(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Nothing of flagrelay's but what was asked for."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("FLAGRELAY_")}
        return {**ours, **self.environment, **variables}

    @contextlib.contextmanager
    def process(self, *words: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
        """A command as a process, which is killed at the end if it still runs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "flagrelay", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment_for(variables),
        )
        with process:
            try:
                yield process
            finally:
                process.kill()
