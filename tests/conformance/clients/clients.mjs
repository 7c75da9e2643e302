// The clients of the npm packages: `clients.mjs <name> <setting as JSON>`. Prints what it saw as
// one line of JSON behind the word `result`.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import * as signalR from '@microsoft/signalr';
import { createClient } from 'graphql-ws';
import mqtt from 'mqtt';
import { Socket as Phoenix } from 'phoenix';
import { io } from 'socket.io-client';
import { Agent, WebSocket as Undici, ping } from 'undici';
import { WebSocket } from 'ws';
import { COUNT, isSame, message, bytes, text } from './messages.mjs';

const { url, origin, token, ca } = JSON.parse(process.argv[3]);
const bearer = { Authorization: `Bearer ${token}` };
const trusted = ca ? readFileSync(ca) : undefined;
const seen = {};

// ws with what a package cannot be told: whom to trust, and where the page is from.
class Trusting extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols, { ca: trusted, origin });
  }
}

// So many at once, as pages do it.
async function inTurns(play, atOnce = 20) {
  let echoed = 0;
  for (let n = 0; n < COUNT; n += atOnce) {
    const turn = Array.from({ length: Math.min(atOnce, COUNT - n) }, (_, k) => play(n + k));
    echoed += (await Promise.all(turn)).filter(Boolean).length;
  }
  return echoed;
}

const clients = {
  async ws() {
    const open = async () => {
      const socket = new WebSocket(url, { ca: trusted, origin, headers: bearer });
      await once(socket, 'open');
      return socket;
    };
    const heard = async (socket) => {
      const [data, isBinary] = await once(socket, 'message');
      return isBinary ? data : data.toString();
    };
    let socket = await open();
    seen.echoed = 0;
    for (let n = 0; n < COUNT; n++) {
      socket.send(message(n));
      seen.echoed += isSame(message(n), await heard(socket));
    }
    // And all at once, so that both directions are under way.
    seen.poured = await new Promise((resolve) => {
      let [right, all] = [0, 0];
      socket.on('message', (data, isBinary) => {
        right += isSame(message(all++), isBinary ? data : data.toString());
        if (all === COUNT) resolve(right);
      });
      for (let n = 0; n < COUNT; n++) socket.send(message(n));
    });
    socket.ping('from the client');
    seen.pong = String((await once(socket, 'pong'))[0]);
    socket.send('ping me');
    seen.pinged = await heard(socket);
    socket.close(4001, 'the client is done');
    seen['client closes'] = (await once(socket, 'close')).map(String);
    socket = await open();
    socket.send('close me');
    seen['server closes'] = (await once(socket, 'close')).map(String);
  },

  async undici() {
    const dispatcher = new Agent({ connect: { ca: trusted } });
    const open = async () => {
      const headers = { ...bearer, origin };
      const socket = new Undici(url, { dispatcher, headers, protocols: ['echo.v1'] });
      socket.binaryType = 'arraybuffer';
      await once(socket, 'open');
      return socket;
    };
    const heard = async (socket) => (await once(socket, 'message'))[0].data;
    let socket = await open();
    seen.protocol = socket.protocol;
    seen.echoed = 0;
    for (let n = 0; n < COUNT; n++) {
      socket.send(message(n));
      seen.echoed += isSame(message(n), await heard(socket));
    }
    ping(socket, Buffer.from('from the client'));
    socket.send('ping me');
    seen.pinged = await heard(socket);
    socket.close(4001, 'the client is done');
    const closed = async () => {
      const [{ code, reason, wasClean }] = await once(socket, 'close');
      return [code, reason, wasClean];
    };
    seen['client closes'] = await closed();
    socket = await open();
    socket.send('close me');
    seen['server closes'] = await closed();
    await dispatcher.destroy();
  },

  async graphqlWs() {
    let [pongs, closed] = [0, undefined];
    const client = createClient({
      url,
      webSocketImpl: Trusting,
      connectionParams: { Authorization: `Bearer ${token}` },
      lazy: false,
      retryAttempts: 0,
      onNonLazyError: () => {},
      keepAlive: 20,
      on: { pong: () => pongs++, closed: (event) => (closed = event) },
    });
    const ask = (query, variables) =>
      new Promise((resolve, reject) => {
        let found;
        const sink = { next: ({ data }) => (found = data), error: reject, complete: () => resolve(found) };
        client.subscribe({ query, variables }, sink);
      });
    const query = 'query($text: String!) { echo(text: $text) }';
    seen.echoed = await inTurns(async (n) => (await ask(query, { text: text(n) })).echo === text(n));
    await until(() => pongs > 0);
    seen.pong = true;
    seen['server closes'] = await ask('{ close }').catch(({ code, reason }) => [code, reason]);
    const second = createClient({
      url,
      webSocketImpl: Trusting,
      connectionParams: { Authorization: `Bearer ${token}` },
      lazy: false,
      on: { connected: (socket) => socket.close(4001, 'the client is done'), closed: (e) => (closed = e) },
      shouldRetry: () => false,
      onNonLazyError: () => {},
    });
    closed = undefined;
    await until(() => closed);
    seen['client closes'] = [closed.code, String(closed.reason)];
    await second.dispose();
  },

  async socketIo() {
    const open = () =>
      io(url, {
        transports: ['websocket'],
        reconnection: false,
        forceNew: true,
        ca: trusted,
        extraHeaders: { ...bearer, Origin: origin },
      });
    const once = (socket, event) => new Promise((resolve) => socket.once(event, resolve));
    let socket = open();
    socket.once('connect_error', fail);
    let pings = 0;
    socket.io.on('ping', () => pings++);
    await once(socket, 'connect');
    seen.echoed = await inTurns(async (n) => isSame(message(n), await socket.emitWithAck('echo', message(n))));
    await until(() => pings > 1);
    seen.pinged = true;
    const left = once(socket, 'disconnect');
    socket.disconnect();
    seen['client closes'] = await left;
    socket = open();
    await once(socket, 'connect');
    socket.emit('close me');
    seen['server closes'] = await once(socket, 'disconnect');
  },

  async signalr() {
    const open = async (onclose) => {
      const hub = new signalR.HubConnectionBuilder()
        .withUrl(url.replace(/^ws/, 'http'), {
          skipNegotiation: true,
          transport: signalR.HttpTransportType.WebSockets,
          WebSocket: class extends WebSocket {
            constructor(address, protocols, options) {
              super(address, protocols, { ...options, ca: trusted, origin });
            }
          },
          accessTokenFactory: () => token,
        })
        .configureLogging(signalR.LogLevel.None)
        .withServerTimeout(20_000)
        .withKeepAliveInterval(50)
        .build();
      hub.onclose(onclose);
      await hub.start();
      return hub;
    };
    const closed = async (act) => {
      let how;
      const hub = await open((error) => (how = [error?.message ?? 'without an error']));
      await act(hub);
      await until(() => how);
      return how;
    };
    seen['client closes'] = await closed(async (hub) => {
      seen.echoed = await inTurns(async (n) => (await hub.invoke('Echo', text(n))) === text(n));
      await hub.stop();
    });
    seen['server closes'] = await closed((hub) => hub.send('CloseMe'));
  },

  async phoenix() {
    const open = () =>
      new Promise((resolve) => {
        const socket = new Phoenix(url, {
          transport: Trusting,
          params: { access_token: token },
          // One that is not answered by the next ends the connection: not on a busy machine.
          heartbeatIntervalMs: 20_000,
          reconnectAfterMs: () => 3_600_000,
        });
        socket.onError(fail);
        socket.connect();
        const channel = socket.channel('room:one', {});
        channel.join().receive('ok', () => resolve([socket, channel]));
      });
    let [socket, channel] = await open();
    const push = (n) =>
      new Promise((resolve) => {
        const pushed = channel.push('echo', { text: text(n) }, 30_000);
        pushed.receive('ok', (heard) => resolve(heard.text === text(n)));
        pushed.receive('timeout', () => resolve(false));
      });
    seen.echoed = await inTurns(push);
    seen.heartbeat = await new Promise((resolve) => socket.ping(() => resolve(true)));
    await new Promise((resolve) => socket.disconnect(resolve, 4001, 'the client is done'));
    [socket, channel] = await open();
    const closed = new Promise((resolve) => socket.onClose((event) => resolve([event.code, event.reason])));
    channel.push('close me', {});
    seen['server closes'] = await closed;
    socket.disconnect();
  },

  async mqtt() {
    const open = () =>
      mqtt.connectAsync(url, {
        wsOptions: { ca: trusted, origin, headers: bearer },
        keepalive: 30,
        reconnectPeriod: 0,
        clientId: 'conformance',
      });
    let client = await open();
    let pongs = 0;
    client.on('packetreceive', (packet) => (pongs += packet.cmd === 'pingresp'));
    await client.subscribeAsync('echo', { qos: 1 });
    // Mosquitto takes 4096 bytes in a tenth of a second: few of the messages are large.
    const payload = (n) => Buffer.from(n % 100 === 0 ? bytes(n) : bytes(n).subarray(0, n % 256));
    let [right, all] = [0, 0];
    client.on('message', (_, heard) => (right += isSame(payload(all++), heard)));
    await inTurns((n) => client.publishAsync('echo', payload(n), { qos: 1 }).then(() => true), 50);
    await until(() => all === COUNT);
    seen.echoed = right;
    client.sendPing();
    await until(() => pongs > 0);
    seen.pong = true;
    await client.endAsync();
    seen['client closes'] = client.disconnected;
    // A second with the same name makes the server end the first.
    client = await open();
    const ended = once(client, 'close');
    const second = await open();
    await ended;
    seen['server closes'] = true;
    await second.endAsync();
  },
};

// Waits until it is so. Whoever started this program bounds the wait.
async function until(isSo) {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 5));
}

function fail(error) {
  console.log(error);
  process.exit(1);
}

await clients[process.argv[2]]();
console.log('result', JSON.stringify(seen));
process.exit(0);
