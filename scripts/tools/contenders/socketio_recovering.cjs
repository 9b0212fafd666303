// Socket.IO with connection state recovery, over its Redis Streams adapter: rooms named by the query.
// Run as `node socketio_recovering.cjs FOLDER REDIS PORT`, where FOLDER has node_modules. Answers
// GET with 200, sends what standard input says, and at its end closes all clients and ends.
"use strict";

const { createRequire } = require("node:module");
const { createServer } = require("node:http");
const { createInterface } = require("node:readline");

const [folder, redis, port] = process.argv.slice(2);
const installed = createRequire(folder + "/");
const { Server } = installed("socket.io");
const { createAdapter } = installed("@socket.io/redis-streams-adapter");
const { Redis } = installed("ioredis");

const SESSIONS_WRITTEN = 1000; // ms: the adapter stores each session without telling when it is done
const answer = (fields) => process.stdout.write(JSON.stringify(["answer", fields]) + "\n");

const web = createServer((_, response) => response.end("ok"));
const io = new Server(web, {
  adapter: createAdapter(new Redis(redis.replace("unix://", "")), { maxLen: 100000 }),
  connectionStateRecovery: { maxDisconnectionDuration: 120000 },
  perMessageDeflate: false,
  transports: ["websocket"],
});
io.on("connection", (socket) => {
  if (!socket.recovered) socket.join([socket.handshake.query.room, socket.handshake.query.id]);
});

const commands = { send: ({ room, text }) => io.to(room).emit("message", text) };
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { do: name, ...fields } = JSON.parse(line);
  commands[name](fields);
  answer({});
});
lines.on("close", () => {
  io.close();
  setTimeout(() => process.exit(0), SESSIONS_WRITTEN);
});
web.listen(Number(port), "127.0.0.1", () => answer({ port: web.address().port }));
