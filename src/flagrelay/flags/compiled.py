"""The flags and populations of a snapshot, compiled; and which of them a change touches."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from flagrelay.errors import DefinitionError
from flagrelay.flags.change import Change, Definition, Rule
from flagrelay.flags.compiled_flag import CompiledFlag, compile_flag, compile_population
from flagrelay.flags.compiler import Populations
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.equality import same
from flagrelay.flags.resolution import Metadata


class Source(NamedTuple):
    """What is compiled: the parts of a snapshot as they are written."""

    flags: Mapping[str, Definition]
    evaluators: Mapping[str, Rule]
    metadata: Metadata
    settings: EnvironmentSettings


class Compiled(NamedTuple):
    """Every flag and population, ready to be resolved; flags in the order of their keys, the same on every relay."""

    flags: Mapping[str, CompiledFlag]
    populations: Populations


NOTHING = Compiled({}, {})
"""What stands for "not compiled yet"."""


def compile_all(source: Source) -> Compiled:
    """Everything, from nothing."""
    populations = {
        name: compile_population(name, rule, generation=source.settings.fractional)
        for name, rule in source.evaluators.items()
    }
    return Compiled(_flags(source, sorted(source.flags), populations), populations)


def compile_like(known: Compiled, before: Source, source: Source) -> Compiled:
    """Everything, but what was compiled before and is the same now is not compiled again.

    Args:
        known: what was compiled before.
        before: of what.
        source: what there is now.
    """
    if before.settings != source.settings or not same([*before[1:3]], [*source[1:3]]):
        return compile_all(source)
    kept = {
        key: flag
        for key, flag in known.flags.items()
        if key in source.flags and same(before.flags[key], source.flags[key])
    }
    fresh = _flags(source, source.flags.keys() - kept.keys(), known.populations)
    return Compiled(dict(sorted({**kept, **fresh}.items())), known.populations)


def compile_changed(compiled: Compiled, change: Change, source: Source) -> Compiled:
    """What is compiled already, one change later: only what the change touches is compiled again.

    Args:
        compiled: before the change.
        change: the change.
        source: everything, after the change.
    """
    if change.settings is not None:
        return compile_all(source)
    populations = dict(compiled.populations)
    for name, rule in change.evaluators.items():
        populations.pop(name, None)
        if rule is not None:
            populations[name] = compile_population(name, rule, generation=source.settings.fractional)
    touched = {key for key in change.flags if key in source.flags}
    if change.evaluators:
        touched |= {
            key for key, flag in compiled.flags.items() if _names(flag, change.evaluators)
        } & source.flags.keys()
    kept = compiled.flags
    if change.metadata is not None:
        kept = {
            key: flag.with_metadata(_object(source.flags[key]), source.metadata)
            for key, flag in compiled.flags.items()
            if key in source.flags
        }
    flags = {**kept, **_flags(source, touched, populations)}
    for key, definition in change.flags.items():
        if definition is None:
            flags.pop(key, None)
    if not touched <= compiled.flags.keys():
        flags = dict(sorted(flags.items()))
    return Compiled(flags, populations)


def _flags(source: Source, keys: Iterable[str], populations: Populations) -> dict[str, CompiledFlag]:
    return {
        key: compile_flag(
            key,
            source.flags[key],
            source.metadata,
            generation=source.settings.fractional,
            populations=populations,
            rules=source.evaluators,
        )
        for key in keys
    }


def _object(definition: Definition) -> Definition:
    return definition if isinstance(definition, dict) else {}


def _names(flag: CompiledFlag, populations: Mapping[str, Any]) -> bool:
    """Whether a flag may have another rule once these populations have changed."""
    if isinstance(flag.rule, DefinitionError):
        return True
    return flag.rule is not None and not flag.rule.populations.isdisjoint(populations)
