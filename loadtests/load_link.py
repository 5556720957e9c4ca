"""The process that speaks to Redis for `locustfile.py`, as greenlets see it. `load_redis.py` says why there is one."""

import json
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

PROGRAM = Path(__file__).with_name("load_redis.py")
END = 15.0
"""Seconds in which it must have ended; it waits for Redis for less."""


class RedisFailed(Exception):
    """Redis did not do what it was asked for; says why."""


class RedisLink:
    """A process that speaks to Redis, one question at a time.

    Args:
        redis_url: where Redis is.
        environment: which environment changes.
        prefix: of the names in Redis.

    Raises:
        RedisFailed: Redis cannot be reached, or has no such environment.
    """

    def __init__(self, redis_url: str, environment: str, prefix: str) -> None:
        # A session of its own: Ctrl-C is for locust, which then closes this in order.
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._turn = Lock()
        self._asked = 0
        # By its input and not as arguments, which everybody on the machine may read: there may be a password in it.
        self._tell({"redis_url": redis_url, "environment": environment, "prefix": prefix})
        self.offset = 0.0
        """Redis's clock minus this machine's, in seconds."""
        try:
            self.compare_clocks()
        except RedisFailed:
            self.close()
            raise

    def compare_clocks(self) -> None:
        """Look again how far apart the clocks are."""
        self.offset = float(self._ask({"do": "clock"})["offset"])

    def begin(self, flag: str) -> str:
        """Settle on the flag that changes, which must not exist; without a name one is made up. Returns its key."""
        return str(self._ask({"do": "begin", "flag": flag})["flag"])

    def change(self) -> float:
        """Write a change. Returns how long it took, in milliseconds, by the process that wrote it."""
        return float(self._ask({"do": "change"})["ms"])

    def close(self) -> None:
        """End the process; it removes the flag."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, question: dict[str, str]) -> dict[str, Any]:
        with self._turn:
            self._asked += 1
            self._tell({"id": self._asked, **question})
            while line := self._process.stdout.readline() if self._process.stdout else "":
                answer: dict[str, Any] = json.loads(line)
                # An older answer is to somebody who was stopped before it came.
                if answer.get("id", self._asked) == self._asked:
                    if "error" in answer:
                        raise RedisFailed(answer["error"])
                    return answer
        raise RedisFailed(f"{PROGRAM.name} has ended")

    def _tell(self, what: dict[str, Any]) -> None:
        try:
            if self._process.stdin:
                self._process.stdin.write(json.dumps(what) + "\n")
                self._process.stdin.flush()
        except OSError as error:
            raise RedisFailed(f"{PROGRAM.name} has ended") from error
