// Reads values.yaml of the chart, with the comment above each value, for the scripts that describe the values. It uses no
// packages: values.yaml is simple enough (two spaces a level, lists and small maps on one line) to be read line by line.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const named = process.argv.indexOf("--chart");

/** The folder of this script. */
export const here = dirname(fileURLToPath(import.meta.url));
/** The folder of the chart: the one after --chart, or that of the work tree. */
export const chart = named > 0 ? process.argv[named + 1] : join(here, "itwin-credential-operator");

/** Reports problems and ends the process, if there are any. */
export function endWith(problems) {
  if (problems.length === 0) return;
  console.error(problems.join("\n"));
  process.exit(1);
}

/** The first sentences of a comment, without its example, which is indented. */
function prose(comment) {
  const example = comment.findIndex((line) => line.startsWith("  "));
  return (example < 0 ? comment : comment.slice(0, example)).join(" ");
}

/** The values in the order of the file: name, path, the text of the default (none of a section), and the comment. */
export function values() {
  const found = [];
  const problems = [];
  let parents = [];
  let comment = [];
  readFileSync(join(chart, "values.yaml"), "utf8").split("\n").forEach((line, at) => {
    const text = line.trim();
    if (text.startsWith("#")) {
      comment.push(text.slice(1).replace(/^ /, ""));
      return;
    }
    const key = /^([\w-]+):(.*)$/.exec(text);
    if (text !== "" && !key) problems.push(`values.yaml: line ${at + 1} is neither a comment nor a value: ${text}`);
    if (key) {
      parents = [...parents.slice(0, (line.length - line.trimStart().length) / 2), key[1]];
      const value = { name: key[1], path: parents.join("."), text: key[2].trim(), description: prose(comment) };
      const isDescribed = comment.length > 0 || value.text === "";
      if (!isDescribed) problems.push(`values.yaml: line ${at + 1}: ${value.path} has no comment above it`);
      found.push(value);
    }
    comment = [];
  });
  endWith(problems);
  return found;
}
