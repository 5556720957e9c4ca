"""Lua scripts, sent once and then named by their hash."""

import hashlib
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from flagrelay.store.connection import Store


class Script:
    """A Lua script.

    Args:
        text: its source.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._hash = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, store: Store, keys: list[str], *arguments: str | bytes | int) -> Any:  # noqa: ANN401 - Redis's answer
        """Run it. The keys decide on which node of a cluster.

        Raises:
            StoreUnavailable: Redis does not answer, or not us.
        """
        with store.talking():
            try:
                return await store.client.evalsha(self._hash, len(keys), *keys, *arguments)
            except NoScriptError:
                return await store.client.eval(self._text, len(keys), *keys, *arguments)


WRITE = Script(files(__package__).joinpath("write.lua").read_text(encoding="utf-8"))
"""Every write to an environment."""

CLOCK = Script("return redis.call('TIME')")
"""The clock of the node that holds a key."""

READ = Script("""
local answers = {}
for index, name in ipairs(KEYS) do
  answers[index] = ARGV[1] and redis.call('HGET', name, ARGV[1]) or not ARGV[1] and redis.call('HGETALL', name)
end
return answers
""")
"""Several hashes as of one moment, whole or one field of each."""
