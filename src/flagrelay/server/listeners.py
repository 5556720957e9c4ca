"""Sockets to listen on, one's own or shared by the workers of a node."""

import socket
from typing import Any

from flagrelay.errors import SettingError


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at an address, which does not listen yet.

    Args:
        host: the address, or a name that has one.
        port: the port; 0 for one of the system's choice.
        shared: whether others of the same user may bind to the same address; the kernel spreads connections over
            those that listen.

    Raises:
        SettingError: the address is in use, is not ours, or is no address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _bound(family, kind, protocol, address, shared=shared)
    except (OSError, UnicodeError) as error:  # a host that cannot be a name is a UnicodeError
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host and --port "
            f"(FLAGRELAY_HOST, FLAGRELAY_PORT), --port 0 takes a free one"
        ) from error


def reserve(host: str, port: int) -> socket.socket:
    """A shared socket that keeps an address for a node as long as it is open, and never listens.

    Raises:
        SettingError: the address is in use, is not ours, or is no address.
    """
    if port:
        # Shared with whoever shares it, another node of the same user would silently take half of our clients.
        bind(host, port).close()
    return bind(host, port, shared=True)


def beside(reserved: socket.socket) -> socket.socket:
    """One more shared socket at a reserved address.

    Raises:
        OSError: there is no room for one more.
    """
    return _bound(reserved.family, reserved.type, reserved.proto, reserved.getsockname(), shared=True)


def url_of(listener: socket.socket, *, tls: bool) -> str:
    """Where clients on this machine reach it."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _bound(family: int, kind: int, protocol: int, address: Any, *, shared: bool) -> socket.socket:  # noqa: ANN401 - of any family
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
