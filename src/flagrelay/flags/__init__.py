"""What a flag is: definitions, changes, snapshots.

Contract: pure and synchronous. Nothing here reads a clock, a file or a socket, imports asyncio, redis or an
HTTP library, or knows how anything is spelled on a wire. It stands at the bottom: only `errors` lies below,
and every other package may import it.

    definition   what a flag, a population and a flag set may look like, and the error where one does not
    position     where in an environment's history something stands: epoch, revision, nonce
    change       one atomic edit of an environment
    snapshot     the immutable state of one environment at one revision
"""
