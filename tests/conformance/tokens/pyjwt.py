"""Keys, and tokens good and bad, by PyJWT, in the form that check.py reads."""

import base64
import json
import secrets
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

NOW = int(time.time())
CLAIMS = {
    "iss": "https://id.example.com",
    "aud": "chat",
    "sub": "alice",
    "iat": NOW,
    "exp": NOW + 3600,
}


def rsa_pair():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


FAMILIES = {
    "RS256": (rsa_pair, RSAAlgorithm),
    "RS384": (rsa_pair, RSAAlgorithm),
    "RS512": (rsa_pair, RSAAlgorithm),
    "PS256": (rsa_pair, RSAAlgorithm),
    "PS384": (rsa_pair, RSAAlgorithm),
    "PS512": (rsa_pair, RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "ES384": (lambda: ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}


def sign(key, alg, header=None, **changes):
    payload = {**CLAIMS, **changes}
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(payload, key, algorithm=alg, headers={"kid": alg, **(header or {})})


def without_kid(key, alg):
    return jwt.encode(CLAIMS, key, algorithm=alg)


def public_jwk(alg, key, kid):
    jwk = FAMILIES[alg][1].to_jwk(key.public_key(), as_dict=True)
    # What PyJWT adds or leaves out besides, a set has as issuers publish it.
    jwk.pop("key_ops", None)
    return {**jwk, "kid": kid, "alg": alg, "use": "sig"}


def encode(part):
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def make():
    keys = {alg: make_pair() for alg, (make_pair, _) in FAMILIES.items()}
    cases = []

    def add(route, name, token, admitted):
        cases.append({"route": route, "name": name, "token": token, "admitted": admitted})

    for alg, key in keys.items():
        add("set", alg, sign(key, alg), True)
        add("set", f"{alg} by another key", sign(FAMILIES[alg][0](), alg), False)
    shared = {alg: secrets.token_urlsafe(64) for alg in ("HS256", "HS384", "HS512")}
    for alg, secret in shared.items():
        add(alg, alg, sign(secret, alg), True)
        add(alg, f"{alg} by another secret", sign(secrets.token_urlsafe(64), alg), False)

    key = keys["RS256"]
    add("set", "without kid", without_kid(key, "RS256"), True)
    add("set", "aud among others", sign(key, "RS256", aud=["mail", "chat"]), True)
    add("set", "expired", sign(key, "RS256", exp=NOW - 3600), False)
    add("set", "without exp", sign(key, "RS256", exp=None), False)
    add("set", "exp as text", sign(key, "RS256", exp=str(NOW + 3600)), False)
    add("set", "not yet valid", sign(key, "RS256", nbf=NOW + 3600), False)
    add("set", "another audience", sign(key, "RS256", aud="mail"), False)
    add("set", "another issuer", sign(key, "RS256", iss="https://evil.example"), False)
    add("set", "an unknown kid", sign(key, "RS256", {"kid": "other"}), False)
    for kid in ("../../dev/null", "' OR 1=1 --", "RS256\x00", "", "rs256", "RS384"):
        add("set", f"the kid {kid!r}", sign(key, "RS256", {"kid": kid}), False)
    add("set", "jku", sign(key, "RS256", {"jku": "https://evil.example/keys"}), False)
    add("set", "x5u", sign(key, "RS256", {"x5u": "https://evil.example/chain"}), False)
    add("set", "crit", sign(key, "RS256", {"crit": ["exp"]}), False)
    add("set", "unsigned", jwt.encode(CLAIMS, None, algorithm="none"), False)
    good = sign(key, "RS256")
    head, claims, signature = good.split(".")
    add("set", "signature cut off", f"{head}.{claims}.", False)
    add("set", "signature shortened", f"{head}.{claims}.{signature[:-8]}", False)
    other = encode(json.dumps({**CLAIMS, "sub": "root"}).encode())
    add("set", "claims exchanged", f"{head}.{other}.{signature}", False)
    for name in ("none", "None", "NONE", "nOnE"):
        forged = encode(json.dumps({"alg": name, "kid": "RS256"}).encode())
        add("set", f"alg {name}", f"{forged}.{claims}.{signature}", False)
        add("set", f"alg {name} without signature", f"{forged}.{claims}.", False)
    # PyJWT will not sign with a whole public key as a secret; a part of it is none, either.
    modulus = public_jwk("RS256", key, "RS256")["n"]
    add("set", "HS256 by the public key", sign(modulus, "HS256", {"kid": "RS256"}), False)
    large = sign(key, "RS256", {"x": "x" * 8192})
    add("set", "a large header", large, False)

    rotated = FAMILIES["ES256"][0]()
    return {
        "library": "PyJWT",
        "algorithms": list(FAMILIES),
        "set": {"keys": [public_jwk(alg, key, alg) for alg, key in keys.items()]},
        "secrets": shared,
        "cases": cases,
        "rotated": {
            "key": public_jwk("ES256", rotated, "rotated"),
            "token": sign(rotated, "ES256", {"kid": "rotated"}),
        },
    }
