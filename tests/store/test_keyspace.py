from redis.crc import key_slot

from flagrelay.store.keyspace import Keyspace


def test_every_key_has_the_name_that_the_documents_give_it() -> None:
    keys = Keyspace()
    assert keys.all_of("production") == [
        "flagrelay:{production}:state",
        "flagrelay:{production}:flags",
        "flagrelay:{production}:evaluators",
        "flagrelay:{production}:killed",
        "flagrelay:{production}:changes",
        "flagrelay:{production}:releases",
        "flagrelay:{production}:populations",
        "flagrelay:{production}:history",
        "flagrelay:{production}:actions",
        "flagrelay:{production}:relays",
    ]
    assert keys.idempotency("production", "5d1c") == "flagrelay:{production}:idempotency:5d1c"
    assert keys.environments == "flagrelay:environments"
    assert keys.keys == "flagrelay:keys"


def test_everything_of_an_environment_lives_in_one_slot() -> None:
    for environment in ("production", "a", "staging-2", "Dev.1"):
        keys = Keyspace("other")
        names = [*keys.all_of(environment), keys.idempotency(environment, "5d1c")]
        assert len({key_slot(name.encode()) for name in names}) == 1
