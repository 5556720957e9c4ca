// Records what @openfeature/flagd-core gives for `fractional` and random keys. README.md says how to run it.
"use strict";

const { writeFileSync } = require("node:fs");
const { join } = require("node:path");
const { FlagdCore } = require("@openfeature/flagd-core");

// Chance, the same on every run (mulberry32).
let state = 20_240_229;

function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
}

const below = (end) => Math.floor(random() * end);
const one = (values) => values[below(values.length)];
const text = (characters, most) => Array.from({ length: 1 + below(most) }, () => one(characters)).join("");

const ASCII = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index));
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz0123456789-_@."];
const BEYOND = [..."éßñüåøčŁжд日本語中文한글עבش😀🎉🇩🇪ａ"];

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const VARIANTS = ["a", "b", "c", "d", "e"];

/** Which variant a flag gives; null for its default. */
function variant(key, by, weights, context) {
  const shares = weights.map((weight, index) => (weight === null ? [VARIANTS[index]] : [VARIANTS[index], weight]));
  const fractional = by ? [{ var: by }, ...shares] : shares;
  const flag = {
    state: "ENABLED",
    variants: Object.fromEntries([...VARIANTS, "none"].map((name) => [name, name])),
    defaultVariant: "none",
    targeting: { fractional },
  };
  const core = new FlagdCore(undefined, quiet);
  core.setConfigurations(JSON.stringify({ flags: { [key]: flag } }));
  const found = core.resolveStringEvaluation(key, "", context, quiet).variant;
  return found === "none" ? null : found;
}

const WEIGHTS = [
  [1, 99], [10, 90], [50, 50], [25, 25, 25, 25], [1, 1, 1], [null, null], [null, 3], [0, 5, 0, 7], [1, 2147483646], [1000, 1, 1],
  [7, 11, 13, 17, 19], [0, 0], [100], [2147483647], [2147483647, 1],
];

function record(file, count, characters) {
  const lines = [];
  while (lines.length < count) {
    const key = text(random() < 0.3 ? characters : LETTERS, 20);
    const value = random() < 0.02 ? "" : text(characters, 40);
    const weights = one(WEIGHTS);
    const shorthand = random() < 0.5;
    const gave = variant(key, shorthand ? null : "id", weights, shorthand ? { targetingKey: value } : { targetingKey: "x", id: value });
    lines.push(JSON.stringify([key, shorthand, value, weights, gave]));
  }
  writeFileSync(join(__dirname, file), lines.join("\n") + "\n");
}

record("ascii.jsonl", 4000, ASCII);
record("beyond-ascii.jsonl", 500, BEYOND);
