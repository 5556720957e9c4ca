"""flagrelay: follow feature flags in Redis, fan their changes out over Server-Sent Events."""

__version__ = "0.1.0"
