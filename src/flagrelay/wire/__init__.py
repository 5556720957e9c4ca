"""Bytes to flags and back: change messages, Server-Sent Events, event ids.

Contract: pure and synchronous, as `flags` is; no I/O, no clock, no event loop. Imports `flags` and `errors`
only. Every decoder raises `MessageError` on bad bytes and nothing else, whatever the bytes are.

    message    change messages as Redis carries them
    event_id   `EPOCH.REVISION`, the id of a `put` or `patch`
    frame      the final bytes of one event, made once, shared by every stream
    evaluated  evaluated values: what each flag says for one context
    ofrep      OFREP's bodies and events
    sse        the other direction: an incremental parser of `text/event-stream`
"""
