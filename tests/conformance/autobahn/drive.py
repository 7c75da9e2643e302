"""Plays the cases of the Autobahn Testsuite through Tidegate, in both directions, and without it,
and compares the verdicts.

    drive.py <work folder> <tidegate> [--all]

In the work folder are wstest, the testsuite's own program, and node_modules. Reports, with a page
for each case, are left in its folder `reports`.
"""

import argparse
import collections
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import edge  # noqa: E402  (it lies in the folder above)

# Compression is declined by choice: without the edge there is nothing to compare them with.
COMPRESSION = ["12.*", "13.*"]
# What the usual run leaves out: cases of megabytes, and most of those that differ by a character.
REDUCED = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "6.2.*", "6.3.*", "6.4.*", "6.12.*"]
REDUCED += ["6.20.*", "7.*", "9.1.1", "9.2.1", "9.3.1", "9.4.1", "9.5.1", "9.6.1", "9.7.1"]
REDUCED += ["9.8.1", "10.*", "12.1.1", "13.1.1"]
LEAST = {"reduced": 140, "all": 500}
LONGEST = 3600  # seconds for all cases of one run

# From best to worst. A verdict must not come to stand further right behind the edge.
VERDICTS = ["OK", "NON-STRICT", "INFORMATIONAL"]
CLOSES = ["OK", "INFORMATIONAL", "WRONG CODE", "FAILED BY CLIENT", "UNCLEAN"]

# Cases that send good messages and then break the protocol, all at once. The edge fails the
# connection when it sees the violation, as section 7.1.7 of RFC 6455 has it; the answers to the
# good messages have the way to the server and back before them, and come too late. The suite
# calls either NON-STRICT or OK. Without the edge the server answers each as it reads it.
OVERTAKEN = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}

ROUTES = f"""
[[upstream]]
name = "server"
endpoints = ["ws://127.0.0.1:UPSTREAM"]
[[route]]
name = "open"
host = "localhost"
path = "/*"
origins = ["{edge.ORIGIN}"]
upstream = "server"
auth.method = "none"
[route.limits]
{edge.UNLIMITED}
[[route]]
name = "token"
host = "127.0.0.1"
path = "/*"
origins = ["{edge.ORIGIN}"]
subprotocols = ["echo"]
upstream = "server"
auth.method = ["header", "subprotocol"]
[route.auth.jwt]
{edge.JWT}
[route.limits]
{edge.UNLIMITED}
"""


class Play:
    """One run of the suite, with its folders."""

    def __init__(self, work, program, cases):
        self.work, self.program, self.cases = work, program, cases
        self.reports = work / "reports"
        self.folder = None

    def wstest(self, mode, name, spec):
        """The testsuite's program in a mode, with its reports in a folder of this name."""
        # It waits a second by default, which a busy machine may need for 16 MiB.
        waits = ["openHandshakeTimeout", "closeHandshakeTimeout"]
        if mode == "fuzzingclient":
            waits.append("serverConnectionDropTimeout")
        options = dict.fromkeys(waits, edge.PATIENCE)
        spec = {"outdir": str(self.reports / name), "cases": self.cases, "options": options, **spec}
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(spec))
        return edge.Child([self.work / "wstest", "-m", mode, "-s", file, "-u", "0"], cwd=self.folder)

    def tidegate(self, name, upstream):
        routes = ROUTES.replace("UPSTREAM", str(upstream))
        return edge.Tidegate(self.program, self.folder, routes, name=name)

    def node(self, *arguments):
        return edge.Child(["node", *arguments], cwd=self.work)

    def client_fuzzes(self):
        """fuzzing client -> (edge ->) echo server"""
        with self.node(self.work / "echo.mjs") as echo:
            port = echo.said(edge.port_of)
            with self.tidegate("client", port) as proxy:
                servers = {
                    "direct": {"url": f"ws://127.0.0.1:{port}/"},
                    "open": {"url": f"wss://localhost:{proxy.port}/"},
                    "token": {
                        "url": f"wss://127.0.0.1:{proxy.port}/",
                        "protocols": ["echo", f"bearer.{proxy.token('token')}"],
                    },
                }
                running = {}
                for agent, server in servers.items():
                    server |= {"agent": agent, "origin": edge.ORIGIN}
                    left_out = COMPRESSION if agent == "direct" else []
                    spec = {"servers": [server], "exclude-cases": left_out}
                    running[agent] = self.wstest("fuzzingclient", f"client-{agent}", spec)
                self.all_end(running)
                self.ends(proxy)
        return {agent: self.index(f"client-{agent}")[agent] for agent in servers}

    def server_fuzzes(self):
        """driven client -> (edge ->) fuzzing server"""
        direct, behind = edge.free_port(), edge.free_port()
        spec = {"url": f"ws://127.0.0.1:{direct}", "exclude-cases": COMPRESSION}
        behind_spec = {"url": f"ws://127.0.0.1:{behind}"}
        with (
            self.wstest("fuzzingserver", "server-direct", spec) as before,
            self.wstest("fuzzingserver", "server-edge", behind_spec) as behind_edge,
        ):
            edge.listens(before, direct)
            edge.listens(behind_edge, behind)
            with self.tidegate("server", behind) as proxy:
                ca = self.folder / "edge.pem"
                drive = self.work / "client.mjs"
                token = proxy.token("token")
                url = f":{proxy.port}"
                running = {
                    "direct": self.node(drive, f"ws://127.0.0.1:{direct}", "direct", edge.ORIGIN),
                    "open": self.node(drive, f"wss://localhost{url}", "open", edge.ORIGIN, ca),
                    "token": self.node(
                        drive, f"wss://127.0.0.1{url}", "token", edge.ORIGIN, ca, token
                    ),
                }
                self.all_end(running)
                self.ends(proxy)
        return {**self.index("server-direct"), **self.index("server-edge")}

    @staticmethod
    def all_end(running):
        for agent, child in running.items():
            status = child.ended(LONGEST)
            if status != 0:
                raise SystemExit(f"the run {agent} ended with {status}:\n{''.join(child.lines)}")

    @staticmethod
    def ends(proxy):
        status = proxy.stop()
        if status != 0:
            raise SystemExit(f"tidegate ended with {status}:\n{''.join(proxy.lines[-50:])}")

    def index(self, name):
        return json.loads((self.reports / name / "index.json").read_text())


def is_compression(case):
    return case.split(".")[0] in ("12", "13")


def worse(scale, before, behind):
    """Whether the edge made it worse. A word that is not on the scale is the worst."""
    place = {word: n for n, word in enumerate(scale)}
    return place.get(behind, len(scale)) > place.get(before, len(scale))


def judge(direction, verdicts):
    """What is wrong with these verdicts: agent -> case -> verdict."""
    wrong = []
    direct = verdicts["direct"]
    for agent in ("open", "token"):
        found = verdicts[agent]
        if sorted(direct) != sorted(case for case in found if not is_compression(case)):
            wrong.append(f"{direction}, {agent}: not the same cases as without the edge")
        for case, verdict in found.items():
            where = f"{direction}, {agent}, case {case}"
            behavior, closing = verdict["behavior"], verdict["behaviorClose"]
            if is_compression(case):
                if behavior != "UNIMPLEMENTED":
                    wrong.append(f"{where}: {behavior}, and compression is not implemented")
                continue
            before = direct.get(case)
            if behavior not in VERDICTS:
                wrong.append(f"{where}: {behavior}")
            elif case in OVERTAKEN and behavior in ("OK", "NON-STRICT"):
                pass
            elif before and worse(VERDICTS, before["behavior"], behavior):
                wrong.append(f"{where}: {behavior}, without the edge {before['behavior']}")
            if closing not in ("OK", "INFORMATIONAL") and (
                not before or worse(CLOSES, before["behaviorClose"], closing)
            ):
                was = before and before["behaviorClose"]
                wrong.append(f"{where}: closed {closing}, without the edge {was}")
    return wrong


def table(results):
    """One line for each direction and way, with how many cases had which verdict."""
    columns = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"]
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for direction, verdicts in results.items():
        for agent, cases in verdicts.items():
            count = collections.Counter(verdict["behavior"] for verdict in cases.values())
            failed = sum(n for word, n in count.items() if word not in columns[:4])
            cells = [str(count[word]) for word in columns[:4]] + [str(failed)]
            lines.append(f"| {direction}, {agent} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(results):
    """Where the edge changed a verdict without making it worse."""
    for direction, verdicts in results.items():
        for agent in ("open", "token"):
            for case, verdict in verdicts[agent].items():
                before = verdicts["direct"].get(case)
                for key in ("behavior", "behaviorClose", "remoteCloseCode"):
                    if before and before[key] != verdict[key]:
                        yield f"{direction}, {agent}, case {case}: {key} {before[key]} -> {verdict[key]}"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", type=Path)
    arguments.add_argument("program", type=Path)
    arguments.add_argument("--all", action="store_true")
    asked = arguments.parse_args()
    extent = "all" if asked.all else "reduced"
    play = Play(asked.work.resolve(), asked.program.resolve(), ["*"] if asked.all else REDUCED)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-autobahn-") as folder:
        play.folder = Path(folder)
        results = {"fuzzing client": play.client_fuzzes(), "fuzzing server": play.server_fuzzes()}
    wrong = [line for direction, found in results.items() for line in judge(direction, found)]
    for direction, verdicts in results.items():
        for agent in ("open", "token"):
            if len(verdicts[agent]) < LEAST[extent]:
                wrong.append(f"{direction}, {agent}: only {len(verdicts[agent])} cases")
    for line in differences(results):
        print(f"differs: {line}")
    for line in wrong:
        print(f"FAILED {line}")
    version = subprocess.run([play.program, "--version"], capture_output=True, text=True).stdout
    took = time.monotonic() - started
    print(f"\n{datetime.date.today()}, {version.strip()}, {extent} cases, {took:.0f} s\n")
    print(table(results))
    total = sum(len(cases) for verdicts in results.values() for cases in verdicts.values())
    print(f"\n{total - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
