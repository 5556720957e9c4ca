"""TLS on the relay's own port: a certificate and its key, read again when their files change."""

import asyncio
import ssl
from pathlib import Path
from typing import NoReturn

import structlog

from flagrelay.errors import SettingError

LOOK_INTERVAL = 5.0
"""Seconds between two looks at the files."""

log = structlog.get_logger()


class Certificate:
    """A certificate, its key, and the context that new connections get.

    Connections that are open keep the certificate with which they were opened.

    Args:
        cert: the file of the certificate and its chain, PEM.
        key: the file of its private key, PEM.

    Raises:
        SettingError: they cannot be read, or do not belong together.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._seen = self._stamp()
        self.context = self._read()

    async def follow(self, interval: float = LOOK_INTERVAL) -> NoReturn:
        """Read the files again whenever they have changed, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._renew()

    def _renew(self) -> None:
        try:
            self._read()  # on a context of its own first: half a renewal must not reach the one in use
            self.context.load_cert_chain(self._cert, self._key)
        except (SettingError, OSError, ssl.SSLError) as error:
            log.warning("the new certificate cannot be used; the last one still is", error=str(error))
        else:
            log.info("certificate renewed", file=str(self._cert))

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingError(
                f"the certificate {self._cert} and its key {self._key} cannot be used: {reason} "
                "(FLAGRELAY_TLS_CERT, FLAGRELAY_TLS_KEY)"
            ) from error
        return context

    def _stamp(self) -> tuple[object, ...]:
        """What differs once either file was written, or exchanged as Kubernetes exchanges what it mounts."""
        stamps: list[object] = []
        for path in (self._cert, self._key):
            try:
                status = path.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(stamps)
