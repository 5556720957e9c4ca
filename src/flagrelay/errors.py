"""The exception tree. Every message says what failed, where, why and, where something can be done, what.

FlagrelayError
├── InputError              what somebody gave us is wrong; nothing was changed
│   ├── DefinitionError     a flag, population or flag set that breaks the definition's rules
│   ├── MessageError        bytes that are no change message, event or event id
│   ├── ContextError        an evaluation context that is none, or too large
│   └── SettingError        a setting or option out of its range
├── RuleTooLong             an evaluation that would visit more items than it may
├── HistoryError            a change that does not follow the snapshot it was given to
├── StoreError              Redis answered, and the answer is no
│   ├── EnvironmentMissing  no such environment (never created, destroyed, or Redis was wiped)
│   ├── EnvironmentExists
│   ├── FlagMissing         no such flag (to kill, to revive, to delete)
│   ├── VariantMissing      `kill --to` names a variant that the flag does not have
│   ├── NotKilled           `revive` of a flag that is not killed
│   ├── Conflict            somebody else changed it first
│   ├── ChangelogTrimmed    the changes asked for are no longer held
│   ├── StoreCorrupt        what Redis holds contradicts itself
│   ├── ReplicasMissing     a write that too few replicas have
│   ├── Killed              a plain edit, or a release's way on, of a flag that is killed
│   ├── Released            a plain edit of a flag that has a release
│   ├── ReleaseMissing      the flag has no release
│   ├── PopulationMissing   no such population
│   ├── PopulationUsed      a population that flags or releases name
│   ├── PopulationWithheld  a population that a flag was taken back from, or is limited to
│   ├── RelayMissing        no relay of that id reports
│   └── AccessKeyMissing    no access key with that id
├── ReleaseError            an action that a release does not take now
│   ├── ActionUnfit         it does not fit the state
│   ├── ActionRefused       it fits, but not so
│   ├── TooEarly            the stage has not lasted its minimum
│   └── ApprovalMissing     the next stage takes an approval
├── StoreUnavailable        Redis does not answer, or not us (connection, timeout, credentials, memory)
├── LocalKillMissing        the relay holds no kill of that flag by itself
├── StateError              what a relay keeps on disk cannot be written, or not be read
│   └── StateDamaged        it is not what was written there, or somebody else's
├── NoAnswer                another process of the same node says no, or nothing
├── StreamError             the far end of a stream answered with an error, or broke the protocol
└── Refusal                 a request that is answered with an error: status, code, details
"""

from collections.abc import Sequence


class FlagrelayError(Exception):
    """The root: whatever flagrelay raises on purpose."""


class InputError(FlagrelayError):
    """What somebody gave us is wrong; nothing was changed."""


class DefinitionError(InputError):
    """A flag, population or flag set that breaks the rules of a definition.

    Args:
        subject: what it is about, as a person names it: `flag "checkout-v2"`, `population "beta"`, `flag set`.
        path: where in it, as a JSON path below the subject: `variants.on`; empty for the whole.
        cause: what is wrong and, where it helps, what would be right.
    """

    def __init__(self, subject: str, path: str, cause: str) -> None:
        super().__init__(f"{subject}: {f'at {path}: ' if path else ''}{cause}")
        self.subject = subject
        self.path = path
        self.cause = cause


class MessageError(InputError):
    """Bytes that are no change message, event or event id."""


class ContextError(InputError):
    """An evaluation context that is none, or too large."""


class SettingError(InputError):
    """A setting or option out of its range, or one that contradicts another."""


class RuleTooLong(FlagrelayError):
    """An evaluation that would visit more items than it may.

    Args:
        limit: how many it may.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the rule visits more than {limit} items of lists, with this context")


class HistoryError(FlagrelayError):
    """A change that does not follow the snapshot it was given to."""


class StoreError(FlagrelayError):
    """Redis answered, and the answer is no."""


class EnvironmentMissing(StoreError):
    """No such environment: never created, destroyed, or Redis was wiped."""

    def __init__(self, environment: str) -> None:
        super().__init__(
            f'environment "{environment}" does not exist in Redis: create it with '
            f"`flagrelay env create {environment}`, or check the Redis URL and prefix"
        )
        self.environment = environment


class EnvironmentExists(StoreError):
    """An environment of that name is there already."""

    def __init__(self, environment: str) -> None:
        super().__init__(f'environment "{environment}" exists already; nothing was changed')
        self.environment = environment


class FlagMissing(StoreError):
    """No such flag in the environment.

    Args:
        environment: its name.
        key: the flag's.
        remedy: what creates it, where what was asked for could do so itself.
    """

    def __init__(self, environment: str, key: str, remedy: str = "") -> None:
        shown = f"{remedy}, and " if remedy else ""
        has = "`flagrelay flags list` shows what it has"
        super().__init__(f'environment "{environment}" has no flag "{key}": {shown}{has}')
        self.environment = environment
        self.key = key


class VariantMissing(StoreError):
    """The flag has no such variant."""

    def __init__(self, environment: str, key: str, variant: str) -> None:
        super().__init__(f'flag "{key}" of environment "{environment}" has no variant "{variant}"; nothing was changed')
        self.environment = environment
        self.key = key
        self.variant = variant


class NotKilled(StoreError):
    """The flag is not killed, so there is nothing to revive."""

    def __init__(self, environment: str, key: str) -> None:
        super().__init__(f'flag "{key}" of environment "{environment}" is not killed; nothing was changed')
        self.environment = environment
        self.key = key


class Conflict(StoreError):
    """Somebody else changed it first.

    Args:
        subject: `flag "checkout-v2"` or `population "beta"`.
        expected: the revision that the writer had read; 0 for "does not exist".
        found: the revision it is at now; 0 for "does not exist".
    """

    def __init__(self, subject: str, expected: int, found: int) -> None:
        now = f"is at revision {found}" if found else "does not exist"
        then = f"revision {expected}" if expected else "no such entry"
        super().__init__(f"{subject} {now}, but the edit was made from {then}: read it again and repeat the edit")
        self.subject = subject
        self.expected = expected
        self.found = found


class ChangelogTrimmed(StoreError):
    """The changes asked for are no longer held."""


class StoreCorrupt(StoreError):
    """What Redis holds contradicts itself: half-written, half-evicted, or edited by hand."""


class ReplicasMissing(StoreError):
    """A write that too few replicas have: it is written, and a failover may lose it."""

    def __init__(self, wanted: int, have: int, seconds: float) -> None:
        super().__init__(
            f"written, but only {have} of {wanted} replicas had it within {seconds:g} s: a failover now may lose it"
        )
        self.wanted = wanted
        self.have = have


class Killed(StoreError):
    """The flag is killed, and this would bring it back, or end the kill.

    Args:
        flags: what is killed, by whom and why, as sentences.
        remedy: what to do.
    """

    def __init__(self, flags: str, remedy: str) -> None:
        super().__init__(f"{flags}: {remedy}; nothing was changed")


class Released(StoreError):
    """A plain edit of a flag that has a release: what was written would be overwritten by the release's next step."""

    def __init__(self, environment: str, key: str) -> None:
        super().__init__(
            f'flag "{key}" has a release, and its definition is made from that: use `flagrelay release`, or detach it '
            f"first (`flagrelay release detach {key} --env {environment} --reason WHY`); nothing was changed"
        )
        self.environment = environment
        self.key = key


class ReleaseMissing(StoreError):
    """The flag has no release."""

    def __init__(self, environment: str, key: str) -> None:
        super().__init__(
            f'flag "{key}" of environment "{environment}" has no release: store a plan with `flagrelay release plan`, '
            f"or take the flag back from everybody with `flagrelay kill {key}`"
        )
        self.environment = environment
        self.key = key


class PopulationMissing(StoreError):
    """No such population in the environment."""

    def __init__(self, environment: str, name: str) -> None:
        super().__init__(
            f'environment "{environment}" has no population "{name}": `flagrelay populations list` shows what it has'
        )
        self.environment = environment
        self.name = name


class PopulationUsed(StoreError):
    """A population that flags or releases name.

    Args:
        name: the population.
        users: what names it, as a person names it: `flag "checkout-v2"`.
    """

    def __init__(self, name: str, users: Sequence[str]) -> None:
        shown = ", ".join(users[:MAX_USERS]) + (f" and {len(users) - MAX_USERS} more" if len(users) > MAX_USERS else "")
        super().__init__(f'population "{name}" is used by {shown}; nothing was changed')
        self.name = name
        self.users = tuple(users)


class PopulationWithheld(StoreError):
    """An edit of a population by which people would have a flag again that was taken from them.

    Args:
        name: the population.
        why: which flag, and how it was taken: `flag "checkout-v2" is un-released from it`.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f'population "{name}": {why}, so that who is in it by then may have the flag again: restore it first, or '
            "say --force; nothing was changed"
        )
        self.name = name


class RelayMissing(StoreError):
    """No relay of that id reports in the environment."""

    def __init__(self, environment: str, relay: str) -> None:
        super().__init__(
            f'no relay "{relay}" reports in environment "{environment}": `flagrelay relays` shows who does'
        )
        self.environment = environment
        self.relay = relay


MAX_USERS = 20
"""Users of a population that its error names."""


class ReleaseError(FlagrelayError):
    """An action that a release does not take now; nothing was changed."""


class ActionUnfit(ReleaseError):
    """The action does not fit the state.

    Args:
        flag: its key.
        action: what was asked for.
        state: how the release stands.
        fitting: what would fit.
    """

    def __init__(self, flag: str, action: str, state: str, fitting: Sequence[str]) -> None:
        would = f"what fits now: {', '.join(fitting)}" if fitting else "it has ended"
        super().__init__(f'{action}: the release of flag "{flag}" is {state}; {would}; nothing was changed')
        self.fitting = tuple(fitting)


class ActionRefused(ReleaseError):
    """The action fits the state, but not so as it was asked for.

    Args:
        flag: its key.
        action: what was asked for.
        cause: why not.
        instead: the action that would do.
    """

    def __init__(self, flag: str, action: str, cause: str, instead: str) -> None:
        would = "" if instead == action else f"; `flagrelay release {instead} {flag}` would fit"
        super().__init__(f'{action}: release of flag "{flag}": {cause}{would}; nothing was changed')
        self.instead = instead


class TooEarly(ReleaseError):
    """A stage has not lasted its minimum.

    Args:
        flag: its key.
        action: what was asked for.
        stage: the stage.
        lasted: for how long the release has been there; empty where it would step over that stage.
        minimum: how long the plan says.
        left: the rest of that.
    """

    def __init__(self, flag: str, action: str, stage: str, lasted: str, minimum: str, left: str) -> None:
        if lasted:
            so_far = f'has been at stage "{stage}" for {lasted}, and the plan says {minimum} at least: wait {left}'
        else:
            so_far = f'would step over stage "{stage}", which lasts {minimum} at least by the plan: enter it first'
        super().__init__(f'{action}: flag "{flag}" {so_far}, or say --force; nothing was changed')
        self.left = left


class ApprovalMissing(ReleaseError):
    """A stage takes an approval, and has too few."""

    def __init__(self, flag: str, action: str, stage: str, needed: str, given: str) -> None:
        super().__init__(
            f'{action}: stage "{stage}" of flag "{flag}" must be approved {needed}, and was approved by {given}: '
            f"`flagrelay release approve {flag} --stage '{stage}'`; nothing was changed"
        )
        self.stage = stage


class AccessKeyMissing(StoreError):
    """No access key with that id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f'no access key has the id "{key_id}": `flagrelay keys list` shows the ids')
        self.key_id = key_id


class StoreUnavailable(FlagrelayError):
    """Redis does not answer, or not us: connection, timeout, credentials, memory, read-only replica.

    Args:
        message: what, where and why.
        unsure: whether what was asked for may have been done all the same: it was sent, and the answer did not come.
    """

    def __init__(self, message: str, *, unsure: bool = False) -> None:
        super().__init__(message)
        self.unsure = unsure


class LocalKillMissing(FlagrelayError):
    """The relay holds no kill of that flag by itself."""

    def __init__(self, environment: str, key: str) -> None:
        super().__init__(
            f'this relay holds no kill of flag "{key}" of environment "{environment}" by itself; nothing was changed'
        )
        self.environment = environment
        self.key = key


class StateError(FlagrelayError):
    """What a relay keeps on disk cannot be written, or not be read."""


class StateDamaged(StateError):
    """A file that is not what was written there, is of another version, or is somebody else's."""


class NoAnswer(FlagrelayError):
    """Another process of the same node says no, says nothing in time, or is gone."""


class StreamError(FlagrelayError):
    """The far end of a stream answered with an error, or broke the protocol.

    Args:
        message: a sentence for people.
        status: the HTTP status of a refusal, 0 where it is none.
        code: the refusal's `errorCode`, "" where it has none.
        details: the refusal's `errorDetails`, "" where it has none.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "", details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details


class Refusal(FlagrelayError):
    """A request that is answered with an error.

    Args:
        status: HTTP status, 400-599.
        code: the `errorCode` of the JSON body, in OpenFeature's manner: upper case with underscores.
        details: the `errorDetails`: a sentence for the person who reads the client's log.
        retry_after: seconds for the `Retry-After` header, or None for no such header.
    """

    def __init__(self, status: int, code: str, details: str, *, retry_after: int | None = None) -> None:
        super().__init__(f"{status} {code}: {details}")
        self.status = status
        self.code = code
        self.details = details
        self.retry_after = retry_after
