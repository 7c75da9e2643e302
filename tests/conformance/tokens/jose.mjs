// Keys, and tokens good and bad, by jose: printed as JSON in the form that check.py reads.

import { randomBytes } from "node:crypto";
import * as jose from "jose";

const ASYMMETRIC = [
  "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];
const SYMMETRIC = ["HS256", "HS384", "HS512"];
const now = Math.floor(Date.now() / 1000);
const claims = {
  iss: "https://id.example.com", aud: "chat", sub: "alice", iat: now, exp: now + 3600,
};

const cases = [];
const keys = [];
const pairs = {};
const secrets = {};

function pair(alg) {
  return jose.generateKeyPair(alg, { extractable: true });
}

function add(route, name, token, admitted) {
  cases.push({ route, name, token, admitted });
}

function sign(key, alg, header = {}, changes = {}) {
  const payload = { ...claims, ...changes };
  for (const name of Object.keys(payload)) {
    if (payload[name] === null) delete payload[name];
  }
  return new jose.SignJWT(payload).setProtectedHeader({ alg, kid: alg, ...header }).sign(key);
}

for (const alg of ASYMMETRIC) {
  pairs[alg] = await pair(alg);
  const jwk = await jose.exportJWK(pairs[alg].publicKey);
  keys.push({ ...jwk, alg, kid: alg, use: "sig" });
  add("set", `${alg}`, await sign(pairs[alg].privateKey, alg), true);
  const wrong = await pair(alg);
  add("set", `${alg} by another key`, await sign(wrong.privateKey, alg), false);
}
for (const alg of SYMMETRIC) {
  secrets[alg] = randomBytes(64).toString("base64url");
  const secret = new TextEncoder().encode(secrets[alg]);
  add(alg, `${alg}`, await sign(secret, alg), true);
  add(alg, `${alg} by another secret`, await sign(randomBytes(64), alg), false);
}

const es256 = pairs.ES256.privateKey;
const changed = (changes) => sign(es256, "ES256", {}, changes);
add("set", "without kid", await sign(es256, "ES256", { kid: undefined }), true);
add("set", "typ at+jwt", await sign(es256, "ES256", { typ: "at+jwt" }), true);
add("set", "aud among others", await changed({ aud: ["mail", "chat"] }), true);
add("set", "exp with a fraction", await changed({ exp: now + 3600.5 }), true);
add("set", "nbf passed", await changed({ nbf: now - 60 }), true);
add("set", "expired", await changed({ exp: now - 3600 }), false);
add("set", "without exp", await changed({ exp: null }), false);
add("set", "exp below zero", await changed({ exp: -1 }), false);
add("set", "exp in milliseconds", await changed({ exp: (now + 3600) * 1000 }), false);
add("set", "not yet valid", await changed({ nbf: now + 3600 }), false);
add("set", "issued in the future", await changed({ iat: now + 3600 }), false);
add("set", "another audience", await changed({ aud: "mail" }), false);
add("set", "audiences of others", await changed({ aud: ["mail", "feed"] }), false);
add("set", "without audience", await changed({ aud: null }), false);
add("set", "another issuer", await changed({ iss: "https://evil.example" }), false);
add("set", "an unknown kid", await sign(es256, "ES256", { kid: "other" }), false);
add("set", "the kid of another algorithm", await sign(es256, "ES256", { kid: "RS256" }), false);
add("set", "nested", await sign(es256, "ES256", { cty: "JWT" }), false);
add("set", "unsecured", new jose.UnsecuredJWT(claims).encode(), false);

// The public key as a secret, in the forms in which it is published.
const rs256 = pairs.RS256.publicKey;
const published = [await jose.exportSPKI(rs256), JSON.stringify(await jose.exportJWK(rs256))];
for (const text of published) {
  const secret = new TextEncoder().encode(text);
  add("set", "HS256 by the public key", await sign(secret, "HS256", { kid: "RS256" }), false);
}

// RFC 7797: the payload is not encoded, and `crit` says that this must be understood. It reads
// as claims to whoever does not.
const text = jose.base64url.encode(JSON.stringify(claims));
const raw = await new jose.FlattenedSign(new TextEncoder().encode(text))
  .setProtectedHeader({ alg: "ES256", kid: "ES256", b64: false, crit: ["b64"] })
  .sign(es256);
add("set", "b64 false", `${raw.protected}.${text}.${raw.signature}`, false);
const critical = await new jose.CompactSign(new TextEncoder().encode(JSON.stringify(claims)))
  .setProtectedHeader({ alg: "ES256", kid: "ES256", "urn:x": 1, crit: ["urn:x"] })
  .sign(es256, { crit: { "urn:x": true } });
add("set", "crit", critical, false);
const embedded = { jwk: await jose.exportJWK(pairs.ES256.publicKey) };
add("set", "a key in the header", await sign(es256, "ES256", embedded), false);
const encrypted = await new jose.EncryptJWT(claims)
  .setProtectedHeader({ alg: "dir", enc: "A256GCM" })
  .encrypt(randomBytes(32));
add("set", "encrypted", encrypted, false);

// A key that the set gets while clients are there.
const rotated = await pair("ES256");
const jwk = await jose.exportJWK(rotated.publicKey);
console.log(JSON.stringify({
  library: "jose",
  algorithms: ASYMMETRIC,
  set: { keys },
  secrets,
  cases,
  rotated: {
    key: { ...jwk, alg: "ES256", kid: "rotated" },
    token: await sign(rotated.privateKey, "ES256", { kid: "rotated" }),
  },
}));
