"""A flag's way through populations: its plan, where it stands, what may be done, and what it compiles to.

Contract: pure and synchronous; imports `flags` and `errors` only. Relays and SDKs know nothing of it: what comes
out is a plain flagd definition.

    duration    times as people write them: 30m, 1d
    plan        which variant goes to whom, in which stages
    states      what may be done in which state, as a table
    standing    a release as it stands: its plan, its position, its blocks
    actions     each action, from one standing to the next
    compiler    what a standing compiles to
    exposure    whom a standing exposes, and who gains and loses between two
    sample      the same, counted over contexts
    population  the simple forms of populations, and what people should know of one
"""
