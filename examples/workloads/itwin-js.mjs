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
    return `Bearer ${(await readFile(this.file, "ascii")).trim()}`;
  }
}

const tokens = new TokenFile(process.env.ITWIN_ACCESS_TOKEN_FILE);

/** @type {AuthorizationCallback} The client of the iModels API calls it for each request. */
const authorization = async () => {
  const [scheme, token] = (await tokens.getAccessToken()).split(" ");
  return { scheme, token };
};

const baseUrl = process.env.ITWIN_URL ?? "https://api.bentley.com/imodels";
// with a storage for each cloud, the client transfers files too
const client = new IModelsClient({ api: { baseUrl }, cloudStorage: new StrategyClientStorage([]) });
if (!process.env.ITWIN_ID) throw new Error("Set ITWIN_ID to the iTwin whose iModels to list.");
const urlParams = { iTwinId: process.env.ITWIN_ID };

for (;;) {
  try {
    for await (const { id, displayName } of client.iModels.getMinimalList({ authorization, urlParams })) {
      console.log(id, displayName);
    }
  } catch (error) {
    console.error(`The call failed: ${error instanceof Error ? error.message : error}`);
  }
  await sleep(Number(process.env.INTERVAL_SECONDS ?? 60) * 1000);
}
