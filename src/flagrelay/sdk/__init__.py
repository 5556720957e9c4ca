"""The far end of a stream, in Python: the seed of an SDK.

Contract: aiohttp, `wire`, `flags` and `errors`; nothing of the server, the relay or the store. What is here is
written from docs/protocol.md alone, as an SDK in another language would be.

    stream      one connection of GET /v1/stream
    replica     the flag set that its events make
    client      an environment kept fresh: connected again when lost, never emptied
    asking      asking once, without a stream
    evaluator   the Evaluator protocol of flagd's Python kits, on top of our snapshots
"""
