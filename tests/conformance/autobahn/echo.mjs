// A strict echo server: what the fuzzing client is to find behind the edge.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  perMessageDeflate: true,
  maxPayload: 64 << 20,
  // Cases of group 9 send a message in more pieces than ws takes by default (16384).
  maxFragments: 1 << 20,
  maxBufferedChunks: 1 << 20,
});
server.on('connection', (socket) => {
  // Whoever breaks the protocol is what this is about: ws has closed the connection by then.
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.on('listening', () => console.log(`listening ${server.address().port}`));
