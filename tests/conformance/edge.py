"""What the suites of this folder share: Tidegate as a child process, with a certificate and a
configuration of the suite's own, and other children that say where they listen. Knows nothing of
any suite. Needs Python 3 alone, and openssl.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

ORIGIN = "https://app.example.com"
ISSUER = "https://id.example.com"
SECRET_NAME = "TIDEGATE_CONFORMANCE_SECRET"
SECRET = "a secret of the conformance suites, and of no use elsewhere"
PATIENCE = 30  # seconds, far longer than anything takes on a busy machine

# Of [route.auth.jwt], for tokens that Tidegate.token() makes.
JWT = f"""
algorithms = ["HS256"]
key = {{ env = "{SECRET_NAME}" }}
issuer = "{ISSUER}"
audience = ["conformance"]
"""

# Suites measure right and wrong, and not how much a client may do: quotas that a suite would
# run into are off. The sizes are those of the largest message that any of them sends.
UNLIMITED = """
max_frame_size = "64MiB"
max_message_size = "64MiB"
messages = "off"
bytes = "off"
"""


def certificate(folder):
    """For localhost and 127.0.0.1, signed by itself, as edge.pem and edge.key."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-addext", "basicConstraints=critical,CA:FALSE"]
        + ["-keyout", str(folder / "edge.key"), "-out", str(folder / "edge.pem")],
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        raise SystemExit(f"openssl makes no certificate:\n{made.stderr}")
    os.chmod(folder / "edge.key", 0o600)


class Child:
    """A program with its output followed line by line. Ended by `stop`, at the latest when the
    `with` block ends."""

    def __init__(self, command, **kwargs):
        self.command = [str(part) for part in command]
        self.lines = []
        self._unseen = queue.Queue()
        kwargs = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT} | kwargs
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, **kwargs)
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def _follow(self):
        for line in self.process.stdout:
            self.lines.append(line)
            self._unseen.put(line)
        self._unseen.put(None)

    def said(self, find, patience=PATIENCE):
        """What `find` makes of the first line of which it makes anything."""
        while True:
            try:
                line = self._unseen.get(timeout=patience)
            except queue.Empty:
                raise SystemExit(f"{self.command} says nothing within {patience} s") from None
            if line is None:
                raise SystemExit(f"{self.command} ended too soon:\n{''.join(self.lines)}")
            found = find(line)
            if found is not None:
                return found

    def ended(self, patience):
        """Its status, and it must end by itself."""
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            last = "".join(self.lines[-20:])
            raise SystemExit(f"{self.command} does not end in {patience} s:\n{last}") from None
        self._follower.join(PATIENCE)
        return status

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.ended(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def port_of(line):
    """Of a line `listening PORT`, as the suites' own servers say it."""
    word, _, port = line.strip().partition(" ")
    return int(port) if word == "listening" and port.isdigit() else None


def free_port():
    """A port that was free a moment ago, for servers that want to be told one."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def listens(child, port, patience=3 * PATIENCE):
    """Waits until this child, which does not say so, listens there."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and child.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    said = "".join(child.lines)
    raise SystemExit(f"{child.command} does not listen at port {port}:\n{said}")


class Tidegate(Child):
    """Serves `routes` (TOML, from [[upstream]] on) at a free port of this machine."""

    def __init__(self, program, folder, routes, name="proxy", tls=True):
        self.program, self.folder = program, Path(folder)
        if not (self.folder / "edge.pem").exists():
            certificate(self.folder)
        self.file = self.folder / f"{name}.toml"
        how = 'tls.certificates = [{ cert = "edge.pem", key = "edge.key" }]'
        self.file.write_text(
            '[server]\nworkers = 2\ndrain = { grace = "10s", spread = "0s" }\n'
            f'[[listener]]\nbind = "127.0.0.1:0"\n{how if tls else "plaintext = true"}\n{routes}'
        )
        command = [program, "run", "--log-format", "json", "--config", self.file]
        super().__init__(command, env=self._env())
        self.port = self.said(self._listening)

    @staticmethod
    def _env():
        return {**os.environ, SECRET_NAME: SECRET}

    @staticmethod
    def _listening(line):
        try:
            said = json.loads(line)
        except ValueError:
            return None
        if said.get("message") != "listening":
            return None
        return int(said["address"].rsplit(":", 1)[1])

    def token(self, route, ttl="1h"):
        command = [self.program, "token", "--config", self.file, "--route", route]
        made = subprocess.run(
            [*command, "--sub", "conformance", "--ttl", ttl],
            env=self._env(),
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise SystemExit(f"no token for {route}:\n{made.stderr}")
        return made.stdout.strip()

    def records(self):
        """The session-end records so far."""
        found = []
        for line in list(self.lines):
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if said.get("message") == "session ended":
                found.append(said)
        return found
