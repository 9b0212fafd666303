// Socket.IO with its Redis adapter; everyone in a room named by its id.
// Run as `node socketio_node.cjs FOLDER REDIS GATE`, where FOLDER has node_modules.
// Answers the commands of tools/bench/sender.py, and ends with its standard input.
"use strict";

const { createRequire } = require("node:module");
const { createServer } = require("node:http");
const { createInterface } = require("node:readline");
const net = require("node:net");

const [folder, redis, gateFd] = process.argv.slice(2);
const installed = createRequire(folder + "/");
const { Server } = installed("socket.io");
const { createAdapter } = installed("@socket.io/redis-adapter");
const { Redis } = installed("ioredis");

const SIZE = 128;
const GATE_TIMEOUT = 60000;
const answer = (fields) => process.stdout.write(JSON.stringify(["answer", fields]) + "\n");

// A message of tools/bench/payloads.py.
const payload = (number, id) => `${String(number).padStart(8, "0")} ${id} `.padEnd(SIZE, ".");

// Resolves to whether a byte has come through the gate in time.
function gateOf(fd) {
  let arrived = 0;
  let wake = null;
  const gate = new net.Socket({ fd, readable: true, writable: false });
  gate.on("data", (data) => {
    arrived += data.length;
    if (wake) wake(true);
  });
  gate.on("end", () => wake && wake(false));
  return () =>
    new Promise((resolve) => {
      const timer = setTimeout(() => done(false), GATE_TIMEOUT);
      const done = (opened) => {
        clearTimeout(timer);
        wake = null;
        if (opened) arrived -= 1;
        resolve(opened);
      };
      if (arrived) done(true);
      else wake = done;
    });
}

async function main() {
  const publisher = new Redis(redis.replace("unix://", ""));
  const subscriber = publisher.duplicate();
  const web = createServer();
  const io = new Server(web, {
    adapter: createAdapter(publisher, subscriber),
    perMessageDeflate: false,
    transports: ["websocket"],
  });
  io.on("connection", (socket) => socket.join(socket.handshake.query.id));

  const opened = gateOf(Number(gateFd));
  let ids = [];
  let rounds = [];

  async function each(send) {
    for (const messages of rounds) {
      send(messages);
      if (!(await opened())) return { "rounds lost": 1 };
    }
    return { "rounds lost": 0 };
  }

  const commands = {
    know: ({ ids: known }) => {
      ids = known;
      return {};
    },
    load: ({ rounds: count, burst, first, targeted }) => {
      rounds = Array.from({ length: count }, (_, round) => {
        const at = first + round * burst;
        return targeted
          ? ids.map((id) => payload(at, id))
          : Array.from({ length: burst }, (_, more) => payload(at + more, "*"));
      });
      return {};
    },
    broadcast: () => each((messages) => messages.forEach((text) => io.emit("message", text))),
    targeted: () =>
      each((messages) => messages.forEach((text, at) => io.to(ids[at]).emit("message", text))),
  };

  web.listen(0, "127.0.0.1", () => answer({ port: web.address().port }));
  const lines = createInterface({ input: process.stdin });
  lines.on("line", async (line) => {
    const { do: name, ...fields } = JSON.parse(line);
    answer(await commands[name](fields));
  });
  lines.on("close", () => process.exit(0));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
