"""What an error is over HTTP: a status, and a code for machines. The sentence is the same everywhere."""

from flagrelay import errors

FAULTS: tuple[tuple[type[errors.FlagrelayError], int, str], ...] = (
    (errors.FlagMissing, 404, "FLAG_NOT_FOUND"),
    (errors.ReleaseMissing, 404, "RELEASE_NOT_FOUND"),
    (errors.PopulationMissing, 404, "POPULATION_NOT_FOUND"),
    (errors.RelayMissing, 404, "RELAY_NOT_FOUND"),
    (errors.VariantMissing, 404, "VARIANT_NOT_FOUND"),
    (errors.EnvironmentMissing, 404, "ENVIRONMENT_NOT_FOUND"),
    (errors.Conflict, 409, "CONFLICT"),
    (errors.Killed, 409, "KILLED"),
    (errors.NotKilled, 409, "NOT_KILLED"),
    (errors.Released, 409, "HAS_RELEASE"),
    (errors.PopulationUsed, 409, "POPULATION_USED"),
    (errors.PopulationWithheld, 409, "POPULATION_WITHHELD"),
    (errors.ActionUnfit, 409, "ACTION_UNFIT"),
    (errors.TooEarly, 409, "TOO_EARLY"),
    (errors.ApprovalMissing, 409, "APPROVAL_MISSING"),
    (errors.ReleaseError, 409, "ACTION_REFUSED"),
    (errors.DefinitionError, 400, "INVALID_DEFINITION"),
    (errors.InputError, 400, "INVALID_REQUEST"),
    (errors.StoreUnavailable, 503, "STORE_UNAVAILABLE"),
    (errors.StoreError, 500, "STORE_ERROR"),
)
"""The first that an error is an instance of."""

RETRY_AFTER = 1
"""Seconds after which a Redis that did not answer is worth another try."""


def refusal_of(error: errors.FlagrelayError) -> errors.Refusal:
    """The refusal that an error is to whoever asked over HTTP."""
    for kind, status, code in FAULTS:
        if isinstance(error, kind):
            retry_after = RETRY_AFTER if kind is errors.StoreUnavailable else None
            return errors.Refusal(status, code, str(error), retry_after=retry_after)
    return errors.Refusal(500, "GENERAL", str(error))
