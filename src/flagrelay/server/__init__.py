"""Who asks: HTTP in front of the relay.

Contract: Starlette routes, access keys, connections handed over from uvicorn, health, metrics, and the process
itself with its end. Nothing but `cli` may import it. Rules never leave through a `client` key; secrets and
evaluation contexts are never logged.

    keyring     the access keys in memory, following their changes
    access      who asks, and may they
    pace        so many a turn
    admission   requests for streams, one portion after another
    handover    a uvicorn connection, taken out of uvicorn's hands
    portable    the same stream as a response of any ASGI server
    streams     GET /v1/stream
    evaluations GET and POST /v1/evaluations/stream, GET /ofrep/v1/events
    ofrep       POST /ofrep/v1/evaluate/flags, and one by one
    flagset     GET /v1/flags
    cors        which web pages may ask for evaluated values
    rates       how often each key may ask
    bodies      the bodies of requests, as large as they may be
    conditional whether a client has what it asks for
    admin       /admin/v1/…, the operations of `control`
    asking      what a request to it asks for
    idempotency a write that is sent again is done once
    headers     headers that mean nothing where they come twice
    kills       PUT and DELETE /v1/kills/{key}
    status      GET /statusz
    health      GET /livez, GET /readyz
    metrics     what this process counts
    exposition  GET /metrics
    refusals    every error as JSON
    identity    the name under which a relay reports
    context     what the endpoints share
    app         the Starlette application
    logs        structured logs, one line an event
    tls         a certificate, read again when it changes
    serve       the process: bind, run, drain, exit
    listeners   sockets to listen on

Several workers behind one address:

    supervisor  starts, replaces, renews and ends them
    slots       what may happen to a worker's place, as a table
    places      such a place, and what the supervisor knows of it
    worker_process  a worker, as the supervisor has it
    assembly    what is asked of all, and told to all
    control     the channel between the two
    worker      a worker's own process
    node        the node, as a worker sees it
    merging     what all say, as one
"""
