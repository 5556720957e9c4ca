"""The Redis that settings name."""

from contextlib import AbstractAsyncContextManager

from flagrelay.settings import Settings
from flagrelay.store.connection import RedisAddress, Store, open_store


def store_of(settings: Settings) -> AbstractAsyncContextManager[Store]:
    """A store at the address that settings give.

    Raises:
        SettingError: the address is none.
    """
    address = RedisAddress(
        settings.redis_url,
        sentinels=settings.redis_sentinels,
        sentinel_master=settings.redis_sentinel_master,
        cluster=settings.redis_cluster,
    )
    return open_store(address, prefix=settings.prefix)
