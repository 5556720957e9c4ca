"""The settings of one environment, which every relay that serves it keeps to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from flagrelay.errors import DefinitionError
from flagrelay.flags.bucket import GENERATIONS

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[A-Za-z0-9.\-:\[\]_]+")
MOST_ORIGINS = 100


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """The settings of one environment.

    Args:
        fractional: the generation of `fractional`: v3 or v2. Another one moves users between variants.
        origins: the web origins whose pages may ask for evaluated values (CORS); `*` is all.
    """

    fractional: str = GENERATIONS[0]
    origins: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As Redis and messages hold them."""
        return {"fractional": self.fractional, "origins": list(self.origins)}


def check_settings(document: object) -> EnvironmentSettings:
    """The settings that parsed JSON holds.

    Raises:
        DefinitionError: it holds none.
    """
    subject = "environment settings"
    if not isinstance(document, dict):
        raise DefinitionError(subject, "", "should be an object")
    known = [field.name for field in fields(EnvironmentSettings)]
    for name in document:
        if name not in known:
            raise DefinitionError(subject, str(name)[:80], f"unknown; there are {', '.join(known)}")
    fractional = document.get("fractional", GENERATIONS[0])
    if fractional not in GENERATIONS:
        raise DefinitionError(subject, "fractional", f"{fractional!r:.80} is none of {', '.join(GENERATIONS)}")
    origins = document.get("origins", [])
    if not isinstance(origins, list) or len(origins) > MOST_ORIGINS:
        raise DefinitionError(subject, "origins", f"should be an array of at most {MOST_ORIGINS} origins")
    for origin in origins:
        if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
            cause = f"{origin!r:.80} is no origin: it should be like https://www.example.com, or *"
            raise DefinitionError(subject, "origins", cause)
    return EnvironmentSettings(fractional, tuple(dict.fromkeys(origins)))


def read_settings(document: Mapping[str, Any]) -> EnvironmentSettings:
    """The settings that a later version may have written: what this one does not know is left out.

    Raises:
        DefinitionError: what it does know is broken.
    """
    known = {field.name for field in fields(EnvironmentSettings)}
    return check_settings({name: value for name, value in document.items() if name in known})
