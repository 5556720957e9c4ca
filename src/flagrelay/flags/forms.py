"""What compiled rules are made of: forms, and the functions made from them.

A form is a small tuple that says what to compute, with no constant of a rule in it: those stand in a list beside it,
and the form holds their places. So two rules of one shape have equal forms and share one compilation; each then gets
the function with its own constants. Nothing of a rule is ever text for Python to read.

    ("context",) ("key",)           the function's arguments
    ("hold", n)                     the n-th constant
    ("made", n)                     the n-th function: a population, the body of a loop
    ("none",) ("true",) ("false",)
    ("number", n)                   a small number of the compiler's own
    ("set", n, x) ("got", n)        keep x in the n-th local, and take it again
    ("call", name, *x)              one of `HELPERS`
    ("run", f, *x)                  a ("made", n)
    ("get", x, n)                   x.get(the n-th constant)
    ("if", test, x, y) ("and", *x) ("or", *x) ("not", x)
    ("is", x, y) ("isnt", x, y) ("eq", x, y) ("lt", x, y) ("le", x, y) ("gt", x, y) ("ge", x, y) ("in", x, y)
    ("class", x) ("type", name)     x.__class__, and what it may be compared with
    ("list", *x)
"""

import ast
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from flagrelay.flags import bucket, javascript, lookup, members, operators, sharing

Form = tuple[Any, ...]

HELPERS: dict[str, Callable[..., Any]] = {
    "truthy": javascript.truthy,
    "item": javascript.item,
    **{
        function.__name__: function
        for function in (
            lookup.look,
            lookup.whole,
            lookup.provided,
            lookup.timestamp,
            lookup.descend,
            lookup.missing,
            lookup.missing_some,
            lookup.kept,
            lookup.mapped,
            lookup.reduced,
            lookup.every,
            lookup.some,
            lookup.none,
            lookup.targeting_key,
            sharing.share,
            sharing.choose,
            sharing.chosen,
            sharing.spread,
            sharing.split,
            members.has,
            bucket.pick,
            bucket.hash_v2,
            bucket.hash_v3,
            bucket.shorthand_v2,
            bucket.shorthand_v3,
        )
    },
    **{operator.apply.__name__: operator.apply for operator in operators.OPERATORS.values() if operator.apply},
}

TYPES = {"str": str, "int": int, "bool": bool, "dict": dict}

_GLOBALS = {"__builtins__": {}, **HELPERS, **TYPES}

_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "is": ast.Is,
    "isnt": ast.IsNot,
    "eq": ast.Eq,
    "lt": ast.Lt,
    "le": ast.LtE,
    "gt": ast.Gt,
    "ge": ast.GtE,
    "in": ast.In,
}
_CONSTANTS = {"none": None, "true": True, "false": False}
_LARGEST_SHARED = 400
"""Nodes of the largest form whose code is kept for others of the same shape."""


class Code:
    """The code of a form, with the places where constants go."""

    __slots__ = ("_code",)

    def __init__(self, form: Form, made: int) -> None:
        arguments = [ast.arg(name) for name in ("context", "key", *(f"made_{index}" for index in range(made)))]
        body = ast.Lambda(
            ast.arguments(posonlyargs=[], args=arguments, kwonlyargs=[], kw_defaults=[], defaults=[]), _node(form)
        )
        module = ast.fix_missing_locations(ast.Expression(body))
        (self._code,) = [each for each in compile(module, "<rule>", "eval").co_consts if isinstance(each, CodeType)]

    def function(self, held: Sequence[Any], made: Sequence[Callable[..., Any]]) -> FunctionType:
        """The function of a rule of this shape."""
        constants = tuple([_filled(constant, held) for constant in self._code.co_consts])
        return FunctionType(self._code.replace(co_consts=constants), _GLOBALS, "rule", tuple(made))


def _filled(constant: Any, held: Sequence[Any]) -> Any:
    """A constant of the code, or the rule's own in its place. Python's compiler makes tuples of lists of constants."""
    if isinstance(constant, tuple):
        return tuple([_filled(each, held) for each in constant])
    return held[int(constant[1:])] if isinstance(constant, str) and constant[:1] == "\0" else constant


_shared = lru_cache(maxsize=4096)(Code)


def function_of(
    form: Form, held: Sequence[Any], made: Sequence[Callable[..., Any]], nodes: int
) -> Callable[[Any, str], Any]:
    """The function that computes a form: of a context and a flag key.

    Args:
        form: what to compute.
        held: the constants that it holds the places of.
        made: the functions that it runs.
        nodes: how large the form is, about.
    """
    code = _shared(form, len(made)) if nodes <= _LARGEST_SHARED else Code(form, len(made))
    return code.function(held, made)


def _node(form: Form) -> ast.expr:
    return _NODES[form[0]](*form[1:])


def _compare(kind: str) -> Callable[[Form, Form], ast.expr]:
    return lambda left, right: ast.Compare(_node(left), [_COMPARISONS[kind]()], [_node(right)])


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _call(name: str, *arguments: Form) -> ast.expr:
    return ast.Call(_name(name), [_node(each) for each in arguments], [])


def _held(index: int) -> ast.expr:
    return ast.Constant(f"\0{index}")


_NODES: dict[str, Callable[..., ast.expr]] = {
    "context": lambda: _name("context"),
    "key": lambda: _name("key"),
    "hold": _held,
    "made": lambda index: _name(f"made_{index}"),
    "number": ast.Constant,
    "set": lambda index, value: ast.NamedExpr(ast.Name(f"local_{index}", ast.Store()), _node(value)),
    "got": lambda index: _name(f"local_{index}"),
    "call": _call,
    "run": lambda function, *arguments: ast.Call(_node(function), [_node(each) for each in arguments], []),
    "get": lambda owner, index: ast.Call(ast.Attribute(_node(owner), "get", ast.Load()), [_held(index)], []),
    "if": lambda test, then, otherwise: ast.IfExp(_node(test), _node(then), _node(otherwise)),
    "and": lambda *values: ast.BoolOp(ast.And(), [_node(each) for each in values]),
    "or": lambda *values: ast.BoolOp(ast.Or(), [_node(each) for each in values]),
    "not": lambda value: ast.UnaryOp(ast.Not(), _node(value)),
    "class": lambda value: ast.Attribute(_node(value), "__class__", ast.Load()),
    "type": _name,
    "list": lambda *items: ast.List([_node(each) for each in items], ast.Load()),
    **{name: lambda value=value: ast.Constant(value) for name, value in _CONSTANTS.items()},
    **{name: _compare(name) for name in _COMPARISONS},
}
