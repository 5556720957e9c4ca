"""What people do to an environment, as operations: the same from the command line and over HTTP.

Contract: each operation takes one request and gives one answer, both plain data, and knows neither terminals nor HTTP.
Imports `store`, `release`, `wire`, `flags` and `errors`; `server` and `cli` stand above it, `relay` beside it.

    operation    an operation: its name, its path over HTTP, its request, its answer
    session      on whose behalf, and where
    table        every operation there is
    answers      the shapes that several answers share
    flags        flags: list, get, put, delete, kill, revive
    importing    the difference between a file and an environment
    flagsets     whole flag sets: export, import
    sync         the same for files that are kept in Git, which never bring back what a person took away
    holding      what that holds back, and why
    populations  named predicates
    standing     how a release stands, and what was done to it
    stepping     one action on a release: read, step, compile, write
    planning     storing a plan
    releases     start, advance, retreat, un-release, restore, and the ends
    reach        how many people each stage reaches
    effect       who gains and who loses by it
    history      who did what and why
    relays       which relays there are, and which of them have a change
    proof        the same, waited for
    faults       what an error is over HTTP
    openapi      the document that describes all of it
"""
