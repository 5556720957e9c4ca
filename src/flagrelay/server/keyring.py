"""The access keys in memory. They follow their changes as flags do; no request ever waits for Redis."""

import asyncio
import hmac
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time
from typing import NoReturn

import structlog

from flagrelay.disk.state_dir import StateDir
from flagrelay.errors import Refusal, StateError
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.channel import Listener, listen
from flagrelay.store.access_keys import (
    AccessKey,
    KeysSnapshot,
    digest,
    read_access_keys,
    read_keys_position,
    stream_token,
)
from flagrelay.store.connection import Store
from flagrelay.store.subscription import subscribe_keys

RETRY_AFTER = 1
"""Seconds after which a key that could not be checked is worth another try."""

log = structlog.get_logger()


class Keyring:
    """Every access key, by the digest of its secret.

    Args:
        store: where the keys are.
        on_end: told of each key that is no longer valid, with `revoked` or `expired`.
        on_change: told whenever keys were read anew.
        interval: seconds between comparisons with Redis.
        backoff: how long to wait between tries to connect.
        state_dir: where the keys are kept, hashed; None for nowhere.
        state_wait: seconds that Redis may take at the start before what is kept is used.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_end: Callable[[AccessKey, str], None],
        on_change: Callable[[], None],
        interval: float,
        backoff: Backoff,
        state_dir: StateDir | None = None,
        state_wait: float = 0.0,
    ) -> None:
        self.live = False
        self.loaded = False
        self.reason = "not connected to Redis yet"
        self._keys: Mapping[str, AccessKey] = {}
        self._by_id: Mapping[str, AccessKey] = {}
        self._position: tuple[str, int] | None = None
        self._expired: set[str] = set()
        self._changed = asyncio.Event()
        self._store = store
        self._on_end = on_end
        self._on_change = on_change
        self._interval = interval
        self._backoff = backoff
        self._state_dir = state_dir
        self._state_wait = state_wait
        self._read: KeysSnapshot | None = None
        self._unkept = asyncio.Event()

    def check(self, secret: str) -> AccessKey:
        """The access key that a secret is.

        Raises:
            Refusal: 401 for an unknown or expired one; 503 for one that is unknown while Redis cannot say
                whether it is new. A key that was valid a moment ago stays valid.
        """
        wanted = digest(secret)
        key = self._keys.get(wanted)
        return self._valid(key if key is not None and hmac.compare_digest(key.digest, wanted) else None)

    def check_token(self, token: str) -> AccessKey:
        """The access key that a stream's token stands for.

        Raises:
            Refusal: as for `check`.
        """
        key = self._by_id.get(token.partition(".")[0])
        ours = stream_token(key) if key else ""
        known = key is not None and hmac.compare_digest(ours.encode(), token.encode(errors="replace"))
        return self._valid(key if known else None)

    def _valid(self, key: AccessKey | None) -> AccessKey:
        if key is not None:
            if key.expires is None or key.expires > time():
                return key
            raise Refusal(401, "UNAUTHORIZED", f'the access key "{key.id}" has expired: create another one')
        if not self.live:
            raise Refusal(
                503,
                "KEYS_UNAVAILABLE",
                "the key cannot be checked: no connection to Redis",
                retry_after=RETRY_AFTER,
            )
        raise Refusal(401, "UNAUTHORIZED", "unknown access key: it was never created, or has been revoked")

    async def run(self) -> None:
        """Follow the keys until cancelled."""
        listener = Listener(self._load, self._receive, self._compare, self._lose)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                listen(
                    lambda: subscribe_keys(self._store),
                    listener,
                    interval=self._interval,
                    backoff=self._backoff,
                )
            )
            tasks.create_task(self._expire())
            if self._state_dir:
                tasks.create_task(self._keep(self._state_dir))
                tasks.create_task(self._recall(self._state_dir))

    async def _receive(self, _hint: bytes) -> None:
        await self._compare()

    async def _compare(self) -> None:
        if await read_keys_position(self._store) != self._position or not self.live:
            await self._load()

    async def _load(self) -> None:
        read = await read_access_keys(self._store)
        if read is None and self._keys:
            # Redis was wiped. Keys are revoked by a person, one by one, never by an accident.
            self._lose("the access keys are gone from Redis; the last known ones stay valid")
            return
        before = self._keys
        self._take(read)
        self.live = True
        self._unkept.set()
        for wanted, key in before.items():
            if wanted not in self._keys:
                self._on_end(key, "revoked")
        self._changed.set()
        self._on_change()

    def _take(self, read: KeysSnapshot | None) -> None:
        self._read = read
        self._keys = read.keys if read else {}
        self._by_id = {key.id: key for key in self._keys.values()}
        self._position = read.position if read else None
        self.loaded = True

    async def _recall(self, state_dir: StateDir) -> None:
        """Know the keys that were kept, where Redis has given us none in time. They are not known to be all."""
        await asyncio.sleep(self._state_wait)
        kept = await asyncio.to_thread(state_dir.read_keys)
        if kept and not self.loaded:
            self._take(kept)
            self._changed.set()
            self._on_change()
            log.warning("access keys", state="stale", reason=f"served from disk: {self.reason}")

    async def _keep(self, state_dir: StateDir) -> NoReturn:
        """Write the keys to disk as soon as they have changed: what was revoked must stay so after a cold start."""
        while True:
            await self._unkept.wait()
            self._unkept.clear()
            if self._read:
                with suppress(StateError):
                    await asyncio.to_thread(state_dir.write_keys, self._read)
                    continue
                await asyncio.sleep(self._interval)
                self._unkept.set()

    async def _expire(self) -> NoReturn:
        """End each key at its time."""
        while True:
            now = time()
            for wanted, key in self._keys.items():
                if key.expires is not None and key.expires <= now and wanted not in self._expired:
                    self._expired.add(wanted)
                    self._on_end(key, "expired")
            self._expired &= self._keys.keys()
            upcoming = [k.expires - now for k in self._keys.values() if k.expires is not None and k.expires > now]
            try:
                async with asyncio.timeout(min(upcoming, default=None)):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    def _lose(self, reason: str) -> None:
        if self.live or reason.partition(": ")[0] != self.reason.partition(": ")[0]:
            log.warning("access keys", state="stale" if self.loaded else "unknown", reason=reason)
        self.live = False
        self.reason = reason
