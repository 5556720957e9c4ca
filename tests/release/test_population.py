from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.errors import DefinitionError
from flagrelay.flags.compiled_flag import compile_population
from flagrelay.flags.compiler import CompiledRule, compile_rule
from flagrelay.flags.definition import check_population
from flagrelay.release.population import (
    MAX_DOMAINS,
    MAX_KEYS,
    About,
    Form,
    about_from_json,
    at_domains,
    check_about,
    describe,
    equals,
    form_of,
    keys_of,
    of_keys,
    one_of,
    parse_keys,
    references,
)
from support.rules import JSON, POPULATIONS, WILD, targetings

PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
ATTRIBUTES = st.sampled_from(["plan", "user.plan", "email", "é"]) | PLAIN_TEXT.filter(
    lambda name: name != "targetingKey" and not name.startswith("$flagd.")
)
VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
DOMAINS = st.from_regex(r"[a-z0-9-]{1,10}(\.[a-z]{2,5}){0,2}", fullmatch=True)


def belongs(rule: Any, **context: Any) -> bool:
    """Whether a context is in a population, as a relay says."""
    compiled = compile_population("p", rule, generation="v3")
    assert isinstance(compiled, CompiledRule)
    return bool(compiled.function(context, "flag"))


# -- from words to rules and back -------------------------------------------------------------------------------------


@given(ATTRIBUTES, VALUES)
def test_a_population_of_one_value_is_known_again(attribute: str, value: Any) -> None:
    assert form_of(equals("p", attribute, value)) == Form("equals", attribute, (value,))


@given(ATTRIBUTES, st.lists(VALUES, min_size=1, max_size=5, unique_by=lambda value: (isinstance(value, bool), value)))
def test_a_population_of_some_values_is_known_again(attribute: str, values: list[Any]) -> None:
    form = form_of(one_of("p", attribute, values))
    assert form == Form("in", attribute, tuple(values))
    assert [*map(type, form.values)] == [*map(type, values)]


@given(ATTRIBUTES, st.lists(DOMAINS, min_size=1, max_size=5, unique=True))
def test_a_population_of_domains_is_known_again(attribute: str, domains: list[str]) -> None:
    assert form_of(at_domains("p", domains, attribute)) == Form("email", attribute, tuple(domains))


@given(st.sets(PLAIN_TEXT, min_size=1, max_size=20))
def test_a_population_of_targeting_keys_is_known_again(keys: set[str]) -> None:
    rule = of_keys("p", [*keys, *keys])
    assert form_of(rule) == Form("keys", "targetingKey", tuple(sorted(keys)))
    assert keys_of(rule) == sorted(keys)
    assert all(belongs(rule, targetingKey=key) for key in keys)
    assert not belongs(rule, targetingKey="x" * 21)


@given(JSON | WILD)
def test_any_rule_has_a_form_and_a_short_description(rule: Any) -> None:
    form = form_of(rule)
    assert (keys_of(rule) is not None) is (form.kind == "keys")
    assert describe(rule)
    if form.kind == "keys":
        assert list(form.values) == keys_of(rule)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        [],
        None,
        {"==": [{"var": "plan"}, None]},
        {"==": [{"var": "plan"}, {"var": "x"}]},
        {"==": ["beta", {"var": "plan"}]},
        {"==": [{"var": ["plan", "free"]}, "beta"]},
        {"==": [{"var": ""}, "beta"]},
        {"==": [{"var": "a", "b": 1}, "beta"]},
        {"==": "plan"},
        {"in": [{"var": "plan"}, []]},
        {"in": [{"var": "plan"}, "beta"]},
        {"in": [{"var": "plan"}, ["beta", None]]},
        {"in": [{"var": "plan"}, ["beta", ["pro"]]]},
        {"in": [{"var": "plan"}, [{"var": "x"}]]},
        {"ends_with": [{"var": "email"}, "example.com"]},
        {"ends_with": [{"var": "email"}, "@Example.com"]},
        {"ends_with": [{"var": "email"}, "@@example.com"]},
        {"or": []},
        {"or": {"ends_with": [{"var": "email"}, "@a.b"]}},
        {"or": [{"ends_with": [{"var": "email"}, "@a.b"]}, {"ends_with": [{"var": "mail"}, "@c.d"]}]},
        {"or": [{"ends_with": [{"var": "email"}, "@a.b"]}, {"==": [{"var": "email"}, "x"]}]},
        {"or": [{"ends_with": ["a", "b"]}]},
    ],
)
def test_what_is_not_quite_one_of_the_forms_is_just_a_rule(rule: Any) -> None:
    assert form_of(rule) == Form("rule")
    assert keys_of(rule) is None


def test_a_list_of_numbers_as_targeting_keys_is_a_list_of_values() -> None:
    assert form_of({"in": [{"var": "targetingKey"}, ["a", 1]]}).kind == "in"


# -- what the rules say -----------------------------------------------------------------------------------------------


def test_an_attribute_may_lie_deeper_in_the_context() -> None:
    rule = equals("beta", "user.plan", "beta")
    assert rule == {"==": [{"var": "user.plan"}, "beta"]}
    assert belongs(rule, user={"plan": "beta"})
    assert not belongs(rule, plan="beta")


def test_who_lacks_the_attribute_is_not_in_the_population() -> None:
    for rule in (
        equals("p", "x", "a"),
        one_of("p", "x", ["a"]),
        at_domains("p", ["a.b", "c.d"], "x"),
        of_keys("p", "a"),
    ):
        assert not belongs(rule)


@pytest.mark.parametrize("domain", ["example.com", "@example.com", " @Example.COM\n"])
def test_a_domain_is_taken_with_its_at_and_without_and_in_small_letters(domain: str) -> None:
    rule = at_domains("staff", [domain, domain.lower()])
    assert rule == {"ends_with": [{"var": "email"}, "@example.com"]}
    assert belongs(rule, email="ada@example.com")
    for other in ("ada@EXAMPLE.com", "ada@mail.example.com", "ada@badexample.com", "example.com", 5, None):
        assert not belongs(rule, email=other)


def test_several_domains_are_one_or_the_other() -> None:
    rule = at_domains("staff", ["example.com", "@example.org"])
    assert [belongs(rule, email=f"ada@example.{end}") for end in ("com", "org", "net")] == [True, True, False]


def test_a_value_that_stands_twice_counts_once_and_true_is_not_1() -> None:
    assert one_of("p", "x", ["b", 1, True, "b", 1, "1"]) == {"in": [{"var": "x"}, ["b", 1, True, "1"]]}


def test_targeting_keys_come_in_order_and_each_once() -> None:
    assert of_keys("p", ["b", "a", "b"]) == {"in": [{"var": "targetingKey"}, ["a", "b"]]}


def test_a_population_has_100000_targeting_keys_and_no_more() -> None:
    keys = [f"{number:036}" for number in range(MAX_KEYS + 1)]
    assert keys_of(of_keys("p", keys[:-1])) == keys[:-1]
    with pytest.raises(DefinitionError, match='population "p": at keys: there are 100,001; it should be 1 to 100,000'):
        of_keys("p", keys)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "path", "cause"),
    [
        (lambda: equals("p", "", "x"), "attribute", "name of an attribute"),
        (lambda: equals("p", "a\n", "x"), "attribute", "name of an attribute"),
        (lambda: equals("p", "x" * 257, "x"), "attribute", "name of an attribute"),
        (lambda: equals("p", "x", None), "value", "a text, a number or a boolean"),
        (lambda: equals("p", "x", ["a"]), "value", "a text, a number or a boolean"),
        (lambda: equals("p", "x", float("nan")), "==[1]", "nan is no JSON number"),
        (lambda: equals("p", "$flagd.x", "a"), "==[0].var", "$flagd has flagKey and timestamp"),
        (lambda: one_of("p", "x", []), "values", "at least one"),
        (lambda: one_of("p", "x", ["a", {}]), "values[1]", "a text, a number or a boolean"),
        (lambda: at_domains("p", []), "domains", "there are 0; it should be 1 to 100"),
        (lambda: at_domains("p", [f"{n}.com" for n in range(MAX_DOMAINS + 1)]), "domains", "there are 101"),
        (lambda: at_domains("p", ["a.com", "*.example.com"]), "domains[1]", "'*.example.com' is no domain"),
        (lambda: at_domains("p", ["ada@example.com"]), "domains[0]", "is no domain"),
        (lambda: at_domains("p", [""]), "domains[0]", "is no domain"),
        (lambda: of_keys("p", []), "keys", "there are 0"),
        (lambda: of_keys("p", ["a", ""]), "keys[1]", "has 1 to 256 characters, and this one 0"),
        (lambda: of_keys("p", ["x" * 257]), "keys[0]", "has 1 to 256 characters, and this one 257"),
        (lambda: of_keys("p", ["a", "b", "a\x00"]), "keys[2]", "no control characters"),
        (lambda: of_keys("p", ["\ud800"]), "keys[0]", "no control characters"),
        (lambda: of_keys("p", [1]), "keys[0]", "should be a text"),  # type: ignore[list-item]
        (lambda: check_about("p", About("x" * 1001)), "description", "at most 1000 characters"),
        (lambda: check_about("p", About("\x1b[2J")), "description", "control characters"),
        (lambda: check_about("p", About("", -1)), "risk", "-1 is no risk"),
        (lambda: check_about("p", About("", 1001)), "risk", "from 0 to 1000"),
        (lambda: about_from_json("p", {"risk": True}), "risk", "True is no risk"),
        (lambda: about_from_json("p", {"risk": 1.0}), "risk", "1.0 is no risk"),
        (lambda: about_from_json("p", {"description": None}), "description", "should be text"),
        (lambda: about_from_json("p", {"risks": 1}), "risks", "unknown; there are description, risk"),
        (lambda: about_from_json("p", []), "", "should be an object"),
    ],
)
def test_what_makes_no_population_is_refused_with_its_place(build: Any, path: str, cause: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        build()
    assert refused.value.subject == 'population "p"'
    assert refused.value.path == path
    assert cause in refused.value.cause


def test_a_name_that_is_none_is_refused() -> None:
    for name in ("", "a\n", "x" * 257):
        with pytest.raises(DefinitionError, match="a key has"):
            equals(name, "plan", "beta")


# -- files of targeting keys ------------------------------------------------------------------------------------------


def test_a_file_of_keys_may_have_comments_empty_lines_and_the_line_breaks_of_any_system() -> None:
    text = b"\xef\xbb\xbf# from the CRM\r\nada\r\n\r\n  grace hopper \n\t\n # and\n#\n#\tthose\n\xc3\xa9#1\nada"
    assert parse_keys(text, "beta.txt") == ["ada", "grace hopper", "é#1"]
    assert parse_keys(b"", "beta.txt") == parse_keys(b"\n# nobody\n", "beta.txt") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"ada\n\xff\n", "beta.txt: at line 2: not UTF-8"),
        (b"ada\n\n#\nx\x00y\n", "beta.txt: at line 4: a targeting key has no control characters"),
        (b"ada\rgrace\n", "beta.txt: at line 1: a targeting key has no control characters"),
        (b"x" * 257, "beta.txt: at line 1: a targeting key has 1 to 256 characters, and this one 257"),
    ],
)
def test_a_line_that_is_no_key_is_named(text: bytes, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_keys(text, "beta.txt")


@given(
    st.lists(
        PLAIN_TEXT.filter(lambda key: key == key.strip(" ") and not key.startswith(("# ", "\ufeff")) and key != "#"),
        unique=True,
    )
)
def test_what_is_written_a_key_a_line_is_read_back(keys: list[str]) -> None:
    for line_break in ("\n", "\r\n"):
        assert parse_keys(line_break.join(keys).encode(), "it") == keys


def test_a_key_may_begin_with_a_hash_for_nobody_is_left_out_in_silence() -> None:
    assert parse_keys(b"#4711\n # 4712\n ##\n", "beta.txt") == ["#4711", "##"]


def test_a_file_of_too_many_keys_is_refused_with_how_many_there_are() -> None:
    keys = b"".join(b"u%d\n" % number for number in range(100_001))
    with pytest.raises(DefinitionError, match=r"^beta.txt: has 100,001 targeting keys, and the most is 100,000: "):
        parse_keys(keys, "beta.txt")
    assert len(parse_keys(keys.removesuffix(b"u100000\n") * 2, "beta.txt")) == 100_000, "each counts once"


@given(st.binary(max_size=50))
def test_a_file_is_read_or_refused(text: bytes) -> None:
    try:
        keys = parse_keys(text, "it")
    except DefinitionError as error:
        assert error.path.startswith("line ")
    else:
        assert not keys or of_keys("p", keys)


# -- for people -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (equals("p", "plan", "beta"), 'plan is "beta"'),
        (equals("p", "user.age", 18), "user.age is 18"),
        (equals("p", "internal", value=True), "internal is true"),
        (one_of("p", "country", ["CH"]), 'country is one of "CH"'),
        (one_of("p", "country", ["CH", "DE", 5]), 'country is one of "CH", "DE", 5'),
        (one_of("p", "n", range(1003)), "n is one of 0, 1, 2 and 1,000 more"),
        (at_domains("p", ["@example.com"]), "email at example.com"),
        (
            at_domains("p", [f"{name}.com" for name in "abcde"], "user.mail"),
            "user.mail at a.com, b.com, c.com and 2 more",
        ),
        (of_keys("p", ["ada"]), "1 targeting key"),
        (of_keys("p", map(str, range(1200))), "1,200 targeting keys"),
        ({"!": [{"var": "é"}]}, '{"!": [{"var": "é"}]}'),
        (equals("p", "x", "y" * 100), f'x is "{"y" * 59}…'),
        ({"cat": ["y" * 100]}, f'{{"cat": ["{"y" * 50}…'),
        (None, "null"),
    ],
)
def test_a_population_is_described_in_one_short_line(rule: Any, line: str) -> None:
    assert describe(rule) == line


def test_a_rule_that_nests_without_end_is_described_too() -> None:
    rule: Any = 1
    for _ in range(100_000):
        rule = [rule]
    assert describe(rule) == "a rule that nests too deep to be shown"
    assert references(rule) == set()


# -- who uses a population --------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(targetings())
def test_a_rule_names_the_populations_that_its_compilation_names(rule: Any) -> None:
    rules = {name: {"!": {"var": name}} for name in POPULATIONS}
    populations = {name: compile_population(name, each, generation="v3") for name, each in rules.items()}
    compiled = compile_rule("it", "", rule, generation="v3", populations=populations, rules=rules)
    assert references(rule) == compiled.populations


def test_an_object_of_several_members_is_data_and_names_nobody() -> None:
    assert references({"if": [{"$ref": "beta"}, {"a": {"$ref": "staff"}, "b": 1}, [{"$ref": "dev"}]]}) == {
        "beta",
        "dev",
    }
    assert references({"$ref": 5}) == references("beta") == set()


# -- what people should know ------------------------------------------------------------------------------------------


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=1000),
    st.none() | st.integers(0, 1000),
)
def test_what_people_should_know_is_read_back(description: str, risk: int | None) -> None:
    about = check_about("p", About(description, risk))
    assert about_from_json("p", about.as_json()) == about


def test_what_goes_without_saying_is_not_stored() -> None:
    assert About().as_json() == {}
    assert About("", 0).as_json() == {"risk": 0}


@given(JSON)
def test_whatever_is_nothing_to_know_is_refused_and_never_crashes(document: Any) -> None:
    try:
        about = about_from_json("p", document)
    except DefinitionError as error:
        assert error.cause
    else:
        assert about.as_json() == {name: value for name, value in document.items() if value not in ("", None)}


@given(ATTRIBUTES, VALUES)
def test_every_rule_that_is_built_may_be_stored(attribute: str, value: Any) -> None:
    assert check_population("p", equals("p", attribute, value))
