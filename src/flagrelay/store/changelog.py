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
        last = changes[-1].revision if changes else after
        with store.talking():
            page = await store.client.xrange(store.keys.changes(environment), min=f"{last + 1}-0", count=PAGE)
        for entry, fields in page:
            change = _change(environment, entry, fields)
            if change.revision != (changes[-1].revision if changes else after) + 1:
                raise ChangelogTrimmed(f'the changelog of environment "{environment}" has no revision {last + 1}')
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
