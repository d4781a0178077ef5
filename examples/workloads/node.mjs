// Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes
// before the token expires.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** Has the method `getAccessToken` of an AuthorizationClient of iTwin.js. */
export class TokenFile {
  constructor(file = "/var/run/secrets/itwin/access_token") {
    this.file = file;
  }

  async getAccessToken() {
    return `Bearer ${(await readFile(this.file, "ascii")).trim()}`;
  }
}

const tokens = new TokenFile(process.env.ITWIN_ACCESS_TOKEN_FILE);
const url = process.env.ITWIN_URL ?? "https://api.bentley.com/itwins/";

async function call() {
  const headers = {
    Accept: "application/vnd.bentley.itwin-platform.v1+json",
    Authorization: await tokens.getAccessToken(),
  };
  const response = await fetch(url, { headers, signal: AbortSignal.timeout(30_000) });
  if (!response.ok) {
    throw new Error(`status ${response.status}`);
  }
  return response.text();
}

/** What went wrong, without the token: `fetch` names no cause if a header is not valid, and repeats its value. */
function reason(error) {
  return error instanceof TypeError && !error.cause ? "the token is no valid header value" : error.message;
}

for (;;) {
  await call().catch((error) => console.error(`The call failed: ${reason(error)}`));
  await sleep(Number(process.env.INTERVAL_SECONDS ?? 60) * 1000);
}
