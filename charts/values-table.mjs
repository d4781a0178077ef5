// Writes the table of values in the README of the chart from the comments in values.yaml, or with --check reports whether
// it is current. Each value must have a comment directly above it.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chart, endWith, values } from "./values.mjs";

const [begin, end] = ["<!-- values: begin -->", "<!-- values: end -->"];

const rows = values().filter((value) => value.description !== "").map(({ path, text, description }) => {
  // an example in the comment stays in values.yaml
  const meaning = description.replace(/:$/, " (see values.yaml).").replaceAll("|", "\\|");
  return `| \`${path}\` | ${text === "" ? "" : `\`${text}\``} | ${meaning} |`;
});

const file = join(chart, "README.md");
const readme = readFileSync(file, "utf8");
const [from, to] = [readme.indexOf(begin), readme.indexOf(end)];
if (from < 0 || to < from) endWith([`README.md lacks the lines ${begin} and ${end}`]);
const table = ["| value | default | meaning |", "|---|---|---|", ...rows].join("\n");
const wanted = `${readme.slice(0, from)}${begin}\n${table}\n${readme.slice(to)}`;
if (process.argv.includes("--check")) {
  if (wanted !== readme) endWith(["charts/itwin-credential-operator/README.md is stale: run `make generate`"]);
} else {
  writeFileSync(file, wanted);
}
