// The driven client: asks the fuzzing server for its cases, plays each by echoing, and has the
// report written.
//
//     client.mjs <url> <agent> [<origin> <ca file> <token>]
import { readFileSync } from 'node:fs';
import { WebSocket } from 'ws';

const [url, agent, origin, ca, token] = process.argv.slice(2);
const LONGEST = 180_000; // ms for one case; the longest takes a few seconds

const options = {
  origin,
  ca: ca && readFileSync(ca),
  headers: token ? { Authorization: `Bearer ${token}` } : {},
  perMessageDeflate: true,
  maxPayload: 64 << 20,
  maxFragments: 1 << 20,
  maxBufferedChunks: 1 << 20,
};

// Resolves when the connection has ended, with what `onmessage` kept.
function play(path, onmessage) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url}${path}`, options);
    const late = setTimeout(() => reject(new Error(`${path} does not end`)), LONGEST);
    let kept;
    let opened = false;
    socket.on('open', () => (opened = true));
    // A server that breaks the protocol on purpose is no error here; one that is not there is.
    socket.on('error', (error) => opened || reject(error));
    socket.on('message', (data, isBinary) => (kept = onmessage(socket, data, isBinary)));
    socket.on('close', () => {
      clearTimeout(late);
      resolve(kept);
    });
  });
}

const count = await play('/getCaseCount', (_, data) => Number(data));
if (!(count > 0)) throw new Error(`the server has ${count} cases`);
for (let n = 1; n <= count; n++) {
  const path = `/runCase?case=${n}&agent=${agent}`;
  await play(path, (socket, data, isBinary) => socket.send(data, { binary: isBinary }));
}
await play(`/updateReports?agent=${agent}`, () => {});
console.log(`${count} cases`);
