// Draws a dashboard of Grafana with recorded series: a Prometheus with the series answers the queries of the panels,
// the components of Grafana draw the panels in a page, and Chromium takes a picture of it. scripts/dashboard-screenshot
// calls this script in the folder of its packages. Arguments: the dashboard, the file with the series, the second of
// the recording that is "now", and the file of the picture.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { build } from "esbuild";

const [, , dashboardFile, seriesFile, second, picture] = process.argv;
const { PROMETHEUS, PROMTOOL, CHROMIUM } = process.env;
const dashboard = JSON.parse(readFileSync(dashboardFile, "utf8"));
const recorded = readFileSync(seriesFile, "utf8");

const WIDTH = 1600;
// Rows of the grid of Grafana: 30 pixels, and 8 between them.
const ROW = 38;
// What Grafana assumes of a data source whose settings name no other interval.
const INTERVAL = 15;
const READY_WITHIN = 60_000;
const PICTURE_WITHIN = 120_000;
// Recorded times are seconds since the start. The day is an arbitrary one.
const START = Date.UTC(2026, 0, 5, 10) / 1000;
const FROM = START;
const TO = START + Number(second);
const TIMES = /_timestamp_seconds$|^process_start_time_seconds$/;

// The samples of a series in the notation of promtool, as scripts/record-outage.mjs writes it.
function samples(notation) {
  return notation.split(" ").flatMap((part) => {
    const [, gap, first, step, more] = /^(?:(_|stale)|(-?[\d.]+(?:e[+-]?\d+)?)([+-]\d+)?)(?:x(\d+))?$/.exec(part);
    if (gap) return Array(Number(more ?? 1)).fill(undefined);
    return Array.from({ length: Number(more ?? 0) + 1 }, (_, at) => Number(first) + at * Number(step ?? 0));
  });
}

function openMetrics() {
  const interval = Number(/interval: (\d+)s/.exec(recorded)[1]);
  const lines = [];
  for (const [, series, notation] of recorded.matchAll(/\{series: '(.*)', values: '(.*)'\}/g)) {
    const base = TIMES.test(series.split("{")[0]) ? START : 0;
    samples(notation).forEach((value, at) => {
      if (value !== undefined) lines.push(`${series} ${value + base} ${START + at * interval}`);
    });
  }
  return `${lines.join("\n")}\n# EOF\n`;
}

async function ready(url) {
  for (const start = Date.now(); Date.now() < start + READY_WITHIN;) {
    if (await fetch(url).then((response) => response.ok, () => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error("Prometheus did not become ready");
}

async function query(address, path, parameters) {
  const url = `${address}/api/v1/${path}?${new URLSearchParams(parameters)}`;
  const answer = await (await fetch(url, { signal: AbortSignal.timeout(READY_WITHIN) })).json();
  if (answer.status !== "success") throw new Error(`${parameters.query}: ${answer.error}`);
  return answer.data.result;
}

const name = (legend, labels) => legend?.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? "").trim();

// One frame for each series, as Grafana makes them; a table has one frame.
function frames(target, result) {
  if (target.format === "table") {
    const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
    const column = (label) => result.map(({ metric }) => metric[label]);
    const fields = labels.map((label) => ({ name: label, type: "string", values: column(label) }));
    const times = { name: "Time", type: "time", values: result.map(({ value }) => value[0] * 1000) };
    const values = { name: "Value", type: "number", values: result.map(({ value }) => Number(value[1])) };
    return [{ refId: target.refId, fields: [times, ...fields, values] }];
  }
  return result.map(({ metric, value, values = [value] }) => ({ refId: target.refId, fields: [
    { name: "Time", type: "time", values: values.map(([at]) => at * 1000) },
    { name: "Value", type: "number", labels: metric, values: values.map(([, number]) => Number(number)),
      config: { displayNameFromDS: name(target.legendFormat, metric) || undefined } },
  ] }));
}

async function answers(address) {
  const found = {};
  for (const panel of dashboard.panels) {
    const step = Math.max(INTERVAL, Math.ceil((TO - FROM) / ((panel.gridPos.w / 24) * WIDTH)));
    found[panel.id] = [];
    for (const target of panel.targets ?? []) {
      const expression = target.expr.replaceAll("$__rate_interval", `${Math.max(step + INTERVAL, 4 * INTERVAL)}s`)
        .replaceAll(/\$(namespace|authority)\b/g, ".*");
      const result = target.instant ? await query(address, "query", { query: expression, time: TO })
        : await query(address, "query_range", { query: expression, start: FROM, end: TO, step });
      if (!result.length) console.log(`no data: ${panel.title}: ${target.expr}`);
      found[panel.id].push(...frames(target, result));
    }
  }
  return found;
}

async function page(folder, data) {
  const entry = join(folder, "page.js");
  await build({ entryPoints: ["page.jsx"], bundle: true, outfile: entry, jsx: "automatic", minify: true,
    logLevel: "error", define: { "process.env.NODE_ENV": '"production"' }, loader: { ".svg": "dataurl", ".ttf": "dataurl" } });
  writeFileSync(join(folder, "data.js"), `window.dashboard = ${JSON.stringify(data)}`);
  const icons = `file://${join(process.cwd(), "node_modules/@grafana/ui/dist/public/")}`;
  writeFileSync(join(folder, "index.html"), `<!doctype html><meta charset="utf-8">
    <link rel="stylesheet" href="page.css"><body><div id="root"></div><script>window.__grafana_public_path__ = "${icons}"</script>
    <script src="data.js"></script><script src="page.js"></script></body>`);
}

function chromium(folder, height) {
  const options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--allow-file-access-from-files",
    `--user-data-dir=${join(folder, "profile")}`, `--window-size=${WIDTH},${height}`, "--virtual-time-budget=20000",
    `--screenshot=${picture}`, "--enable-logging=stderr"];
  const { status, stderr } = spawnSync(CHROMIUM, [...options, join(folder, "index.html")],
    { timeout: PICTURE_WITHIN, encoding: "utf8" });
  const errors = stderr.split("\n").filter((line) => line.includes("Uncaught"));
  if (status !== 0 || errors.length) throw new Error(`Chromium ended with ${status}\n${errors.join("\n") || stderr}`);
}

const folder = mkdtempSync(join(tmpdir(), "dashboard-"));
const port = 40000 + (process.pid % 10000);
const address = `http://127.0.0.1:${port}`;
let prometheus;
try {
  writeFileSync(join(folder, "series"), openMetrics());
  writeFileSync(join(folder, "prometheus.yml"), "");
  execFileSync(PROMTOOL, ["tsdb", "create-blocks-from", "openmetrics", join(folder, "series"), join(folder, "data")],
    { stdio: ["ignore", "ignore", "inherit"] });
  prometheus = spawn(PROMETHEUS, ["--config.file", join(folder, "prometheus.yml"), "--log.level", "warn",
    "--storage.tsdb.path", join(folder, "data"), "--storage.tsdb.retention.time", "100y",
    "--web.listen-address", `127.0.0.1:${port}`], { stdio: ["ignore", "inherit", "inherit"] });
  await ready(`${address}/-/ready`);
  const rows = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const data = { panels: dashboard.panels, frames: await answers(address), from: FROM, to: TO, width: WIDTH };
  await page(folder, data);
  mkdirSync(dirname(picture), { recursive: true });
  chromium(folder, rows * ROW + 16);
} finally {
  if (prometheus?.kill()) await once(prometheus, "exit");
  if (!process.env.KEEP) rmSync(folder, { recursive: true, force: true });
  else console.log(folder);
}
