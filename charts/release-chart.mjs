// Turns a copy of the chart into that of a release: the image of the release in its values and in the annotation of
// Artifact Hub. Usage: node charts/release-chart.mjs FOLDER REPOSITORY VERSION DIGEST "ARCH ..."
// Nothing is guessed: a line that is not where it is expected is an error.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [folder, repository, version, digest, archs] = process.argv.slice(2);
if (!/^sha256:[0-9a-f]{64}$/.test(digest ?? "") || !archs) {
  console.error('usage: release-chart.mjs FOLDER REPOSITORY VERSION DIGEST "ARCH ..."');
  process.exit(1);
}

/** Replaces exactly one place of a file. */
function replace(file, place, text) {
  const path = join(folder, file);
  const before = readFileSync(path, "utf8");
  const found = before.match(new RegExp(place, "gm")) ?? [];
  if (found.length !== 1) {
    console.error(`${path}: ${found.length} places match ${place}, not one`);
    process.exit(1);
  }
  writeFileSync(path, before.replace(new RegExp(place, "m"), () => text));
}

replace("values.yaml", "^  repository: set-image-repository\\.invalid/.*$", `  repository: ${repository}`);
replace("values.yaml", '^  digest: ""$', `  digest: ${digest}`);
const platforms = archs.split(" ").map((arch) => `        - linux/${arch}`);
const images = ["    - name: itwin-credential-operator", `      image: ${repository}:${version}@${digest}`,
  "      platforms:", ...platforms];
replace("Chart.yaml", "^    - name: itwin-credential-operator\\n      image: .*(\\n      platforms:(\\n        - .*)+)?$",
  images.join("\n"));
