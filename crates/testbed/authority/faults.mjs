// A faulty authority, for faults that a real server cannot cause. A second socket, which
// only listens on loopback, configures at run time what it does to a client's token requests.
//
// Arguments: one JSON object {port, controlPort, certificate, key, tls: [{port, certificate, key, tls, serves}], blackHolePort,
// plainHttpPort, closingPort}; certificates and keys are file names, `tls` options of tls.createServer.
import { createServer as createHttp } from 'node:http';
import { createServer } from 'node:https';
import { createServer as createTcp } from 'node:net';
import { readFileSync } from 'node:fs';
import { X509Certificate, createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { SignJWT, decodeProtectedHeader, exportJWK, exportSPKI, generateKeyPair, jwtVerify } from 'jose';

const options = JSON.parse(process.argv[2]);
const issuer = `https://localhost:${options.port}`;
const AUDIENCE = 'https://api.example.com';

const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true });
const stranger = await generateKeyPair('RS256');
const rotated = await generateKeyPair('RS256');
const publish = async (key, kid, alg = 'RS256') => ({ ...(await exportJWK(key)), use: 'sig', alg, kid });
const keys = [await publish(publicKey, 'first')];
const publicPem = await exportSPKI(publicKey);

// A key for each algorithm, by its name.
const ALGORITHMS = ['RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA', 'ES512'];
const pairs = new Map();
for (const alg of ALGORITHMS) pairs.set(alg, await generateKeyPair(alg));
const strangers = [];
for (let kid = 0; kid < 99; kid += 1) {
  strangers.push(await publish((await generateKeyPair('ES256')).publicKey, `${kid}`, 'ES256'));
}
// Whether the key of kid `first` was replaced by another one of the same kid.
let isReplaced = false;

// The key sets that a query chooses.
const KEY_SETS = {
  algorithms: async () =>
    Promise.all([...pairs].map(async ([alg, pair]) => ({ ...(await exportJWK(pair.publicKey)), use: 'sig', alg, kid: alg }))),
  // 100 keys and about 200 KB, as servers publish that add their certificates; the last one signs
  many: async () => [...strangers.map((key) => ({ ...key, x5c: ['A'.repeat(2000)] })), keys[0]],
  // numbers as BigInteger.toByteArray writes them
  zeros: async () => [{ ...keys[0], n: afterZero(keys[0].n), e: afterZero(keys[0].e) }],
  // with padding, and the characters + and /
  padded: async () => [{ ...keys[0], n: padded(keys[0].n), e: padded(keys[0].e) }],
  withoutKid: async () => [...strangers.slice(0, 40), keys[0]].map((key) => without(key, 'kid')),
  sameKid: async () => [await publish(rotated.publicKey, 'first'), keys[0]],
  replaced: async () => [isReplaced ? await publish(rotated.publicKey, 'first') : keys[0]],
};

const afterZero = (number) => Buffer.concat([Buffer.alloc(1), Buffer.from(number, 'base64url')]).toString('base64url');

const padded = (number) => Buffer.from(number, 'base64url').toString('base64');

const behaviours = new Map();
const requests = [];
const secrets = new Set();
// The first token of each client whose server returns one again and again.
const repeated = new Map();
const keySetRequests = {};
let redirected = 0;

const now = () => Math.floor(Date.now() / 1000);
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

async function jwt(claims, { key = privateKey, kid = 'first', alg = 'RS256' } = {}) {
  const token = await new SignJWT(claims).setProtectedHeader({ alg, kid, typ: 'at+jwt' }).sign(key);
  secrets.add(token.split('.').pop());
  return token;
}

function claimsFor(clientId, scope, lifetime, audience) {
  return {
    iss: issuer,
    aud: audience,
    sub: clientId,
    client_id: clientId,
    iat: now(),
    exp: now() + lifetime,
    jti: Math.random().toString(36),
    scope: scope.split(' '),
  };
}

function json(response, status, body, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
}

const without = (object, field) => Object.fromEntries(Object.entries(object).filter(([key]) => key !== field));

// Each behaviour gets the form of the request and the response of a good server.
const BEHAVIOURS = {
  good: async (response, { answer }) => json(response, 200, answer),
  slowGood: async (response, { answer, value }) => setTimeout(() => json(response, 200, answer), value),
  // the server controls the description: it tries to make the operator show the client's secret
  oauthError: async (response, { form, value }) =>
    json(response, value.status, { error: value.error, error_description: `ATTACKER ${form.get('client_secret')}` }),
  status: async (response, { value }) => json(response, value.status, value.body ?? 'ATTACKER', value.headers),
  rateLimitedUntil: async (response, { value }) =>
    json(response, 429, {}, { 'retry-after': new Date(Date.now() + value).toUTCString() }),
  slowHeader: async () => {},
  slowBody: async (response, { value }) => {
    response.writeHead(value ?? 200, { 'content-type': 'application/json' });
    response.write('{"access_token":"');
    const timer = setInterval(() => response.write('a'), 500);
    response.on('close', () => clearInterval(timer));
  },
  lateError: async (response, { value }) => {
    response.writeHead(value.status, { 'content-type': 'application/json' });
    response.flushHeaders();
    setTimeout(() => response.end(JSON.stringify({ error: value.error })), value.after);
  },
  endlessBody: async (response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    const more = () => {
      while (!response.destroyed && response.write(' '.repeat(16384)));
    };
    response.on('drain', more);
    more();
  },
  gzipBomb: async (response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' });
    response.end(gzipSync(Buffer.alloc(10_000_000)));
  },
  truncatedJson: async (response, { answer }) => json(response, 200, JSON.stringify(answer).slice(0, -20)),
  resetMidBody: async (response, { value }) => {
    response.writeHead(value ?? 200, { 'content-type': 'application/json', 'content-length': '1000' });
    response.write('{"access_token":"');
    setTimeout(() => response.destroy(), 50);
  },
  deepNesting: async (response) => json(response, 200, `{"access_token":${'['.repeat(20_000)}${']'.repeat(20_000)}}`),
  duplicateKeys: async (response, { answer }) =>
    json(response, 200, `{"access_token":"first",${JSON.stringify(answer).slice(1)}`),
  byteOrderMark: async (response, { answer }) => json(response, 200, `\ufeff${JSON.stringify(answer)}`),
  html: async (response) => json(response, 200, '<html>ATTACKER</html>', { 'content-type': 'text/html' }),
  wrongContentType: async (response, { answer }) => json(response, 200, answer, { 'content-type': 'text/plain' }),
  trailingGarbage: async (response, { answer }) => json(response, 200, `${JSON.stringify(answer)}ATTACKER`),
  // the lifetime counts from now on each time
  sameToken: async (response, { form, answer, value }) => {
    const clientId = form.get('client_id');
    if (!repeated.has(clientId)) repeated.set(clientId, answer.access_token);
    json(response, 200, { ...answer, ...value, access_token: repeated.get(clientId) });
  },
  assertionDemanded: async (response, { form, answer, value }) => {
    const wrong = await wrongAssertion(form, value);
    if (wrong === undefined) return json(response, 200, answer);
    console.log(`${form.get('client_id')}: ${wrong}`);
    json(response, 401, { error: 'invalid_client' });
  },
  answer: async (response, { answer, value }) => json(response, 200, { ...answer, ...value }),
  goodWithStatus: async (response, { answer, value }) => json(response, value, answer),
  answerWithout: async (response, { answer, value }) => json(response, 200, without(answer, value)),
  claims: async (response, { answer, claims, value }) =>
    json(response, 200, { ...answer, access_token: await jwt({ ...claims, ...value }) }),
  claimsAlone: async (response, { claims, value }) =>
    json(response, 200, { access_token: await jwt({ ...claims, ...value }), token_type: 'Bearer' }),
  signedWith: async (response, { answer, claims, value }) =>
    json(response, 200, {
      ...answer,
      access_token: await jwt(claims, { key: pairs.get(value).privateKey, kid: value, alg: value }),
    }),
  withoutKid: async (response, { answer, claims }) =>
    json(response, 200, { ...answer, access_token: await jwt(claims, { kid: undefined }) }),
  kidAsNumber: async (response, { answer, claims }) =>
    json(response, 200, { ...answer, access_token: await jwt(claims, { kid: 1 }) }),
  replacedKey: async (response, { answer, claims }) => {
    isReplaced = true;
    json(response, 200, { ...answer, access_token: await jwt(claims, { key: rotated.privateKey }) });
  },
  criticalExtension: async (response, { answer, claims }) => {
    const header = { alg: 'RS256', kid: 'first', crit: ['urn:x'], 'urn:x': true };
    const token = await new SignJWT(claims).setProtectedHeader(header).sign(privateKey, { crit: { 'urn:x': true } });
    json(response, 200, { ...answer, access_token: token });
  },
  // what the operator would show holds the client's secret, or the token
  secretInScope: async (response, { form, answer, claims }) => {
    const scope = `${answer.scope} ${form.get('client_secret')}`;
    json(response, 200, { ...answer, scope, access_token: await jwt({ ...claims, scope }) });
  },
  tokenInScope: async (response, { answer, claims }) => {
    const token = await jwt(without(claims, 'scope'));
    json(response, 200, { ...answer, access_token: token, scope: `${answer.scope} ${token}` });
  },
  claimsShifted: async (response, { answer, claims, value }) =>
    json(response, 200, {
      ...answer,
      access_token: await jwt({ ...claims, iat: claims.iat + value, nbf: claims.iat + value, exp: claims.exp + value }),
    }),
  claimsWithout: async (response, { answer, claims, value }) =>
    json(response, 200, { ...answer, access_token: await jwt(without(claims, value)) }),
  expiresInPast: async (response, { answer, claims }) =>
    json(response, 200, { ...answer, access_token: await jwt({ ...claims, exp: now() - 3600 }) }),
  signedByStranger: async (response, { answer, claims }) =>
    json(response, 200, { ...answer, access_token: await jwt(claims, { key: stranger.privateKey }) }),
  unknownKid: async (response, { answer, claims }) =>
    json(response, 200, { ...answer, access_token: await jwt(claims, { key: stranger.privateKey, kid: 'unheard-of' }) }),
  rotatedKey: async (response, { answer, claims }) => {
    if (!keys.some((key) => key.kid === 'second')) keys.push(await publish(rotated.publicKey, 'second'));
    json(response, 200, { ...answer, access_token: await jwt(claims, { key: rotated.privateKey, kid: 'second' }) });
  },
  algorithmNone: async (response, { answer, claims }) =>
    json(response, 200, { ...answer, access_token: `${encode({ alg: 'none', kid: 'first' })}.${encode(claims)}.` }),
  hmacWithPublicKey: async (response, { answer, claims }) =>
    json(response, 200, {
      ...answer,
      access_token: await jwt(claims, { key: new TextEncoder().encode(publicPem), alg: 'HS256' }),
    }),
  redirect: async (response, { value }) => {
    response.writeHead(value, { location: `${issuer}/elsewhere` });
    response.end();
  },
  // an answer as it is written, such as one that is not HTTP
  raw: async (response, { value }) => response.socket.end(value),
  closeAfterAnswer: async (response, { answer }) => {
    json(response, 200, answer);
    // the header promised to keep the connection, as a server that restarts does
    response.on('finish', () => setTimeout(() => response.socket?.destroy(), 20));
  },
};

// What is wrong with the assertion of a client that has the key of this certificate, whose thumbprints its header may have to
// name.
async function wrongAssertion(form, { certificate, thumbprints, audience, algorithm, header }) {
  const assertion = form.get('client_assertion');
  if (!assertion || form.get('client_secret')) return 'no assertion, or a secret';
  const expected = { alg: algorithm, ...header };
  const { raw, publicKey } = new X509Certificate(certificate);
  if (thumbprints) {
    expected.x5t = createHash('sha1').update(raw).digest('base64url');
    expected['x5t#S256'] = createHash('sha256').update(raw).digest('base64url');
  }
  const { typ, ...found } = decodeProtectedHeader(assertion);
  const sorted = (object) => JSON.stringify(Object.entries(object).sort());
  if (sorted(found) !== sorted(expected)) return `header ${sorted(found)} in place of ${sorted(expected)}`;
  try {
    const { payload } = await jwtVerify(assertion, publicKey, { algorithms: [algorithm] });
    return payload.aud === audience ? undefined : `aud ${payload.aud} in place of ${audience}`;
  } catch (error) {
    return error.message;
  }
}

async function token(response, body) {
  const form = new URLSearchParams(body);
  const clientId = form.get('client_id');
  const script = behaviours.get(clientId) ?? { name: 'good' };
  const scope = form.get('scope') ?? '';
  const lifetime = script.lifetime ?? 3600;
  // as servers do that choose the API by this parameter
  const claims = claimsFor(clientId, scope, lifetime, form.get('audience') ?? AUDIENCE);
  const answer = { access_token: await jwt(claims), token_type: 'Bearer', expires_in: lifetime, scope };
  if (form.get('client_secret')) secrets.add(form.get('client_secret'));
  requests.push({ at: Date.now(), clientId, authentication: 'post', scope, status: 0, error: null });
  await BEHAVIOURS[script.name](response, { form, answer, claims, value: script.value });
}

// An issuer for each client, whose token endpoint moves with `moves` of the client's behaviour. The former ones are gone.
const MOVING = /^\/moving\/([^/]+)\/(.+)$/;
async function serveMoving(response, body, [, clientId, resource]) {
  const moved = `${issuer}/moving/${clientId}`;
  const endpoint = `token-${behaviours.get(clientId)?.moves ?? 0}`;
  if (resource === '.well-known/openid-configuration') {
    json(response, 200, { issuer: moved, token_endpoint: `${moved}/${endpoint}`, jwks_uri: `${issuer}/keys` });
  } else if (resource === endpoint) {
    await token(response, body);
  } else {
    // as frameworks answer where there is nothing
    json(response, 404, { status: 404, error: 'Not Found' });
  }
}

async function serve(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const path = new URL(request.url, issuer).pathname;
  if (path === '/.well-known/openid-configuration') {
    json(response, 200, { issuer, token_endpoint: `${issuer}/connect/token`, jwks_uri: `${issuer}/keys` });
  } else if (path === '/keys') {
    const { search, searchParams } = new URL(request.url, issuer);
    keySetRequests[search] = (keySetRequests[search] ?? 0) + 1;
    const chosen = KEY_SETS[searchParams.get('set')];
    json(response, 200, { keys: chosen ? await chosen() : keys });
  } else if (path === '/connect/token') {
    await token(response, Buffer.concat(chunks).toString());
  } else if (MOVING.test(path)) {
    await serveMoving(response, Buffer.concat(chunks).toString(), MOVING.exec(path));
  } else {
    if (path === '/elsewhere') redirected += 1;
    json(response, 404, {});
  }
}

async function control(request, body) {
  const url = new URL(request.url, 'http://localhost');
  if (request.method === 'PUT' && url.pathname === '/behaviours') {
    behaviours.set(body.client_id, body);
    return {};
  }
  if (request.method === 'GET' && url.pathname === '/requests') {
    const clientId = url.searchParams.get('client_id');
    return requests.filter((entry) => clientId === null || entry.clientId === clientId);
  }
  if (request.method === 'GET' && url.pathname === '/counts') return { keySetRequests, redirected };
  if (request.method === 'GET' && url.pathname === '/secrets') return [...secrets];
  return undefined;
}

createHttp(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const answer = await control(request, chunks.length ? JSON.parse(Buffer.concat(chunks)) : undefined);
  response.statusCode = answer === undefined ? 404 : 200;
  response.end(JSON.stringify(answer ?? {}));
}).listen(options.controlPort, '127.0.0.1');

// as nginx does with `ssl_verify_client on`
function withoutCertificate(request, response) {
  response.writeHead(400, { 'content-type': 'text/html' });
  response.end('<html><center>No required SSL certificate was sent ATTACKER</center></html>');
}

const listen = ({ port, certificate, key, tls }, handler = serve) =>
  createServer({ cert: readFileSync(certificate), key: readFileSync(key), ...tls }, handler)
    // some clients exist for the handshakes that fail
    .on('tlsClientError', () => {})
    .listen(port, '127.0.0.1');
for (const server of options.tls) listen(server, server.tls.requestCert && !server.serves ? withoutCertificate : serve);
createHttp(serve).listen(options.plainHttpPort, '127.0.0.1');
createTcp(() => {}).listen(options.blackHolePort, '127.0.0.1');
createTcp((socket) => socket.on('error', () => {}).once('data', () => socket.end())).listen(
  options.closingPort,
  '127.0.0.1',
);
listen(options).on('listening', () => console.log(`listening ${issuer}`));
