"""How a change moves: from Redis into memory, and out to every stream.

Contract: asyncio and the store, nothing of HTTP: no server, no request, no metrics library, no settings (plain
arguments). `server` and `cli` stand above it; nothing below may import it. What runs once per stream
(`pump`, `subscriber`) never awaits, and makes nothing that could be made once per change.

    states       the states of a source, as a table
    follow       what a message from Redis means for the position we hold; pure
    backoff      how long to wait before the next try
    channel      one Redis channel, listened to for good
    source       follows one environment in Redis
    reconcile    what Redis says to a local kill; pure
    local_kills  the kills that this relay holds by itself
    keeper       keeps the last snapshot on disk
    pipeline     the path of a change, from the source to the streams
    held         the frames of the last changes, for whoever has to catch up
    subscriber   one open stream, the relay's side of it
    feed         what streams are fed with: the definitions
    evaluations  the same: what every flag says for a context
    refetch      the same: that there is something to fetch (OFREP)
    hub          the streams of one environment that are fed with the same
    pump         writes what is new to every stream, in slices
    reporter     tells Redis which revision every stream has
    stats        what happened, counted
    relay        all environments of one process
"""
