#!/usr/bin/env node
// Records the metrics of two replicas of the operator while an authorization server fails and comes back, for the
// replay of the alerts and for the picture of the dashboard. `make record-outage` runs it on the testbed. Arguments: the
// program of the operator, and the file whose recorded series are replaced.
//
// The operator reaches one authority through a forwarder of this script, which first answers nothing and then refuses
// connections. The other authority is reached directly and stays available.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { openSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";

const [, , program, file] = process.argv;
const testbed = JSON.parse(readFileSync(process.env.TESTBED, "utf8"));

// Seconds. The schedule starts with the first credential.
const INTERVAL = 15;
const SILENT = 7 * 60;
const REFUSING = 9 * 60;
const BACK = 14 * 60;
const END = 22 * 60;
// Between the creation of two credentials, so that their renewals are spread.
const GAP = 8;
const READY_WITHIN = 60;
// A scrape or a command must not hold up the next scrape.
const ANSWER_WITHIN = 5;

const NAMESPACES = ["team-a", "team-b", "team-c"];
const FAILING = "example-ims";
const OTHER = "example-partner";
const OPERATOR = "itwin-credential-operator";
// What alerts and dashboard use; tests/docs/metrics.rs compares them with what the operator exposes.
const RECORDED = /^(itwin_|process_(cpu_seconds_total|resident_memory_bytes|start_time_seconds))/;
// Times are recorded as seconds since the start.
const TIMES = /_timestamp_seconds$|^process_start_time_seconds$/;

const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, Math.max(0, seconds) * 1000));
const now = () => Date.now() / 1000;

async function kubectl(object) {
  const options = { stdio: ["pipe", "ignore", "inherit"], timeout: READY_WITHIN * 1000 };
  const child = spawn(testbed.kubectl, ["--kubeconfig", testbed.kubeconfig, "apply", "-f", "-"], options);
  child.stdin.end(JSON.stringify(object));
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`kubectl could not apply ${object.kind} ${object.metadata.name}`);
}

const resource = (kind, name, namespace, rest) =>
  kubectl({ apiVersion: kind === "Namespace" || kind === "Secret" ? "v1" : "credentials.itwin.dev/v1alpha1",
    kind, metadata: { name, namespace }, ...rest });

// Forwards connections to the authorization server as long as `state` is "up".
function forwarder(port) {
  const sockets = new Set();
  const forward = { state: "up", sockets };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => socket.destroy());
    if (forward.state === "up") {
      const target = connect(port, "127.0.0.1").on("error", () => socket.destroy());
      socket.on("close", () => target.destroy());
      target.on("close", () => socket.destroy());
      socket.pipe(target).pipe(socket);
    }
  });
  const cut = () => sockets.forEach((socket) => socket.destroy());
  const listen = (at) => new Promise((resolve) => server.listen(at, "127.0.0.1", resolve));
  return listen(0).then(() => {
    const { port: own } = server.address();
    return {
      port: own,
      silence: () => { forward.state = "silent"; cut(); },
      refuse: () => { cut(); server.close(); },
      restore: () => { forward.state = "up"; return listen(own); },
      stop: () => { cut(); server.close(); },
    };
  });
}

function replica(number) {
  const port = 20000 + ((process.pid * 2 + number) % 20000);
  const options = ["--log-level", "warn", "--leader-election=true", "--lease-namespace", OPERATOR];
  // where the testbed searches for secrets in the end
  const log = openSync(join(testbed.directory, `operator-${number}.log`), "w");
  const child = spawn(program, ["run", "--metrics-address", `127.0.0.1:${port}`, ...options], {
    env: { ...process.env, KUBECONFIG: testbed.operator_kubeconfig, NO_PROXY: "localhost,127.0.0.1" },
    stdio: ["ignore", log, log],
  });
  const get = (path) =>
    fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(ANSWER_WITHIN * 1000) });
  const labels = { instance: `10.0.0.${number + 4}:8080`, job: OPERATOR, pod: `${OPERATOR}-${number}` };
  return { child, get, labels };
}

async function ready({ child, get }) {
  for (const start = now(); now() < start + READY_WITHIN; await wait(0.5)) {
    if (child.exitCode !== null) break;
    if (await get("/readyz").then((response) => response.ok, () => false)) return;
  }
  throw new Error("a replica of the operator did not become ready");
}

// One client and one credential. A third of the tokens outlive the outage. Two client Secrets say when they expire.
async function create(number) {
  const namespace = NAMESPACES[number % NAMESPACES.length];
  const name = `agent-${String(number).padStart(2, "0")}`;
  const clientSecret = `${Math.random()}${Math.random()}`.replaceAll(".", "");
  const client = { client_id: `service-${name}`, client_secret: clientSecret, scope: "itwin-platform",
    authentication: "client_secret_post", lifetime: number % 3 === 2 ? 900 : 300 };
  const response = await fetch(`${testbed.authority.control}/clients`, {
    method: "PUT", body: JSON.stringify(client), signal: AbortSignal.timeout(ANSWER_WITHIN * 1000) });
  if (!response.ok) throw new Error(`the client ${name} was not registered: ${response.status}`);
  const days = { 3: 20, 7: 90 }[number];
  const expires = days && { expires_at: new Date(Date.now() + days * 86400e3).toISOString() };
  await resource("Secret", `${name}-client`, namespace,
    { stringData: { client_id: client.client_id, client_secret: clientSecret, ...expires } });
  await resource("ITwinServiceCredential", name, namespace, { spec: {
    authorityRef: { name: number % 5 === 4 ? OTHER : FAILING },
    clientCredentialsRef: { name: `${name}-client` }, secretName: `${name}-token` } });
}

function remember(series, text, labels, at, start) {
  for (const line of text.split("\n")) {
    const [, name, own, value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (!name || !RECORDED.test(name)) continue;
    // as with `honor_labels: true`
    const scraped = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
    const namespace = /(^|,)namespace="/.test(own ?? "") ? [] : [`namespace="${OPERATOR}"`];
    const key = `${name}{${[own, ...namespace, ...scraped].filter(Boolean).join(",")}}`;
    if (!series.has(key)) series.set(key, []);
    series.get(key)[at] = TIMES.test(name) ? Number(value) - start : Number(value);
  }
}

// The notation of promtool: `a+bxn` for n more samples at equal distances, `_` for none.
function notation(values, count) {
  const rounded = Array.from({ length: count }, (_, at) =>
    values[at] === undefined ? undefined : Number(values[at].toPrecision(7)));
  const parts = [];
  for (let at = 0; at < count;) {
    let end = at + 1;
    const step = rounded[end] - rounded[at];
    const goesOn = () => rounded[at] === undefined ? rounded[end] === undefined
      : Number.isInteger(step) && rounded[end] - rounded[end - 1] === step;
    while (end < count && goesOn()) end += 1;
    const more = end - at - 1;
    if (rounded[at] === undefined) {
      // Prometheus marks the end of a series of a target that it still scrapes
      parts.push(...(at > 0 ? ["stale", more && `_x${more}`] : [`_x${more + 1}`]).filter(Boolean));
    } else if (step === 0 && more > 0) parts.push(`${rounded[at]}x${more}`);
    else if (more > 1) parts.push(`${rounded[at]}${step < 0 ? "" : "+"}${step}x${more}`);
    else { parts.push(`${rounded[at]}`); end = at + 1; }
    at = end;
  }
  return parts.join(" ");
}

function write(series, count, start) {
  const marker = "    input_series:\n";
  const head = readFileSync(file, "utf8").split(marker)[0];
  const at = new Date(start * 1000).toISOString();
  const lines = [...series].sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, values]) => `      - {series: '${key}', values: '${notation(values, count)}'}\n`);
  writeFileSync(file, `${head}${marker}      # recorded by make record-outage, from ${at}\n${lines.join("")}`);
  console.log(`${series.size} series with ${count} samples are in ${file}`);
}

async function record(replicas, forward) {
  const series = new Map();
  const start = now();
  const steps = Array.from({ length: 20 }, (_, number) => [number * GAP, () => create(number)]);
  steps.push([SILENT, () => forward.silence()], [REFUSING, () => forward.refuse()], [BACK, () => forward.restore()]);
  const scrapes = END / INTERVAL + 1;
  for (let at = 0; at < scrapes; at += 1) {
    await wait(start + at * INTERVAL - now());
    for (const { get, labels } of replicas) {
      const text = await get("/metrics").then((response) => response.text(), () => "");
      remember(series, text, labels, at, start);
    }
    // what is due before the next scrape
    while (steps.length && steps[0][0] < (at + 1) * INTERVAL) {
      const [due, act] = steps.shift();
      await wait(start + due - now());
      await act();
    }
  }
  write(series, scrapes, start);
}

const port = new URL(testbed.authority.issuer).port;
const forward = await forwarder(port);
const replicas = [replica(0), replica(1)];
try {
  for (const each of replicas) await ready(each);
  for (const namespace of NAMESPACES) await resource("Namespace", namespace);
  const caBundle = Buffer.from(testbed.authority.ca).toString("base64");
  const through = `https://localhost:${forward.port}`;
  await resource("ITwinAuthority", OTHER, undefined, { spec: { issuer: testbed.authority.issuer, caBundle } });
  await resource("ITwinAuthority", FAILING, undefined, { spec: { issuer: testbed.authority.issuer, caBundle,
    tokenEndpoint: `${through}/connect/token`, jwksUri: `${through}/.well-known/openid-configuration/jwks` } });
  await record(replicas, forward);
} finally {
  forward.stop();
  for (const { child } of replicas) child.kill("SIGTERM");
}
