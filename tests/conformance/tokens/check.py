"""Starts a web service that publishes key sets, an upstream that echoes, and Tidegate in
front of it; then presents every token, and compares what happens with what should.

    check.py <tidegate> <jose.json>
"""

import asyncio
import datetime
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

import pyjwt

ORIGIN = "https://app.example.com"
PATIENCE = 30  # seconds, far longer than anything takes


def certificate(folder):
    """For 127.0.0.1, signed by itself: both for the service and for Tidegate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "cert.key").write_bytes(private)
    os.chmod(folder / "cert.key", 0o600)


async def publish(sets, folder):
    """A web service with a path for each set. Counts what it is asked."""
    asked = {}

    async def answer(reader, writer):
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            path = head.split(b" ")[1].decode()
            asked[path] = asked.get(path, 0) + 1
            body = json.dumps(sets[path]).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/jwk-set+json\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        finally:
            writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "cert.key")
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    return server, asked


async def echo(socket):
    async for message in socket:
        await socket.send(message)


def configuration(makers, folder, keys_port, echo_port):
    routes = []

    def route(path, rule):
        routes.append(
            f"""
[[route]]
name = "r{len(routes)}"
path = "{path}"
origins = ["{ORIGIN}"]
upstream = "echo"
auth.method = "first-message"
auth.token_field = "/token"
auth.max_size = "64KiB"
[route.auth.jwt]
issuer = "{pyjwt.CLAIMS['iss']}"
audience = ["chat"]
{rule}"""
        )

    for made in makers:
        name = made["library"]
        url = f"https://127.0.0.1:{keys_port}/{name}"
        route(
            f"/{name}/set",
            f'algorithms = {json.dumps(made["algorithms"])}\n'
            f'jwks = {{ url = "{url}", ca = "cert.pem", refetch_interval = "1s" }}',
        )
        for alg, secret in made["secrets"].items():
            file = folder / f"{name}-{alg}"
            file.write_text(secret)
            os.chmod(file, 0o600)
            route(f"/{name}/{alg}", f'algorithms = ["{alg}"]\nkey = {{ file = "{file.name}" }}')
    return f"""
[[listener]]
bind = "127.0.0.1:0"
tls.certificates = [{{ cert = "cert.pem", key = "cert.key" }}]

[[upstream]]
name = "echo"
endpoints = ["ws://127.0.0.1:{echo_port}"]
{"".join(routes)}"""


async def start(program, folder):
    """Tidegate, once it listens, and its port."""
    process = await asyncio.create_subprocess_exec(
        program, "run", "--log-format", "json", "--config", str(folder / "proxy.toml"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )
    log = []
    while True:
        line = await asyncio.wait_for(process.stderr.readline(), PATIENCE)
        if not line:
            sys.exit("tidegate does not start:\n" + "".join(log))
        log.append(line.decode())
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if said.get("message") == "listening":
            port = int(said["address"].rsplit(":", 1)[1])
            break

    async def follow():
        async for line in process.stderr:
            log.append(line.decode())

    return process, port, log, asyncio.create_task(follow())


async def present(port, folder, path, token):
    """Whether this token is admitted; else the code of the Close."""
    trusted = ssl.create_default_context(cafile=folder / "cert.pem")
    uri = f"wss://127.0.0.1:{port}{path}"
    async with connect(uri, ssl=trusted, origin=ORIGIN, compression=None) as socket:
        try:
            await socket.send(json.dumps({"token": token}))
            await socket.send("hello")
            answer = await asyncio.wait_for(socket.recv(), PATIENCE)
            return answer == "hello"
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


async def main(program, jose):
    makers = [pyjwt.make(), json.loads(Path(jose).read_text())]
    passed, failed = 0, []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        certificate(folder)
        sets = {f"/{made['library']}": made["set"] for made in makers}
        keys, asked = await publish(sets, folder)
        async with serve(echo, "127.0.0.1", 0) as upstream:
            ports = [s.sockets[0].getsockname()[1] for s in (keys, upstream)]
            (folder / "proxy.toml").write_text(configuration(makers, folder, *ports))
            process, port, log, following = await start(program, folder)

            async def judge(library, name, path, token, admitted):
                nonlocal passed
                expected = True if admitted else 3000
                found = await present(port, folder, path, token)
                if found == expected:
                    passed += 1
                else:
                    failed.append(f"{library}, {name}: {found}, and not {expected}")

            for made in makers:
                library = made["library"]
                for case in made["cases"]:
                    path = f"/{library}/{case['route']}"
                    await judge(library, case["name"], path, case["token"], case["admitted"])
                # A new key, of which nobody tells the edge.
                sets[f"/{library}"] = {"keys": [*made["set"]["keys"], made["rotated"]["key"]]}
                path = f"/{library}/set"
                await judge(library, "a new key", path, made["rotated"]["token"], True)
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), PATIENCE)
            await following
            if process.returncode != 0:
                failed.append(f"tidegate ended with {process.returncode}")
            for made in makers:
                for case in made["cases"]:
                    secret = case["token"].split(".")[-1]
                    if len(secret) > 16 and any(secret in line for line in log):
                        failed.append(f"{made['library']}, {case['name']}: it is in the log")
        keys.close()
    least = sum(len(made["cases"]) + 1 for made in makers)
    if passed + len(failed) < least or least < 80:
        failed.append(f"only {passed + len(failed)} of {least} tokens were presented")
    for line in failed:
        print(f"FAILED {line}")
    print(f"key sets were fetched so often: {asked}")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
