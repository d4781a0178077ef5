// Writes values.schema.json of the chart, or with --check reports whether it is current. Structure, types, defaults and
// descriptions are those of values.yaml. What a value may be, beyond its type, is in values.constraints.json: for each path
// the keywords of JSON Schema that are added, or that replace what is generated. A path that is not in values.yaml is a
// value that the chart knows, and needs a description there.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chart, endWith, here, values } from "./values.mjs";

const constraints = JSON.parse(readFileSync(join(here, "values.constraints.json"), "utf8"));

/** A scalar of YAML without quotation marks. */
function scalar(text) {
  if (text === "true" || text === "false") return text === "true";
  if (text === "null" || text === "") return null;
  if (/^-?\d+$/.test(text)) return Number(text);
  if (/^['"&*!|>%@`]|: | #/.test(text)) throw new Error(`this form of YAML is not read: ${text}`);
  return text;
}

/** Reads a value of YAML that is on one line. */
function parse(text) {
  let at = 0;
  const skip = () => { while (text[at] === " ") at += 1; };
  const until = (pattern) => {
    const length = text.slice(at).search(pattern);
    const found = length < 0 ? text.slice(at) : text.slice(at, at + length);
    at += found.length;
    return found.trim();
  };
  const quoted = () => {
    const found = /^"([^"\\]|\\.)*"/.exec(text.slice(at));
    if (!found) throw new Error(`a quotation mark is not closed: ${text}`);
    at += found[0].length;
    return JSON.parse(found[0]);
  };
  const inside = (close, one) => {
    at += 1;
    for (skip(); text[at] !== close; skip()) {
      if (at >= text.length) throw new Error(`${close} is missing: ${text}`);
      one();
      skip();
      if (text[at] === ",") at += 1;
    }
    at += 1;
  };
  const value = (end) => {
    skip();
    if (text[at] === '"') return quoted();
    if (text[at] === "[") {
      const list = [];
      inside("]", () => list.push(value(/[,\]]/)));
      return list;
    }
    if (text[at] === "{") {
      const map = {};
      inside("}", () => {
        const key = text[at] === '"' ? quoted() : until(/:/);
        at += 1;
        map[key] = value(/[,}]/);
      });
      return map;
    }
    return scalar(until(end));
  };
  const found = value(/$/);
  if (text.slice(at).trim() !== "") throw new Error(`this was not expected: ${text.slice(at)}`);
  return found;
}

/** The type of a default; none of null, which says nothing about other values. */
function typeOf(value) {
  if (value === null) return {};
  if (Array.isArray(value)) return { type: "array" };
  return { type: Number.isInteger(value) ? "integer" : typeof value };
}

/** The schema of a value without those below it. */
function schemaOf({ path, description, text }, isSection) {
  const own = constraints[path] ?? {};
  // without the sentence that leads to an example
  const prose = description.replace(/ ?[^.]*:$/, "");
  const schema = prose === "" ? {} : { description: prose };
  if (isSection) return { ...schema, type: "object", additionalProperties: false, ...own };
  const value = parse(text);
  return { ...schema, default: value, ...(own.enum ? {} : typeOf(value)), ...own };
}

const sections = new Map([["", { type: "object", additionalProperties: false, properties: {} }]]);
const known = new Set();
const problems = [];

/** Adds a schema to that of its section. A section whose constraints allow any name is a map: its defaults are kept. */
function add(path, name, schema, text) {
  const section = sections.get(path.includes(".") ? path.slice(0, path.lastIndexOf(".")) : "");
  known.add(path);
  if (!section) {
    problems.push(`values.constraints.json: ${path} is in no section of values.yaml`);
  } else if (section.additionalProperties === false) {
    section.properties ??= {};
    section.properties[name] = schema;
  } else {
    section.default = { ...section.default, [name]: parse(text) };
  }
}

const all = values();
for (const value of all) {
  const isSection = value.text === "";
  const schema = schemaOf(value, isSection);
  if (isSection) sections.set(value.path, schema);
  add(value.path, value.name, schema, value.text);
}
// what the chart knows and values.yaml does not name
for (const [path, schema] of Object.entries(constraints).filter(([path]) => !known.has(path))) {
  if (!schema.description) problems.push(`values.constraints.json: ${path} is not in values.yaml and not described`);
  add(path, path.split(".").at(-1), schema, "null");
}
endWith(problems);

/** JSON with as much on a line as fits. */
function print(value, indent) {
  const short = JSON.stringify(value, null, 1).replace(/([[{])\n\s*|\n\s*([\]}])/g, "$1$2").replace(/,\n\s*/g, ", ");
  if (typeof value !== "object" || value === null || indent.length + short.length <= 120) return short;
  const inner = `${indent}  `;
  const parts = Array.isArray(value) ? value.map((part) => print(part, inner))
    : Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${print(part, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${parts.map((part) => inner + part).join(",\n")}\n${indent}${close}`;
}

const file = join(chart, "values.schema.json");
const root = {
  $schema: "https://json-schema.org/draft-07/schema#",
  $comment: "Generated by `make generate` from values.yaml and charts/values.constraints.json.",
  ...sections.get(""),
};
const wanted = `${print(root, "")}\n`;
if (process.argv.includes("--check")) {
  const found = readFileSync(file, "utf8");
  if (found !== wanted) endWith(["charts/itwin-credential-operator/values.schema.json is stale: run `make generate`"]);
} else {
  writeFileSync(file, wanted);
}
