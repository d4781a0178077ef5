// Writes the table of values in the README of the chart from the comments in values.yaml, or with --check reports whether
// it is current. Each value must have a comment directly above it. The script uses no packages: values.yaml is simple
// enough (two spaces a level, lists and small maps on one line) to be read line by line.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const named = process.argv.indexOf("--chart");
const chart = named > 0 ? process.argv[named + 1]
  : join(dirname(fileURLToPath(import.meta.url)), "itwin-credential-operator");
const [begin, end] = ["<!-- values: begin -->", "<!-- values: end -->"];

const lines = readFileSync(join(chart, "values.yaml"), "utf8").split("\n");
const indentOf = (line) => line.length - line.trimStart().length;
const rows = [];
const problems = [];
let parents = [];
let comment = [];
for (let at = 0; at < lines.length; at += 1) {
  const line = lines[at];
  const text = line.trim();
  if (text.startsWith("#")) {
    comment.push(text.slice(1).replace(/^ /, ""));
    continue;
  }
  if (text === "") {
    comment = [];
    continue;
  }
  const key = /^([\w-]+):(.*)$/.exec(text);
  if (!key) {
    problems.push(`line ${at + 1} is neither a comment nor a value: ${text}`);
    continue;
  }
  const level = indentOf(line) / 2;
  parents = [...parents.slice(0, level), key[1]];
  const path = parents.join(".");
  const value = key[2].trim();
  const isSection = value === "";
  if (comment.length > 0) {
    // an example in the comment stays in values.yaml
    const prose = [];
    for (const part of comment) {
      if (/^ {2}/.test(part)) break;
      prose.push(part);
    }
    const description = prose.join(" ").replace(/:$/, " (see values.yaml).");
    rows.push(`| \`${path}\` | ${isSection ? "" : `\`${value}\``} | ${description.replaceAll("|", "\\|")} |`);
  } else if (!isSection) {
    problems.push(`line ${at + 1}: ${path} has no comment above it`);
  }
  comment = [];
}
if (problems.length > 0) {
  console.error(problems.map((problem) => `values.yaml: ${problem}`).join("\n"));
  process.exit(1);
}

const file = join(chart, "README.md");
const readme = readFileSync(file, "utf8");
const [from, to] = [readme.indexOf(begin), readme.indexOf(end)];
if (from < 0 || to < from) {
  console.error(`README.md lacks the lines ${begin} and ${end}`);
  process.exit(1);
}
const table = ["| value | default | meaning |", "|---|---|---|", ...rows].join("\n");
const wanted = `${readme.slice(0, from)}${begin}\n${table}\n${readme.slice(to)}`;
if (process.argv.includes("--check")) {
  if (wanted !== readme) {
    console.error("charts/itwin-credential-operator/README.md is stale: run `make generate`");
    process.exit(1);
  }
} else {
  writeFileSync(file, wanted);
}
