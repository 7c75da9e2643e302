// The servers of the npm packages: `servers.mjs <name>`. Each says where it listens, and every
// Close that it hears.
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { GraphQLObjectType, GraphQLSchema, GraphQLString, GraphQLNonNull } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { Server as SocketIo } from 'socket.io';
import { WebSocketServer } from 'ws';

const say = (...words) => console.log(words.join(' '));
const listens = (server) => say('listening', server.address().port);

function webSocketServer(options) {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, ...options });
  server.on('listening', () => listens(server));
  server.on('connection', (socket) => {
    socket.on('error', (error) => say('error', error.message));
    socket.on('close', (code, reason) => code === 4002 || say('closed', code, reason));
  });
  return server;
}

const servers = {
  ws() {
    webSocketServer({ perMessageDeflate: true }).on('connection', (socket) => {
      socket.on('pong', (data) => socket.send(`pong: ${data}`));
      socket.on('message', (data, isBinary) => {
        if (data.toString() === 'ping me') socket.ping('from the server');
        else if (data.toString() === 'close me') socket.close(4002, 'the server is done');
        else socket.send(data, { binary: isBinary });
      });
    });
  },

  graphqlWs() {
    const text = { type: new GraphQLNonNull(GraphQLString) };
    const echo = { type: GraphQLString, args: { text }, resolve: (_, { text }) => text };
    const close = {
      type: GraphQLString,
      // Never answered but by the Close.
      resolve: (_, __, context) => {
        context.extra.socket.close(4002, 'the server is done');
        return new Promise(() => {});
      },
    };
    const schema = new GraphQLSchema({
      query: new GraphQLObjectType({ name: 'Query', fields: { echo, close } }),
    });
    const server = webSocketServer({ handleProtocols: () => 'graphql-transport-ws' });
    const onConnect = (context) => 'Authorization' in context.connectionParams;
    useServer({ schema, onConnect, context: (context) => context }, server);
  },

  socketIo() {
    const http = createServer();
    const io = new SocketIo(http, { transports: ['websocket'], pingInterval: 200, pingTimeout: 20_000 });
    io.on('connection', (socket) => {
      socket.on('echo', (data, done) => done(data));
      socket.on('close me', () => socket.disconnect(true));
      socket.on('disconnect', (reason) => say('closed', reason.replaceAll(' ', '-')));
    });
    http.listen(0, '127.0.0.1', () => listens(http));
  },

  // What a hub says of the JSON protocol: the handshake, completions, pings, a Close message.
  signalr() {
    webSocketServer().on('connection', (socket) => {
      const send = (message) => socket.send(JSON.stringify(message) + '\x1e');
      const pings = setInterval(() => send({ type: 6 }), 100);
      socket.on('close', () => clearInterval(pings));
      socket.on('message', (data) => {
        for (const part of data.toString().split('\x1e').filter(Boolean)) {
          const message = JSON.parse(part);
          if (message.protocol) send({});
          else if (message.type === 6) say('heartbeat');
          else if (message.target === 'Echo')
            send({ type: 3, invocationId: message.invocationId, result: message.arguments[0] });
          else if (message.target === 'CloseMe') {
            send({ type: 7, error: 'the server is done' });
            socket.close(4002, 'the server is done');
          }
        }
      });
    });
  },

  // What a channel says of version 2 of Phoenix's protocol.
  phoenix() {
    webSocketServer().on('connection', (socket) => {
      socket.on('message', (data) => {
        const [joined, ref, topic, event, payload] = JSON.parse(data);
        if (event === 'close me') return socket.close(4002, 'the server is done');
        if (event === 'heartbeat') say('heartbeat');
        const reply = { status: 'ok', response: payload };
        socket.send(JSON.stringify([joined, ref, topic, 'phx_reply', reply]));
      });
    });
  },

  // The page for the browser, the modules that it loads, and the place where it reports.
  page() {
    const http = createServer((request, response) => {
      const path = new URL(request.url, 'http://localhost').pathname;
      if (request.method === 'POST') {
        let body = '';
        request.on('data', (data) => (body += data));
        request.on('end', () => (say('result', body), response.end()));
      } else if (path === '/messages.mjs' || path === '/page.html') {
        const type = path.endsWith('.html') ? 'text/html; charset=utf-8' : 'text/javascript';
        response.writeHead(200, { 'Content-Type': type }).end(readFileSync(`.${path}`));
      } else response.writeHead(404).end();
    });
    http.listen(0, '127.0.0.1', () => listens(http));
  },
};

servers[process.argv[2]]();
