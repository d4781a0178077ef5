// Lists the iModels of an iTwin again and again, with the clients of iTwin.js. Each request reads the token, because
// the file changes before the token expires. It needs the packages @itwin/imodels-client-authoring and
// @itwin/object-storage-core.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { IModelsClient } from "@itwin/imodels-client-authoring";
import { StrategyClientStorage } from "@itwin/object-storage-core";

/** @typedef {import("@itwin/core-common").AuthorizationClient} AuthorizationClient */
/** @typedef {import("@itwin/imodels-client-management").AuthorizationCallback} AuthorizationCallback */

/**
 * What `IModelHost.authorizationClient` of iTwin.js takes.
 * @implements {AuthorizationClient}
 */
export class TokenFile {
  constructor(file = "/var/run/secrets/itwin/access_token") {
    this.file = file;
  }

  async getAccessToken() {
    return `Bearer ${await readFile(this.file, "ascii")}`;
  }
}

const tokens = new TokenFile(process.env.ITWIN_ACCESS_TOKEN_FILE);

/**
 * What the client of the iModels API calls for each request.
 * @type {AuthorizationCallback}
 */
const authorization = async () => {
  const [scheme, token] = (await tokens.getAccessToken()).split(" ");
  return { scheme, token };
};

const client = new IModelsClient({
  api: { baseUrl: process.env.ITWIN_URL ?? "https://api.bentley.com/imodels" },
  // with a storage for each cloud, the client transfers files too
  cloudStorage: new StrategyClientStorage([]),
});
const urlParams = { iTwinId: process.env.ITWIN_ID ?? "" };

async function list() {
  for await (const { id, displayName } of client.iModels.getMinimalList({ authorization, urlParams })) {
    console.log(id, displayName);
  }
}

for (;;) {
  await list().catch((error) => console.error(`The call failed: ${error.message}`));
  await sleep(Number(process.env.INTERVAL_SECONDS ?? 60) * 1000);
}
