"""Clients of the Python libraries: `client.py websockets|aiohttp <setting as JSON>`. Prints what it
saw as one line of JSON behind the word `result`."""

import asyncio
import json
import ssl
import sys

import aiohttp
import websockets
from websockets.asyncio.client import connect

from messages import COUNT, message

PATIENCE = 60


def context(setting):
    return ssl.create_default_context(cafile=setting["ca"]) if setting["ca"] else None


async def with_websockets(setting):
    seen = {}
    options = {"origin": setting["origin"], "ssl": context(setting), "max_size": None}

    async def admitted():
        # The token is the first message, which the route passes on and the server echoes.
        socket = await connect(setting["url"], **options)
        first = json.dumps({"token": setting["token"]})
        await socket.send(first)
        assert await socket.recv() == first
        return socket

    async with await admitted() as socket:
        for n in range(COUNT):
            await socket.send(message(n))
            seen["echoed"] = seen.get("echoed", 0) + (await socket.recv() == message(n))
        # And all at once, so that both directions are under way.
        _, *echoed = await asyncio.gather(
            pour(socket), *[asyncio.create_task(expect(socket))]
        )
        seen["poured"] = echoed[0]
        await asyncio.wait_for(await socket.ping(b"from the client"), PATIENCE)
        seen["pong"] = True
        await socket.send("ping me")
        seen["pinged"] = await socket.recv()
        await socket.close(4001, "the client is done")
        seen["client closes"] = [socket.close_code, socket.close_reason]
    async with await admitted() as socket:
        await socket.send("close me")
        try:
            await socket.recv()
        except websockets.ConnectionClosed as closed:
            seen["server closes"] = [closed.rcvd.code, closed.rcvd.reason]
    return seen


async def pour(socket):
    for n in range(COUNT):
        await socket.send(message(n))


async def expect(socket):
    return sum([await socket.recv() == message(n) for n in range(COUNT)])


async def with_aiohttp(setting):
    seen = {}
    options = {
        "headers": {"Authorization": f"Bearer {setting['token']}", "Origin": setting["origin"]},
        "ssl": context(setting) or True,
        "max_msg_size": 0,
        "autoping": False,
    }
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(setting["url"], **options) as socket:
            for n in range(COUNT):
                sent = message(n)
                await (socket.send_str(sent) if isinstance(sent, str) else socket.send_bytes(sent))
                heard = await socket.receive(PATIENCE)
                seen["echoed"] = seen.get("echoed", 0) + (heard.data == sent)
            await socket.ping(b"from the client")
            heard = await socket.receive(PATIENCE)
            seen["pong"] = [heard.type.name, bytes(heard.data).decode()]
            await socket.send_str("ping me")
            heard = await socket.receive(PATIENCE)
            await socket.pong(heard.data)
            seen["pinged"] = (await socket.receive(PATIENCE)).data
            await socket.close(code=4001, message=b"the client is done")
            seen["client closes"] = socket.close_code
        async with session.ws_connect(setting["url"], **options) as socket:
            await socket.send_str("close me")
            heard = await socket.receive(PATIENCE)
            seen["server closes"] = [heard.type.name, heard.data, heard.extra]
    return seen


if __name__ == "__main__":
    play = {"websockets": with_websockets, "aiohttp": with_aiohttp}[sys.argv[1]]
    print("result", json.dumps(asyncio.run(play(json.loads(sys.argv[2])))), flush=True)
