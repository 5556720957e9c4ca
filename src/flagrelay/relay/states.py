"""The states of a source, as a table.

    CONNECTING ──SUBSCRIBED──▶ LOADING ──LOADED──▶ LIVE
      │ ▲ FAILED                 │ ▲  ▲              │ │
      │ └────────────────────────┘ │  └──DIVERGED────┘ │
      │                            │                   │
      │                SUBSCRIBED  │      LOST         │
      └───────────RESTORED───────▶ STALE ◀─────────────┘

FAILED and LOST are the same misfortune with and without a snapshot to fall back on: a source that has loaded
once never returns to CONNECTING, it keeps serving what it has. RESTORED gives a source that has not loaded the
snapshot that was kept on disk; while it is loading it goes on doing that.
"""

from enum import StrEnum


class SourceState(StrEnum):
    """Where a source stands."""

    CONNECTING = "connecting"
    """Nothing was ever loaded, and Redis does not answer (or not with an environment)."""
    LOADING = "loading"
    """Subscribed; reading the whole state."""
    LIVE = "live"
    """The snapshot is Redis's state, but for news on its way."""
    STALE = "stale"
    """The last snapshot is kept; Redis does not confirm it."""


class SourceEvent(StrEnum):
    """What moves a source from one state to another."""

    SUBSCRIBED = "subscribed"
    LOADED = "loaded"
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"
    RESTORED = "restored"


TRANSITIONS = {
    (SourceState.CONNECTING, SourceEvent.SUBSCRIBED): SourceState.LOADING,
    (SourceState.CONNECTING, SourceEvent.FAILED): SourceState.CONNECTING,
    (SourceState.CONNECTING, SourceEvent.RESTORED): SourceState.STALE,
    (SourceState.LOADING, SourceEvent.RESTORED): SourceState.LOADING,
    (SourceState.LOADING, SourceEvent.LOADED): SourceState.LIVE,
    (SourceState.LOADING, SourceEvent.FAILED): SourceState.CONNECTING,
    (SourceState.LOADING, SourceEvent.LOST): SourceState.STALE,
    (SourceState.LIVE, SourceEvent.DIVERGED): SourceState.LOADING,
    (SourceState.LIVE, SourceEvent.LOST): SourceState.STALE,
    (SourceState.STALE, SourceEvent.SUBSCRIBED): SourceState.LOADING,
    (SourceState.STALE, SourceEvent.LOST): SourceState.STALE,
}


def transition(state: SourceState, event: SourceEvent) -> SourceState:
    """The state that follows.

    Raises:
        ValueError: the pair is not in the table, which is a bug of the caller.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a source that is {state} cannot take {event}") from None
