"""Where in an environment's history something stands."""

from typing import NamedTuple


class Position(NamedTuple):
    """A point in the history of one environment.

    `epoch` is the random identity of the history, `revision` counts its changes from 0 (created, still
    empty), `nonce` is the random identity of the last change, so that two histories that parted at a
    failover differ even where their counts agree.
    """

    epoch: str
    revision: int
    nonce: str
