"""The one table of settings. Environment variables, `--help`, docs and deploy files follow from it.

A setting is a field of `Settings`; what a person needs to know of it stands in its metadata. Its environment
variable is FLAGRELAY_ and its name, its option is `--` and its name.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from flagrelay.errors import DefinitionError, SettingError
from flagrelay.flags.definition import check_environment_name

PREFIX = "FLAGRELAY_"
KIB = 1024
MIB = 1024 * KIB

MAX_RELAY_ID = 128
"""Characters of a relay's name."""

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _setting(
    default: Any,  # noqa: ANN401 - each setting has its own type
    group: str,
    about: str,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:  # noqa: ANN401 - as dataclasses.field, for which it stands
    metadata = {
        "group": group,
        "about": about,
        "unit": unit,
        "least": least,
        "most": most,
        "choices": choices,
        "secret": secret,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, checked.

    Raises:
        SettingError: a value is out of its range; names it as a person gave it.
    """

    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "Redis",
        "Where Redis is: redis://, rediss:// (TLS) or unix://",
        secret=True,
    )
    redis_sentinels: tuple[str, ...] = _setting((), "Redis", "The host:port of each Sentinel, if there are any")
    redis_sentinel_master: str = _setting("", "Redis", "The name by which the Sentinels know the master")
    redis_cluster: bool = _setting(False, "Redis", "Whether the URL is that of a node of a Redis Cluster")
    prefix: str = _setting("flagrelay", "Redis", "What the names of all keys in Redis begin with")
    env: tuple[str, ...] = _setting((), "Relay", "The environments to serve; none given: all that Redis has")
    verify_interval: float = _setting(
        3.0, "Relay", "How often to compare with Redis, whatever it tells", unit="seconds", least=0.02, most=300
    )
    max_stale: float = _setting(
        300.0, "Relay", "How long /readyz stays 200 after Redis was lost", unit="seconds", least=0
    )
    backoff_min: float = _setting(
        0.05, "Relay", "The first wait before connecting to Redis again", unit="seconds", least=0.001, most=60
    )
    backoff_max: float = _setting(
        5.0, "Relay", "The longest wait before connecting to Redis again", unit="seconds", least=0.001, most=600
    )
    state_dir: str = _setting(
        "",
        "Relay",
        "The directory of this relay's own in which it keeps its last state, for a start without Redis; empty: none",
    )
    state_wait: float = _setting(
        2.0,
        "Relay",
        "How long Redis may take at the start before what is kept there is served",
        unit="seconds",
        least=0,
        most=3600,
    )
    state_interval: float = _setting(
        5.0, "Relay", "How often it is written there, at most", unit="seconds", least=0, most=3600
    )
    relay_id: str = _setting(
        "",
        "Relay",
        "The name of this relay alone, under which it reports what its streams have; empty: HOSTNAME:PORT",
    )
    report_interval: float = _setting(
        5.0,
        "Relay",
        "How often it reports while nothing happens, at most; 0 for a relay that may not write to Redis: no reports",
        unit="seconds",
        least=0,
        most=60,
    )
    drain_timeout: float = _setting(
        10.0, "Relay", "How long streams have to close when the relay stops", unit="seconds", least=0, most=3600
    )
    drain_spread: float = _setting(
        3.0,
        "Relay",
        "Within which time clients are told to reconnect when the relay stops",
        unit="seconds",
        least=0,
        most=3600,
    )
    drain_delay: float = _setting(
        0.0,
        "Relay",
        "How long /readyz says 503 before a relay that stops accepts nothing more, so that balancers go elsewhere",
        unit="seconds",
        least=0,
        most=3600,
    )
    host: str = _setting("127.0.0.1", "HTTP", "The address to listen on; 0.0.0.0 or :: for all")
    port: int = _setting(8080, "HTTP", "The port to listen on; 0 for one of the system's choice", least=0, most=65535)
    workers: int = _setting(
        1,
        "HTTP",
        "How many processes serve, each with its share of the limits; more than one takes Linux",
        least=1,
        most=256,
    )
    worker_timeout: float = _setting(
        30.0,
        "HTTP",
        "How long one of several workers may not answer its supervisor before it is killed and replaced",
        unit="seconds",
        least=1,
        most=3600,
    )
    tls_cert: str = _setting("", "HTTP", "The file of the certificate and its chain (PEM), to serve TLS; empty: no TLS")
    tls_key: str = _setting("", "HTTP", "The file of the certificate's private key (PEM)")
    public_url: str = _setting(
        "",
        "HTTP",
        "Where clients reach this relay, as they should be told it (OFREP's event streams); empty: as they asked",
    )
    admin_api: bool = _setting(
        False, "HTTP", "Whether the control API under /admin/v1 answers; the relay must then be allowed to write flags"
    )
    heartbeat_interval: float = _setting(
        15.0, "Streams", "How often each stream gets a heartbeat", unit="seconds", least=0.05, most=3600
    )
    stream_lifetime: float = _setting(
        3600.0, "Streams", "The longest life of a stream; each gets 0.8 to 1.0 of it", unit="seconds", least=0.1
    )
    retry: float = _setting(
        2.0,
        "Streams",
        "After what time clients reconnect; each is told 0.5 to 1.5 times it",
        unit="seconds",
        least=0,
        most=600,
    )
    refetch_spread: float = _setting(
        1.0,
        "Streams",
        "Over what time OFREP's clients are told of a change, unless it is urgent",
        unit="seconds",
        least=0,
        most=300,
    )
    compression: bool = _setting(
        True, "Streams", "Whether streams are compressed for clients that accept gzip, with each event compressed once"
    )
    changes_held: int = _setting(
        1000, "Streams", "How many changes are kept in memory, for clients that reconnect", least=0, most=1_000_000
    )
    changes_held_bytes: int = _setting(
        16 * MIB, "Streams", "How much memory those changes take at most", unit="bytes", least=0
    )
    max_streams: int = _setting(
        20_000, "Limits", "How many streams are open at once, at most", least=1, most=10_000_000
    )
    max_streams_per_key: int = _setting(
        20_000, "Limits", "How many of them with one access key, at most", least=1, most=10_000_000
    )
    max_evaluations_per_second: int = _setting(
        10_000, "Limits", "How many OFREP requests one access key may make in a second; 0 for no limit", least=0
    )
    max_body_bytes: int = _setting(
        256 * KIB, "Limits", "The largest request body", unit="bytes", least=1 * KIB, most=64 * MIB
    )
    max_admin_body_bytes: int = _setting(
        16 * MIB, "Limits", "The largest body of the control API", unit="bytes", least=1 * KIB, most=64 * MIB
    )
    max_context_bytes: int = _setting(
        16 * KIB, "Limits", "The largest context of a stream of evaluated values", unit="bytes", least=2, most=1 * MIB
    )
    max_header_bytes: int = _setting(
        16 * KIB, "Limits", "The largest request head", unit="bytes", least=1 * KIB, most=1 * MIB
    )
    high_water: int = _setting(
        64 * KIB, "Limits", "How much is buffered for a client that does not read", unit="bytes", least=1, most=64 * MIB
    )
    max_streams_per_address: int = _setting(
        20_000, "Limits", "How many of them from one IP address, at most", least=1, most=10_000_000
    )
    max_waiting: int = _setting(
        10_000, "Limits", "How many requests for streams wait for their turn, at most", least=0, most=10_000_000
    )
    head_timeout: float = _setting(
        10.0, "Limits", "How long a request's head may take", unit="seconds", least=0.1, most=3600
    )
    body_timeout: float = _setting(
        10.0, "Limits", "How long a request's body may take", unit="seconds", least=0.1, most=3600
    )
    lagging_timeout: float = _setting(
        30.0, "Limits", "How long a client may not read before its stream ends", unit="seconds", least=0.1, most=3600
    )
    log_level: str = _setting("info", "Logs", "The least that is logged", choices=("debug", "info", "warning", "error"))
    log_format: str = _setting(
        "auto",
        "Logs",
        "How logs are written; auto is console at a terminal, else json",
        choices=("auto", "console", "json"),
    )

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for setting in settings_table():
            setting.check(getattr(self, setting.name))
        if self.backoff_max < self.backoff_min:
            raise SettingError(
                f"FLAGRELAY_BACKOFF_MAX ({self.backoff_max}) is below FLAGRELAY_BACKOFF_MIN ({self.backoff_min})"
            )
        if self.redis_sentinels and not self.redis_sentinel_master:
            raise SettingError("FLAGRELAY_REDIS_SENTINELS is set, so FLAGRELAY_REDIS_SENTINEL_MASTER must be too")
        if self.redis_sentinels and self.redis_cluster:
            raise SettingError("FLAGRELAY_REDIS_SENTINELS and FLAGRELAY_REDIS_CLUSTER exclude each other")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise SettingError("FLAGRELAY_TLS_CERT and FLAGRELAY_TLS_KEY are set both, or neither")
        if len(self.relay_id) > MAX_RELAY_ID:
            raise SettingError(
                f"FLAGRELAY_RELAY_ID (--relay-id) has {len(self.relay_id)} characters; the most is {MAX_RELAY_ID}"
            )
        if "{" in self.prefix or "}" in self.prefix:
            # A Cluster takes the first {…} of a name for its slot; that must be the environment.
            raise SettingError(f"FLAGRELAY_PREFIX (--prefix) is {self.prefix!r}; it should have no braces")
        for name in self.env:
            try:
                check_environment_name(name)
            except DefinitionError as error:
                raise SettingError(f"FLAGRELAY_ENV (--env): {error}") from None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    type: type
    default: Any
    group: str
    about: str
    unit: str
    least: float | None
    most: float | None
    choices: tuple[str, ...]
    secret: bool

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """Its option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def many(self) -> bool:
        """Whether it takes several values, separated by spaces in its variable."""
        return self.type is tuple

    @property
    def shown_default(self) -> str:
        """Its default, as one would write it."""
        if self.many:
            return " ".join(self.default)
        if self.type is bool:
            return "1" if self.default else "0"
        return f"{self.default:g}" if self.type is float else str(self.default)

    @property
    def should(self) -> str:
        """What it should be, for who has given something else."""
        if self.choices:
            return f"one of {self.bounds}"
        kind = {
            bool: "1 or 0",
            int: "a whole number",
            float: "a number",
            str: "printable text, and not empty" if self.default else "printable text",
            tuple: "printable, separated by spaces",
        }[self.type]
        return f"{kind}, {self.bounds}" if self.bounds else kind

    @property
    def bounds(self) -> str:
        """What it may be, for people; empty where anything goes."""
        if self.choices:
            return ", ".join(self.choices)
        if self.least is not None and self.most is not None:
            return f"{self.least:.15g} to {self.most:.15g}"
        return f"{self.least:.15g} or more" if self.least is not None else ""

    def check(self, value: Any) -> None:  # noqa: ANN401 - that it is of its type is what is checked
        """Refuse a value that is out of bounds.

        Raises:
            SettingError: it is.
        """
        if not self._allows(value):
            shown = "(hidden)" if self.secret and value else repr(value)
            raise SettingError(f"{self.variable} ({self.option}) is {shown}; it should be {self.should}: {self.about}")

    def _allows(self, value: Any) -> bool:  # noqa: ANN401 - see check
        match value:
            case bool():
                return self.type is bool
            case int() | float() if self.type in (int, float):
                whole = self.type is float or isinstance(value, int)
                least, most = self.least or 0, math.inf if self.most is None else self.most
                return whole and math.isfinite(value) and least <= value <= most
            case str() if self.choices:
                return value in self.choices
            case str():
                # Empty is no address, but all of them: it must be a mistake.
                return self.type is str and value.isprintable() and bool(value or not self.default)
            case tuple():
                return self.many and all(isinstance(each, str) and each.isprintable() and each for each in value)
        return False

    def parse(self, text: str) -> Any:  # noqa: ANN401 - each setting has its own type
        """The value of an environment variable.

        Raises:
            SettingError: it is none of this setting.
        """
        if self.many:
            return tuple(text.split())
        if self.type is bool:
            if text.lower() not in _TRUE + _FALSE:
                raise SettingError(f"{self.variable} is {text!r}; it should be {self.should}: {self.about}")
            return text.lower() in _TRUE
        try:
            return self.type(text)
        except ValueError:
            kubernetes = (
                " (Kubernetes sets it so for a Service of that name: give the Pod `enableServiceLinks: false`)"
                if text.startswith("tcp://")
                else ""
            )
            raise SettingError(
                f"{self.variable} ({self.option}) is {text!r}{kubernetes}; it should be {self.should}: {self.about}"
            ) from None


def settings_table() -> Iterator[Setting]:
    """Every setting, in order."""
    for each in fields(Settings):
        yield Setting(name=each.name, type=_type_of(each), default=each.default, **each.metadata)


def _type_of(setting: Field[Any]) -> type:
    if setting.default is MISSING:
        raise TypeError(f"the setting {setting.name} has no default")
    return type(setting.default)


def settings_from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that environment variables give; an empty one counts as not set.

    Raises:
        SettingError: one of them is none.
    """
    given = {
        setting.name: setting.parse(environment[setting.variable])
        for setting in settings_table()
        if environment.get(setting.variable)
    }
    return Settings(**given)


def settings_from_json(members: Mapping[str, Any]) -> Settings:
    """The settings that another process of this relay has, which knows no tuples once they are JSON."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in members.items()
    }
    return Settings(**given)
