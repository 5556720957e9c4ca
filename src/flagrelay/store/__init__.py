"""Flags in Redis: the only package that speaks Redis.

Contract: asyncio and redis-py's own clients, nothing of HTTP. Imports `wire`, `flags` and `errors`; `relay` and all
above may import it. Whatever redis-py raises leaves here as `StoreUnavailable`; what Redis answers and
we cannot use leaves as another `StoreError`. No password ever stands in a message.

    keyspace        what is stored under which name
    connection      a client for an address: plain, TLS, unix socket, Sentinel or Cluster
    script          Lua scripts, sent once
    write.lua       every write to an environment
    environments    create, destroy, list
    reading         the whole state at one revision, single flags, the clock
    writing         changes, kills, and their undoing
    replicas        waiting until replicas have a write
    changelog       the changes after a revision
    releases        writing a flag's release, and the flag that it compiles to
    history         who did what and why
    reports         what relays say of themselves
    idempotency     what came of requests that had an idempotency key
    subscription    the messages of a channel
    access_keys     access keys, stored hashed
"""
