"""What the endpoints share."""

from dataclasses import dataclass

from starlette.requests import Request

from flagrelay.disk.state_dir import StateDir
from flagrelay.relay.relay import Relay
from flagrelay.server.keyring import Keyring
from flagrelay.server.metrics import Metrics
from flagrelay.server.node import Node
from flagrelay.server.pace import Pace
from flagrelay.server.rates import Rates
from flagrelay.settings import Settings
from flagrelay.store.connection import Store


@dataclass(frozen=True, slots=True)
class Context:
    """One relay process, as its endpoints see it."""

    settings: Settings
    store: Store
    relay: Relay
    keyring: Keyring
    metrics: Metrics
    rates: Rates
    pace: Pace
    state_dir: StateDir | None
    started: float
    """When, in the time of `time.monotonic`."""
    node: Node | None = None
    """The node that this process is a worker of; None where it is alone."""


def context_of(request: Request) -> Context:
    """The context of the application that the request came to."""
    context = request.app.state.context
    if not isinstance(context, Context):
        raise TypeError("the application was not started: its lifespan makes the context")
    return context
