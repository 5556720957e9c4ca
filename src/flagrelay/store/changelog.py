"""The changes after a revision."""

from flagrelay.errors import ChangelogTrimmed, MessageError, StoreCorrupt
from flagrelay.flags.change import Change
from flagrelay.store.connection import Store
from flagrelay.wire.message import decode_change

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


def _change(environment: str, entry: bytes, fields: dict[bytes, bytes]) -> Change:
    try:
        return decode_change(fields[b"change"])
    except (KeyError, MessageError) as error:
        raise StoreCorrupt(
            f'entry {entry.decode()} in the changelog of environment "{environment}" is no change: {error}'
        ) from error
