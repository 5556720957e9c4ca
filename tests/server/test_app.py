import pytest

from flagrelay.errors import SettingError
from flagrelay.server.app import app_from_environment
from flagrelay.server.context import Context
from flagrelay.server.health import not_ready
from support.relays import World
from support.sources import until


async def test_other_servers_get_the_application_from_environment_variables(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGRELAY_REDIS_URL", world.store.address.url)
    monkeypatch.setenv("FLAGRELAY_ENV", "staging")
    app = app_from_environment()
    async with app.router.lifespan_context(app):
        context: Context = app.state.context
        await until(lambda: 'environment "staging" does not exist' in " ".join(not_ready(context)), "it asked Redis")


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGRELAY_MAX_STREAMS", "many")
    with pytest.raises(SettingError, match="FLAGRELAY_MAX_STREAMS"):
        app_from_environment()
