"""Echo servers of the Python libraries: `server.py websockets|aiohttp`. Each says where it listens
and every Close that it hears; it pings, and closes, when it is asked to in a message."""

import asyncio
import sys

import aiohttp
import websockets
from aiohttp import web
from websockets.asyncio.server import serve


def say(*words):
    print(*words, flush=True)


async def with_websockets():
    async def one(socket):
        try:
            async for message in socket:
                if message == "ping me":
                    await (await socket.ping(b"from the server"))
                    message = "pong: from the server"
                elif message == "close me":
                    await socket.close(4002, "the server is done")
                    return
                await socket.send(message)
        except websockets.ConnectionClosedError:
            pass
        heard = socket.protocol.close_rcvd
        say("closed", heard and heard.code, heard and heard.reason)

    async with serve(one, "127.0.0.1", 0, max_size=None) as server:
        say("listening", server.sockets[0].getsockname()[1])
        await asyncio.Future()


async def with_aiohttp():
    async def one(request):
        socket = web.WebSocketResponse(max_msg_size=0, autoping=False)
        await socket.prepare(request)
        async for message in socket:
            match message.type, message.data:
                case aiohttp.WSMsgType.TEXT, "ping me":
                    await socket.ping(b"from the server")
                case aiohttp.WSMsgType.TEXT, "close me":
                    await socket.close(code=4002, message=b"the server is done")
                case aiohttp.WSMsgType.TEXT, text:
                    await socket.send_str(text)
                case aiohttp.WSMsgType.BINARY, data:
                    await socket.send_bytes(data)
                case aiohttp.WSMsgType.PING, data:
                    await socket.pong(data)
                case aiohttp.WSMsgType.PONG, data if data == b"from the server":
                    await socket.send_str("pong: from the server")
        # What it heard; where it closed first, that is the answer to its own.
        if socket.close_code != 4002:
            say("closed", socket.close_code)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", one)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say("listening", runner.addresses[0][1])
    await asyncio.Future()


if __name__ == "__main__":
    asyncio.run({"websockets": with_websockets, "aiohttp": with_aiohttp}[sys.argv[1]]())
