// A real authorization server (oidc-provider), shaped like Bentley IMS: its paths, its array `scope` claim, its
// lifetimes. A second socket, which only listens on loopback, registers clients at run time, so that
// each test has its own clients; the same socket reports the token requests that came.
//
// Arguments: one JSON object {port, controlPort, host, certificate, key}; certificate and key are file names.
import { createServer as createControl } from 'node:http';
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { exportJWK, generateKeyPair } from 'jose';
import Provider, { errors } from 'oidc-provider';

const options = JSON.parse(process.argv[2]);
const issuer = `https://${options.host}:${options.port}`;
const AUDIENCE = 'https://api.example.com';
const SCOPES = ['itwin-platform', 'imodels:read', 'imodels:modify', 'extra:scope'];
const DEFAULT_LIFETIME = 3600;

const clients = new Map();
const lifetimes = new Map();
const users = new Map();
const requests = [];
const secrets = new Set();

class Adapter {
  static stores = new Map();

  constructor(model) {
    this.model = model;
    if (!Adapter.stores.has(model)) Adapter.stores.set(model, new Map());
    this.store = Adapter.stores.get(model);
  }

  async find(id) {
    return this.model === 'Client' ? clients.get(id) : this.store.get(id);
  }

  async upsert(id, payload) {
    this.store.set(id, payload);
  }

  async destroy(id) {
    this.store.delete(id);
  }

  async consume(id) {
    const found = this.store.get(id);
    if (found) found.consumed = Math.floor(Date.now() / 1000);
  }

  async findByUid() {}
  async findByUserCode() {}
  async revokeByGrantId() {}
}

async function signingKey(kid) {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  return { ...(await exportJWK(privateKey)), use: 'sig', alg: 'RS256', kid };
}

const resourceServer = (resource, client) => ({
  scope: SCOPES.join(' '),
  audience: resource,
  accessTokenFormat: 'jwt',
  accessTokenTTL: lifetimes.get(client.clientId) ?? DEFAULT_LIFETIME,
  jwt: { sign: { alg: 'RS256' } },
});

const provider = new Provider(issuer, {
  adapter: Adapter,
  scopes: SCOPES,
  jwks: { keys: [await signingKey('testbed-1')] },
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  responseTypes: [],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => AUDIENCE,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource, client) => resourceServer(resource, client),
    },
  },
  routes: {
    token: '/connect/token',
    jwks: '/.well-known/openid-configuration/jwks',
    introspection: '/connect/introspect',
    revocation: '/connect/revocation',
  },
  formats: {
    customizers: {
      // IMS writes an array where RFC 9068 has a string
      jwt: (ctx, token, jwt) => {
        jwt.payload.scope = jwt.payload.scope?.split(' ') ?? [];
      },
    },
  },
});

// RFC 6749 section 4.3, which the server does not implement itself
provider.registerGrantType(
  'password',
  async (ctx) => {
    const { client, params } = ctx.oidc;
    if (!users.has(params.username) || users.get(params.username) !== params.password) {
      throw new errors.InvalidGrant('wrong user name or password');
    }
    const token = new provider.ClientCredentials({ client, scope: params.scope });
    token.resourceServer = new provider.ResourceServer(AUDIENCE, resourceServer(AUDIENCE, client));
    ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer', scope: token.scope };
  },
  ['username', 'password', 'scope'],
);

provider.use(async (ctx, next) => {
  const at = Date.now();
  await next();
  if (ctx.path !== '/connect/token') return;
  // the signature alone: the rest of a token is public
  if (ctx.body?.access_token) secrets.add(ctx.body.access_token.split('.').pop());
  const body = ctx.oidc?.body ?? {};
  requests.push({
    at,
    clientId: ctx.oidc?.client?.clientId ?? body.client_id ?? null,
    authentication: ctx.headers.authorization?.startsWith('Basic ') ? 'basic' : body.client_secret ? 'post' : 'other',
    grantType: body.grant_type ?? null,
    scope: body.scope ?? null,
    resource: body.resource ?? null,
    status: ctx.status,
    error: ctx.body?.error ?? null,
  });
});

async function control(request, body) {
  const url = new URL(request.url, 'http://localhost');
  if (request.method === 'PUT' && url.pathname === '/clients') {
    const { lifetime, scope, authentication, user, ...rest } = body;
    if (user) users.set(user.name, user.password);
    for (const secret of [body.client_secret, user?.password]) if (secret) secrets.add(secret);
    clients.set(body.client_id, {
      grant_types: [user ? 'password' : 'client_credentials'],
      response_types: [],
      redirect_uris: [],
      scope: scope ?? 'itwin-platform',
      token_endpoint_auth_method: authentication ?? 'client_secret_post',
      ...rest,
    });
    if (lifetime) lifetimes.set(body.client_id, lifetime);
    return {};
  }
  if (request.method === 'GET' && url.pathname === '/requests') {
    const clientId = url.searchParams.get('client_id');
    return requests.filter((entry) => clientId === null || entry.clientId === clientId);
  }
  if (request.method === 'GET' && url.pathname === '/secrets') return [...secrets];
  return undefined;
}

createControl(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const answer = await control(request, chunks.length ? JSON.parse(Buffer.concat(chunks)) : undefined);
  response.statusCode = answer === undefined ? 404 : 200;
  response.end(JSON.stringify(answer ?? {}));
}).listen(options.controlPort, '127.0.0.1');

createServer({ cert: readFileSync(options.certificate), key: readFileSync(options.key) }, provider.callback()).listen(
  options.port,
  options.host === 'localhost' ? '127.0.0.1' : options.host,
  () => console.log(`listening ${issuer}`),
);
