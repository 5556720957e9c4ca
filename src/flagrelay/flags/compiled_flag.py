"""A flag, ready to be resolved: its rule is a function, its possible resolutions are made."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from flagrelay.errors import DefinitionError, RuleTooLong
from flagrelay.flags import meter
from flagrelay.flags.change import Definition
from flagrelay.flags.compiler import CompiledRule, Function, Populations, compile_rule, metered
from flagrelay.flags.javascript import to_string
from flagrelay.flags.resolution import ErrorCode, Metadata, Reason, Resolution

LONGEST_SHOWN = 80
"""Characters of what a rule gave that an error shows."""


class CompiledFlag:
    """One flag of a snapshot.

    Its rule is compiled when somebody first asks what it says: a relay that only passes definitions on never does, and
    a thousand new ones keep no change waiting.

    Args:
        key: its key.
        definition: as it is stored.
        rule: compiles its targeting, once; gives None where it has none, and what is wrong where something is.
        metadata: the flag set's.
    """

    __slots__ = (
        "_by_variant",
        "_compile",
        "_definition",
        "_fractions",
        "_otherwise",
        "_rule",
        "_run",
        "key",
        "metadata",
        "server_only",
    )

    def __init__(
        self,
        key: str,
        definition: Definition,
        rule: Callable[[], CompiledRule | DefinitionError | None],
        metadata: Metadata,
    ) -> None:
        self.key = key
        self.metadata = _merged(metadata, definition.get("metadata"))
        self.server_only = self.metadata.get("serverOnly") is True
        self._definition = definition
        self._compile = rule
        self._rule: CompiledRule | DefinitionError | None = None
        self._fractions = _has_fractions(definition.get("variants"))
        self._run: Function | None = None
        self._by_variant: dict[str, Resolution] = {}
        self._otherwise: Resolution | None = None

    @property
    def rule(self) -> CompiledRule | DefinitionError | None:
        """Its targeting, compiled; None where it has none; what is wrong, where something is."""
        if self._otherwise is None:
            self._prepare()
        return self._rule

    @property
    def timed(self) -> bool:
        """Whether what it says changes with time."""
        return isinstance(self.rule, CompiledRule) and self.rule.timed

    def with_metadata(self, definition: Definition, metadata: Metadata) -> "CompiledFlag":
        """The same flag in a flag set with other metadata; its rule is not compiled again."""
        return CompiledFlag(self.key, definition, self._compile, metadata)

    def _prepare(self) -> Resolution:
        self._rule = self._compile()
        # Last, since it tells that all is there, to other threads too.
        self._otherwise = self._outcome(self._definition, self._rule)
        return self._otherwise

    def _outcome(self, definition: Definition, rule: CompiledRule | DefinitionError | None) -> Resolution:
        """What it says where no rule decides; and the rest of what it can say, where one does."""
        variants = definition.get("variants")
        if definition.get("state") == "DISABLED":
            return self._resolution(reason=Reason.DISABLED)
        if isinstance(rule, DefinitionError):
            return self.error(ErrorCode.PARSE_ERROR, str(rule))
        if definition.get("state") != "ENABLED" or not isinstance(variants, dict) or not variants:
            return self.error(ErrorCode.PARSE_ERROR, f'flag "{self.key}" is no flag definition: state or variants')
        if rule is None:
            return self._default(definition.get("defaultVariant"), variants, Reason.STATIC)
        self._run = metered(rule)
        self._by_variant = {
            name: self._resolution(value, name, Reason.TARGETING_MATCH)
            for name, value in variants.items()
            if value is not None
        }
        return self._default(definition.get("defaultVariant"), variants, Reason.DEFAULT)

    def _default(self, default: Any, variants: Mapping[str, Any], reason: Reason) -> Resolution:
        name = to_string(default) if isinstance(default, bool) else default
        if name is None or name == "":
            return self._resolution(reason=Reason.DEFAULT)
        if not isinstance(name, str) or name not in variants:
            return self.error(ErrorCode.GENERAL, self._no_variant(name))
        return self._resolution(variants[name], name, reason)

    def resolve(self, context: Any) -> Resolution:
        """What it says for a context. Whatever the context is, nothing is raised."""
        otherwise = self._otherwise or self._prepare()
        run = self._run
        if run is None:
            return otherwise
        try:
            result = run(context, self.key)
        except Exception as error:  # noqa: BLE001 - a caller's context must not break the caller
            return self._explain(error, context)
        if result.__class__ is str:
            return self._by_variant.get(result) or self._by_name(result)
        return otherwise if result is None else self._by_name(result)

    def _by_name(self, result: Any) -> Resolution:
        """What a rule gave that is no variant's name: true and false mean "true" and "false"; numbers as text."""
        meter.start()
        try:
            name = str.__str__(to_string(result))
        except Exception:  # noqa: BLE001 - nested too deep, or too long
            name = "[object]"
        finally:
            meter.stop()
        return self._by_variant.get(name) or self.error(ErrorCode.GENERAL, self._no_variant(name))

    def _explain(self, error: Exception, context: Any) -> Resolution:
        if context is None:
            return self.resolve({})
        if not isinstance(context, dict):
            try:
                return self.resolve({**context})
            except Exception:  # noqa: BLE001 - whatever it is, it cannot be read as a mapping
                return self.error(ErrorCode.INVALID_CONTEXT, f"a context is an object, not {type(context).__name__}")
        if isinstance(error, RuleTooLong):
            return self.error(ErrorCode.GENERAL, f'flag "{self.key}": {error}')
        return self.error(ErrorCode.GENERAL, f'flag "{self.key}": its rule fails: {type(error).__name__}')

    def _no_variant(self, name: Any) -> str:
        text = name if isinstance(name, str) else type(name).__name__
        shown = text[:LONGEST_SHOWN].encode(errors="replace").decode()
        return f'flag "{self.key}" has no variant "{shown}"'

    def error(self, code: ErrorCode, message: str) -> Resolution:
        """A resolution that failed."""
        return self._resolution(reason=Reason.ERROR, code=code, message=message)

    def _resolution(
        self,
        value: Any = None,
        variant: str | None = None,
        reason: Reason = Reason.ERROR,
        code: ErrorCode | None = None,
        message: str | None = None,
    ) -> Resolution:
        return Resolution(self.key, value, variant, reason, code, message, self.metadata, self._fractions)


def compile_flag(
    key: str,
    definition: Definition,
    metadata: Metadata,
    *,
    generation: str,
    populations: Populations,
    rules: Mapping[str, Any],
) -> CompiledFlag:
    """A flag, to be compiled when it is resolved; whatever is wrong with it shows then.

    Args:
        key: its key.
        definition: as it is stored.
        metadata: the flag set's.
        generation: of `fractional`.
        populations: what its targeting may name, compiled.
        rules: the same, as they are written.
    """
    if not isinstance(definition, dict):
        definition = {}
    rule = cache(partial(_rule_of, key, definition.get("targeting"), generation, populations, rules))
    return CompiledFlag(key, definition, rule, metadata)


def _rule_of(
    key: str, targeting: Any, generation: str, populations: Populations, rules: Mapping[str, Any]
) -> CompiledRule | DefinitionError | None:
    if targeting is None or targeting == {}:
        return None
    subject = f'flag "{key}"'
    try:
        return _compiled(subject, key, targeting, generation, populations, rules)
    except DefinitionError as error:
        return error
    except (RecursionError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        return DefinitionError(subject, "targeting", f"too deep or too large to compile: {type(error).__name__}")


def _compiled(
    subject: str, key: str, targeting: Any, generation: str, populations: Populations, rules: Mapping[str, Any]
) -> CompiledRule:
    if not isinstance(targeting, dict):
        raise DefinitionError(subject, "targeting", "should be an object")
    return compile_rule(
        subject,
        "targeting",
        targeting,
        generation=generation,
        flag_key=key,
        populations=populations,
        rules=rules,
    )


def compile_population(name: str, rule: Any, *, generation: str) -> CompiledRule | DefinitionError:
    """A population, compiled; or what is wrong with it."""
    try:
        return compile_rule(f'population "{name}"', "", rule, generation=generation)
    except DefinitionError as error:
        return error
    except (RecursionError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        return DefinitionError(f'population "{name}"', "", f"too deep or too large: {type(error).__name__}")


def _has_fractions(variants: Any) -> bool:
    return isinstance(variants, dict) and any(type(value) is float for value in variants.values())


def _merged(metadata: Metadata, own: Any) -> Metadata:
    if not isinstance(own, dict) or not own:
        return metadata
    return {**metadata, **own}
