"""Who a relay is, to whoever counts relays: the name under which it reports."""

import os
import socket
from dataclasses import replace

from flagrelay.settings import Settings


def named(settings: Settings, listener: socket.socket) -> Settings:
    """The settings with a relay id where none was given: this machine's name, and the port that it listens on."""
    return settings if settings.relay_id else replace(settings, relay_id=_on_this_machine(listener.getsockname()[1]))


def relay_id(settings: Settings) -> str:
    """The id of this relay; under a server that is not ours, of this process, whose port nobody has told us."""
    return settings.relay_id or _on_this_machine(os.getpid())


def _on_this_machine(number: int) -> str:
    return f"{socket.gethostname()}:{number}"
