"""Has each client do the same to its server with and without Tidegate between them, and compares
what both of them saw.

    drive.py <work folder> <tidegate> [name ...]

In the work folder are node_modules and venv.
"""

import dataclasses
import json
import shutil
import sys
import tempfile
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import edge  # noqa: E402  (it lies in the folder above)

LONGEST = 180  # seconds for one client
COUNT = 1000


@dataclasses.dataclass
class Pair:
    """A client and its server."""

    client: list
    server: list
    auth: str  # how the route has the client admitted
    closes: int  # how many times the server says that it heard a Close
    path: str = "/live"
    subprotocols: str = ""  # of the route
    expected: dict = dataclasses.field(default_factory=dict)  # of what the client saw
    causes: tuple = ("closed",)  # how Tidegate says that sessions ended


HEADER = 'method = "header"'
CODES = {
    "client closes": [4001, "the client is done"],
    "server closes": [4002, "the server is done"],
    "pinged": "pong: from the server",
}
AS_TEXT = {key: [str(part) for part in value] for key, value in list(CODES.items())[:2]}
CLEANLY = {key: [*value, True] for key, value in list(CODES.items())[:2]}
PINGED = {"pinged": CODES["pinged"]}

PAIRS = {
    "websockets": Pair(
        ["client.py", "websockets"],
        ["server.py", "websockets"],
        'method = "first-message"\ntoken_field = "/token"\nforward = true',
        1,
        expected={**CODES, "poured": COUNT, "pong": True},
    ),
    "aiohttp": Pair(
        ["client.py", "aiohttp"],
        ["server.py", "aiohttp"],
        HEADER,
        1,
        # Its server answers every Close with 1000, and this is what its client tells.
        expected={
            "client closes": 1000,
            "server closes": ["CLOSE", 4002, "the server is done"],
            "pong": ["PONG", "from the client"],
            **PINGED,
        },
    ),
    "ws": Pair(
        ["clients.mjs", "ws"],
        ["servers.mjs", "ws"],
        HEADER,
        1,
        expected={**AS_TEXT, **PINGED, "poured": COUNT, "pong": "from the client"},
    ),
    "undici": Pair(
        ["clients.mjs", "undici"],
        ["servers.mjs", "ws"],
        HEADER,
        1,
        subprotocols="echo.v1",
        expected={**CLEANLY, **PINGED, "protocol": "echo.v1"},
    ),
    "chromium": Pair(
        [],
        ["servers.mjs", "ws"],
        'method = "subprotocol"',
        1,
        subprotocols="echo.v1",
        expected={**CLEANLY, **PINGED, "protocol": "echo.v1"},
    ),
    "graphql-ws": Pair(
        ["clients.mjs", "graphqlWs"],
        ["servers.mjs", "graphqlWs"],
        'method = "first-message"\npreset = "graphql-ws"',
        1,
        subprotocols="graphql-transport-ws",
        expected={"pong": True, **{key: CODES[key] for key in AS_TEXT}},
    ),
    "Socket.IO": Pair(
        ["clients.mjs", "socketIo"],
        ["servers.mjs", "socketIo"],
        HEADER,
        2,
        path="",
        expected={
            "client closes": "io client disconnect",
            "server closes": "io server disconnect",
            "pinged": True,
        },
    ),
    "SignalR": Pair(
        ["clients.mjs", "signalr"],
        ["servers.mjs", "signalr"],
        HEADER,
        1,
        expected={"client closes": ["without an error"]},
    ),
    "Phoenix": Pair(
        ["clients.mjs", "phoenix"],
        ["servers.mjs", "phoenix"],
        'method = "query"\nquery = "access_token"\ni_know_query_tokens_leak = true',
        1,
        expected={"heartbeat": True, "server closes": CODES["server closes"]},
    ),
    "MQTT": Pair(
        ["clients.mjs", "mqtt"],
        ["mosquitto"],
        HEADER,
        0,
        path="/mqtt",
        subprotocols="mqtt",
        expected={"pong": True, "client closes": True, "server closes": True},
        # Mosquitto lets go of a client whose name another has taken, without a Close.
        causes=("closed", "vanished"),
    ),
}


def routes(pair, origin, upstream):
    subprotocols = f'subprotocols = ["{pair.subprotocols}"]' if pair.subprotocols else ""
    return f"""
[[upstream]]
name = "server"
endpoints = ["ws://127.0.0.1:{upstream}"]
[[route]]
name = "live"
path = "/*"
origins = ["{origin}"]
{subprotocols}
upstream = "server"
[route.auth]
{pair.auth}
[route.auth.jwt]
{edge.JWT}
[route.limits]
{edge.UNLIMITED}
"""


def result(line):
    word, _, seen = line.partition(" ")
    return json.loads(seen) if word == "result" else None


class Play:
    def __init__(self, work, program, folder):
        self.work, self.program, self.folder = work, program, folder
        self.origin = edge.ORIGIN

    def script(self, name, *arguments, stderr=None):
        python = self.work / "venv" / "bin" / "python"
        runs = "node" if name.endswith(".mjs") else python
        options = {"cwd": self.work} | ({"stderr": stderr} if stderr else {})
        return edge.Child([runs, self.work / name, *arguments], **options)

    def server(self, pair):
        """The server, and its port."""
        if pair.server == ["mosquitto"]:
            port = edge.free_port()
            # It does not start with WebSockets alone.
            (self.folder / "mosquitto.conf").write_text(
                f"listener {edge.free_port()} 127.0.0.1\n"
                f"listener {port} 127.0.0.1\nprotocol websockets\n"
                "allow_anonymous true\nuser root\nmax_inflight_messages 0\n"
            )
            program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
            child = edge.Child([program, "-c", self.folder / "mosquitto.conf"])
            edge.listens(child, port)
            return child, port
        child = self.script(*pair.server)
        return child, child.said(edge.port_of)

    def browse(self, page, origin, url, token):
        """Has the browser open the page, which reports to the server that it is from."""
        query = urllib.parse.urlencode({"url": url, "token": token})
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]
            command += ["--disable-dev-shm-usage", "--ignore-certificate-errors"]
            command += [f"--user-data-dir={profile}", f"{origin}/page.html?{query}"]
            with edge.Child(command):
                return page.said(result, LONGEST)

    def play(self, pair, url, token, ca):
        setting = {"url": url, "origin": self.origin, "token": token, "ca": ca}
        with self.script(*pair.client, json.dumps(setting)) as client:
            return client.said(result, LONGEST)

    def run(self, name, pair, through_edge):
        """What the client and the server saw, and what Tidegate recorded."""
        server, upstream = self.server(pair)
        with server:
            if name == "chromium":
                return self.run_browser(pair, server, upstream, through_edge)
            if not through_edge:
                seen = self.play(pair, f"ws://127.0.0.1:{upstream}{pair.path}", "none", None)
                return seen, self.heard(server, pair), []
            with edge.Tidegate(self.program, self.folder, routes(pair, self.origin, upstream)) as proxy:
                url = f"wss://localhost:{proxy.port}{pair.path}"
                ca = str(self.folder / "edge.pem")
                seen = self.play(pair, url, proxy.token("live"), ca)
                return seen, self.heard(server, pair), self.ends(proxy)

    def run_browser(self, pair, server, upstream, through_edge):
        with self.script("servers.mjs", "page") as page:
            origin = f"http://127.0.0.1:{page.said(edge.port_of)}"
            if not through_edge:
                url = f"ws://127.0.0.1:{upstream}{pair.path}"
                seen = self.browse(page, origin, url, "none")
                return seen, self.heard(server, pair), []
            with edge.Tidegate(self.program, self.folder, routes(pair, origin, upstream)) as proxy:
                url = f"wss://localhost:{proxy.port}{pair.path}"
                seen = self.browse(page, origin, url, proxy.token("live"))
                return seen, self.heard(server, pair), self.ends(proxy)

    @staticmethod
    def heard(server, pair):
        """The closes that the server says it heard."""
        closed = lambda line: line.strip() if line.startswith("closed") else None  # noqa: E731
        return sorted(server.said(closed) for _ in range(pair.closes))

    @staticmethod
    def ends(proxy):
        if (status := proxy.stop()) != 0:
            raise SystemExit(f"tidegate ended with {status}:\n{''.join(proxy.lines[-50:])}")
        return [record["cause"] for record in proxy.records()]


def judge(pair, direct, through):
    """What is wrong with what was seen."""
    (seen, heard, _), (seen_through, heard_through, causes) = direct, through
    for key, value in {"echoed": COUNT, **pair.expected}.items():
        if seen_through.get(key) != value:
            yield f"{key}: {seen_through.get(key)}, and not {value}"
    if seen_through != seen:
        yield f"the client saw {seen_through}, without the edge {seen}"
    if heard_through != heard:
        yield f"the server heard {heard_through}, without the edge {heard}"
    if len(causes) < 2 or any(cause not in pair.causes for cause in causes):
        yield f"sessions ended by {causes}"


def main(work, program, *named):
    work, program = Path(work).resolve(), Path(program).resolve()
    passed, failed = 0, 0
    for name in named or PAIRS:
        pair = PAIRS[name]
        with tempfile.TemporaryDirectory(prefix="tidegate-clients-") as folder:
            play = Play(work, program, Path(folder))
            wrong = list(judge(pair, *(play.run(name, pair, through) for through in (False, True))))
        passed, failed = passed + (not wrong), failed + bool(wrong)
        print(f"{name}: {'FAILED' if wrong else 'ok'}", *wrong, sep="\n  ", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
