"""The changes after a revision, and those up to one."""

from flagrelay.errors import ChangelogTrimmed, MessageError, StoreCorrupt
from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.store.connection import Store
from flagrelay.wire.message import decode_change

RECENT_PAGE = 50
"""The same, where it is not known how large they are, nor how many are wanted of them."""

PAGE = 500
"""Changes read in one round trip."""


async def read_changes(store: Store, environment: str, after: int) -> list[Change]:
    """Every change with a higher revision, in order, without holes.

    Raises:
        ChangelogTrimmed: the changelog no longer holds them all.
        StoreCorrupt: it holds something that is no change.
    """
    changes: list[Change] = []
    while True:
        following = after + len(changes) + 1
        with store.talking():
            page = await store.client.xrange(store.keys.changes(environment), min=f"{following}-0", count=PAGE)
        for revision, (entry, fields) in enumerate(page, following):
            change = _change(environment, entry, fields)
            if change.revision != revision:
                raise ChangelogTrimmed(f'the changelog of environment "{environment}" has no revision {revision}')
            changes.append(change)
        if len(page) < PAGE:
            return changes


async def read_recent_changes(
    store: Store, environment: str, position: Position, *, most: int, most_bytes: int
) -> list[Change]:
    """The last changes up to a position, oldest first: as many as there are, fit together, and are asked for.

    Args:
        store: where they are.
        environment: its name.
        position: what the last of them leads to.
        most: how many.
        most_bytes: and how large they are together, as messages.
    """
    recent: list[Change] = []
    nonce, revision = position.nonce, position.revision
    while len(recent) < most and most_bytes > 0:
        count = min(RECENT_PAGE, most - len(recent))
        with store.talking():
            page = await store.client.xrevrange(store.keys.changes(environment), max=f"{revision}-0", count=count)
        for entry, fields in page:
            try:
                change = _change(environment, entry, fields)
            except StoreCorrupt:
                return recent[::-1]
            most_bytes -= len(fields[b"change"])
            if change.position != (position.epoch, revision, nonce) or most_bytes < 0:
                return recent[::-1]
            recent.append(change)
            nonce, revision = change.previous, revision - 1
        if len(page) < count:
            break
    return recent[::-1]


def _change(environment: str, entry: bytes, fields: dict[bytes, bytes]) -> Change:
    try:
        return decode_change(fields[b"change"])
    except (KeyError, MessageError) as error:
        raise StoreCorrupt(
            f'entry {entry.decode()} in the changelog of environment "{environment}" is no change: {error}'
        ) from error
