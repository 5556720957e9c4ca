// Records what json-logic-js, and JavaScript itself, make of random rules and values. README.md says how to run it.
"use strict";

const { writeFileSync } = require("node:fs");
const { join } = require("node:path");
const jsonLogic = require("json-logic-js");

// -- chance, the same on every run (mulberry32) ----------------------------------------------------------

let state = 20_240_229;

function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
}

const below = (end) => Math.floor(random() * end);
const one = (values) => values[below(values.length)];
const many = (count, make) => Array.from({ length: count }, make);

// -- JSON, and what JSON has no word for --------------------------------------------------------------------

function written(value) {
  if (value === undefined) return '{"$":"undefined"}';
  if (typeof value === "function") return '{"$":"function"}';
  if (typeof value === "number") {
    if (Object.is(value, -0)) return "-0.0";
    return Number.isFinite(value) ? JSON.stringify(value) : `{"$":"${value}"}`;
  }
  if (Array.isArray(value)) return `[${value.map(written).join(",")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.keys(value).map((name) => `${JSON.stringify(name)}:${written(value[name])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

const lines = { operators: new Set(), rules: new Set(), departures: new Set(), conversions: new Set() };

function record(file, ...values) {
  lines[file].add(`[${values.map(written).join(",")}]`);
}

/** So that nothing is the same object twice: arguments and data come from JSON. */
function fresh(value) {
  if (Array.isArray(value)) return value.map(fresh);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, fresh(member)]));
}

function applied(rule, data) {
  const log = console.log;
  console.log = () => {};
  try {
    return jsonLogic.apply(fresh(rule), fresh(data));
  } catch {
    return { $: "error" };
  } finally {
    console.log = log;
  }
}

// -- values ---------------------------------------------------------------------------------------------------

const NUMBERS = [
  0, 1, -1, 2, 3, 10, 42, -7, 100, 0.5, -0.5, 2.5, -2.5, 0.1, 0.2, 1e-7, 1e21, 1e300, -1e300, 5e-324, -0, 3.0000000000000004,
  2147483648, 4294967296, -2147483649, 9007199254740991, 9007199254740992, 123456789012345680000, 1.7976931348623157e308,
];
const TEXTS = [
  "", " ", "0", "1", "-1", "00", "1.5", "2", "10", " 7 ", "1e3", "1E-2", "0x10", "0b11", "0o17", "0xZ", "-0x10", "12abc", "3.5px",
  "abc", "b", "a", "A", "Z", "ab", "bc", "é", "e\u0301", "ß", "日本", "😀", "a😀b", "\uff21", "Infinity", "-Infinity", "infinity",
  "inf", "NaN", "null", "true", "false", "undefined", "1,2", ",", "[object Object]", "-0", "+5", ".5", "5.", ".", "+", "1_000",
  "\n3\t", "٣", "\ufeff4", "\u00a05", "\u001c6", "1 2", "9007199254740993", "1e1000", "1.2.3", "--1",
];
const LISTS = [
  [], [1], ["1"], [0], [""], [null], [true], [[]], [[1], [2]], [[["3"]]], [1, 2], ["a", "b"], ["ab"], [1, "1", true], [null, true, "x"],
  ["1", 2, 0.5], [-1], ["😀", "é"], [{}, {}], [1, [2, [3]]], [" 4 "],
];
const OBJECTS = [{}, { a: 1, b: [2] }, { length: 3, x: null }];
const VALUES = [null, true, false, ...NUMBERS, ...TEXTS, ...LISTS, ...OBJECTS];
const KINDS = [[null], [true, false], NUMBERS, NUMBERS, TEXTS, TEXTS, LISTS, OBJECTS];
const value = () => one(one(KINDS));

// -- operators that only look at values: each with arguments as they are ----------------------------------------

const BINARY = ["==", "!=", "===", "!==", "<", "<=", ">", ">=", "-", "/", "%", "in", "+", "*", "min", "max", "cat", "merge"];
const UNARY = ["!", "!!", "-", "+", "*", "min", "max", "cat", "merge", "log", "in", "substr", "==", "===", "<", "/"];
const TERNARY = ["<", "<=", ">", "+", "*", "min", "max", "cat", "merge", "==", "-", "substr", "substr", "substr"];

function operate(operator, values) {
  const rule = { [operator]: values.map((_, index) => ({ var: index })) };
  record("operators", operator, values, applied(rule, values));
}

for (const operator of new Set([...BINARY, ...UNARY])) operate(operator, []);
for (const each of VALUES) operate(one(["!", "!!"]), [each]);
for (const operator of UNARY) many(12, () => operate(operator, [value()]));
for (const operator of BINARY) many(95, () => operate(operator, [value(), value()]));
for (const operator of ["==", "!=", "===", "!==", "<", "<="]) {
  // Of one kind: otherwise nearly nothing is equal, or in order.
  many(30, () => {
    const kind = one([NUMBERS, TEXTS, LISTS]);
    const first = one(kind);
    operate(operator, [first, random() < 0.3 ? first : one(kind)]);
  });
}
for (const operator of TERNARY) many(35, () => operate(operator, [value(), value(), value()]));
many(150, () => operate("substr", [one(TEXTS), one(NUMBERS), ...(random() < 0.6 ? [one(NUMBERS)] : [])]));
many(60, () => operate("substr", [one(["jsonlogic", "a😀b", "日本語", "éa"]), below(9) - 4, ...many(below(2), () => below(9) - 4)]));
many(80, () => operate("in", [one(TEXTS), one(TEXTS) + one(TEXTS)]));
many(60, () => {
  const list = many(3, value);
  operate("in", [random() < 0.5 ? one(list) : value(), list]);
});

// -- whole rules, with data ---------------------------------------------------------------------------------------

const NAMES = [
  "plan", "age", "n", "beta", "user", "user.plan", "user.age", "user.nothing", "tags", "tags.0", "tags.1", "tags.9", "tags.length",
  "numbers", "numbers.0", "people", "people.0.plan", "people.1.age", "people.length", "mixed", "mixed.0", "plan.length", "plan.0",
  "age.plan", "nothing", "nothing.at.all", "current", "accumulator", "current.age", "", "1.5", "a,b", "null", "true",
];
const ODD_NAMES = [null, 0, 1, 1.5, true, "0", "1", "length", "constructor", "__proto__", "tags.map", "plan.toString", "a..b", "."];
const PERSON = () => ({ plan: one(["pro", "free", null, "é"]), age: one([3, 17, 18, 40.5, "18", null]) });

function data() {
  if (random() < 0.06) return value();
  if (random() < 0.06) return many(below(4), () => one([value, PERSON])());
  const found = {
    plan: one(["pro", "free", "", "é", "a😀b", null, 7]),
    age: one([0, 17, 18, 40.5, -3, "18", null, true]),
    n: one(NUMBERS),
    beta: one([true, false, null, "false"]),
    user: one([PERSON(), {}, null, "text"]),
    tags: one([[], ["a", "b"], ["pro"], ["1", 2, null], "tags", null]),
    numbers: one([[], [1, 2, 3], [0.5, -1, 10], ["3", 4], null]),
    people: one([[], [PERSON()], [PERSON(), PERSON()], {}]),
    mixed: many(below(4), value),
    "1.5": 1,
  };
  for (const name of Object.keys(found)) if (random() < 0.3) delete found[name];
  return found;
}

const name = () => (random() < 0.95 ? one(NAMES) : one(ODD_NAMES));
const EAGER = [...BINARY, "!", "!!", "substr", "log"];

function looked() {
  const chance = random();
  if (chance < 0.6) return { var: name() };
  if (chance < 0.9) return { var: [name(), one([value(), "default", 0])] };
  return one([
    { var: [] }, { var: [name()] }, { var: [{ cat: ["user", ".", "plan"] }] }, { var: { var: "plan" } }, { var: ["plan", { var: "n" }] },
    { var: [["plan"]] }, { var: [["user", "plan"], 0] }, { var: { var: "tags" } }, { var: { merge: ["age"] } },
  ]);
}

function rule(depth) {
  const chance = random();
  if (!depth || chance < 0.2) return random() < 0.6 ? looked() : value();
  const inner = () => rule(depth - 1);
  if (chance < 0.3) return { [one(["if", "if", "?:"])]: many(below(6), inner) };
  if (chance < 0.38) return { [one(["and", "or"])]: many(1 + below(3), inner) };
  if (chance < 0.43) return { missing: one([many(below(4), name), [many(below(3), name)], name(), [{ merge: [name(), name()] }], { var: "mixed" }]) };
  if (chance < 0.48) return { missing_some: [one([0, 1, 2, 3, "1", null, 1.5]), random() < 0.8 ? many(below(4), name) : one([name(), { var: "mixed" }])] };
  if (chance < 0.66) {
    const items = random() < 0.75 ? { var: one(["tags", "numbers", "people", "mixed"]) } : inner();
    const body = random() < 0.6 ? { [one(["<", ">", "==", "+", "cat", "in"])]: [{ var: one(["", "age", "plan", "0"]) }, value()] } : inner();
    const loop = one(["map", "filter", "all", "some", "none", "reduce"]);
    if (loop !== "reduce") return { [loop]: [items, body].slice(0, random() < 0.95 ? 2 : 1) };
    const sum = { [one(["+", "max", "cat", "-", "merge"])]: [{ var: "accumulator" }, { var: one(["current", "current.age"]) }] };
    return { reduce: [items, random() < 0.7 ? sum : body, ...(random() < 0.8 ? [one([0, "", inner()])] : [])] };
  }
  const operator = one(EAGER);
  const count = operator === "!" || operator === "!!" || operator === "log" ? 1 : one([2, 2, 2, 2, 1, 3]);
  if (count === 1 && random() < 0.3) return { [operator]: looked() };
  return { [operator]: many(count, inner) };
}

/** Mostly without what a rule does not name, which would say nothing and fill the file. */
function trimmed(found, made) {
  if (found === null || typeof found !== "object" || Array.isArray(found) || random() < 0.1) return found;
  return Object.fromEntries(Object.entries(found).filter(([member]) => made.includes(`"${member}`)));
}

while (lines.rules.size < 3000) {
  const made = rule(3);
  const seen = trimmed(data(), written(made));
  if (jsonLogic.is_logic(made) && written(made).length < 300) record("rules", made, seen, applied(made, seen));
}

// -- where flagrelay departs from it: the examples of tests/flags/test_operators.py -------------------------------

const large = { "+": [9007199254740992, 1] };
const DEPARTURES = [
  [{ var: ["a", 1] }, { a: null }],
  [{ var: ["a.b", "x"] }, { a: { b: null } }],
  [{ var: "constructor" }, {}],
  [{ var: "__proto__" }, {}],
  [{ var: "a.map" }, { a: [] }],
  [{ var: "a.toString" }, { a: "text" }],
  [{ missing: ["constructor"] }, {}],
  [{ "+": [true, 1] }, {}],
  [{ "+": [null, 1] }, {}],
  [{ "+": [{ var: "a" }] }, { a: false }],
  [{ "*": [true, 3] }, {}],
  [{ "*": [{ var: "a" }, 3] }, { a: null }],
  [{ "*": [null] }, {}],
  [{ "*": ["3"] }, {}],
  [{ "*": [{ var: "a" }] }, { a: [2] }],
  [{ "*": [] }, {}],
  [{ "!==": [{ and: [] }, null] }, {}],
  [{ "!==": [{ or: [] }, null] }, {}],
  [{ substr: [] }, {}],
  [{ "==": [large, 9007199254740992] }, {}],
  [{ "%": [large, 2] }, {}],
  [{ "-": [{ "*": [94906267, 94906267] }, 9007199515875288] }, {}],
  [{ cat: [{ "*": [2147483648, 1073741824] }] }, {}],
  [{ in: ["2305843009213693952", { cat: [{ "*": [{ var: "a" }, 1073741824] }] }] }, { a: 2147483648 }],
  [{ missing_some: [2, "abc"] }, {}],
  [{ missing_some: [1, { var: "a" }] }, {}],
  [{ missing_some: [2, [["a"], "b"]] }, { a: 1 }],
  [{ missing: [[["a", "x"], ["b"]]] }, { b: 1 }],
  [{ missing: [{ var: "a" }] }, { a: { cat: "b" }, b: "c" }],
  [{ substr: ["abc", 0, "-1"] }, {}],
  [{ substr: [{ var: "a" }, 1, [-1]] }, { a: "abc" }],
  [{ "/": [1, { "-": [0] }] }, {}],
];
for (const [made, seen] of DEPARTURES) record("departures", made, seen, applied(made, seen));

// -- conversions ----------------------------------------------------------------------------------------------------

const floats = [...NUMBERS, 1e20, 1e-6, 1.5e-6, 123e-20, 1e22, 4.35, 0.000001234, 999999999999999900000, 1.1e21];
floats.push(...many(150, () => (random() - 0.5) * 10 ** (below(50) - 25)));
floats.push(...many(100, () => Math.round(random() * 1e6) / 10 ** below(12)));
const bits = new DataView(new ArrayBuffer(8));
floats.push(
  ...many(200, () => {
    bits.setUint32(0, below(4294967296));
    bits.setUint32(4, below(4294967296));
    return bits.getFloat64(0);
  }).filter(Number.isFinite),
);
for (const each of floats) record("conversions", "String", each, String(each));
for (const each of [...LISTS, ...OBJECTS, null, true, false]) record("conversions", "String", each, String(each));
const digits = () => many(below(5), () => one([..."0123456789"])).join("");
const numeric = () =>
  one(["", " ", "+", "-", "\t", "0x", "0b", "0o"]) + digits() + one(["", ".", "e"]) + digits() + one(["", " ", "e5", "e-3", "px", "n"]);
for (const each of [...VALUES, ...many(250, numeric)]) {
  record("conversions", "Number", each, Number(each));
  if (each !== null && typeof each !== "boolean") record("conversions", "parseFloat", each, parseFloat(each));
}

for (const [file, found] of Object.entries(lines)) {
  writeFileSync(join(__dirname, `${file}.jsonl`), [...found].join("\n") + "\n");
}
