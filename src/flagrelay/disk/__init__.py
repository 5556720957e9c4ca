"""What a relay keeps on disk, for a start without Redis.

Contract: files in one folder that belongs to one relay; nothing of Redis, of streams or of HTTP. `relay`, `server` and
`cli` stand above it. Every file is written whole or not at all, says what it is and which bytes it should have, and is
never trusted where it does not: it is set aside, and the relay goes on without it. Access keys are kept hashed, as in
Redis; contexts are not kept.

    state_file   one file: written atomically, checked when it is read
    state_dir    the folder: which file holds what
    documents    snapshots, access keys and local kills as JSON
"""
