// Keeps the latest of each case that Huashi tells of, in a file of SQLite.
//
//     npm ci
//     AMQP_URI=amqp://system.hotline:PASSWORD@HOST:5672 QUEUE=system.hotline.events \
//         STORE=cases.db node subscriber.mjs
//
// It may be ended at any time, also by kill -9, and started again.

import { DatabaseSync } from "node:sqlite";
import { setTimeout as pause } from "node:timers/promises";
import amqp from "amqplib";

const STAGES = ["held", "withdrawn", "resolved", "closed"];

// What makes one event of a case later than another, in whatever order they come. A stage that
// this program does not know yet counts as the last.
function order(event) {
  const { round, stage, hop, seq } = event.data.state.token;
  const place = STAGES.indexOf(stage);
  return [round, place < 0 ? STAGES.length : place, hop, seq];
}

function later(event, known) {
  const [one, other] = [order(event), order(known)];
  const place = one.findIndex((number, index) => number !== other[index]);
  return place >= 0 && one[place] > other[place];
}

const file = new DatabaseSync(process.env.STORE);
file.exec("CREATE TABLE IF NOT EXISTS cases (id TEXT PRIMARY KEY, event TEXT)");
const find = file.prepare("SELECT event FROM cases WHERE id = ?");
const keep = file.prepare("INSERT OR REPLACE INTO cases VALUES (?, ?)");

// Keeps an event if it is later than what is known; it is on disk when this returns.
function take(event) {
  order(event); // what has none is not kept
  const row = find.get(event.subject);
  if (row && !later(event, JSON.parse(row.event))) return false;
  keep.run(event.subject, JSON.stringify(event));
  return true;
}

let stopping = false;
let connection = null;

function handle(channel, message) {
  // The queue was deleted: begin again, and wait until it is there.
  if (message === null) return connection.close();
  let event, isNew;
  try {
    event = JSON.parse(message.content.toString("utf8"));
    isNew = take(event);
  } catch (error) {
    if (error.code === "ERR_SQLITE_ERROR") throw error;
    // Again it would be as wrong. Huashi counts it as lost, and can send it again.
    console.error("not understood:", error.message);
    return channel.reject(message, false);
  }
  // Only now: what is not acknowledged comes again.
  channel.ack(message);
  if (isNew) {
    const { token, address } = event.data.state;
    console.log(event.subject, token.stage, address.level, address.division);
  }
}

// Reads until the connection ends.
async function read() {
  connection = await amqp.connect(process.env.AMQP_URI, { heartbeat: 30 });
  const closed = new Promise((resolve) => connection.once("close", resolve));
  connection.on("error", (error) => console.error("interrupted:", error.message));
  const channel = await connection.createChannel();
  channel.on("error", (error) => {
    console.error("interrupted:", error.message);
    connection.close().catch(() => {});
  });
  // No more than a hundred are on their way to us at a time.
  await channel.prefetch(100);
  await channel.consume(process.env.QUEUE, (message) => handle(channel, message));
  await closed;
}

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    stopping = true;
    connection?.close().catch(() => {});
  });
}

for (let seconds = 1; !stopping; seconds = Math.min(2 * seconds, 30)) {
  const began = Date.now();
  try {
    await read();
  } catch (error) {
    console.error("can't read:", error.message);
  }
  // After a connection that held for a while it begins anew.
  if (Date.now() - began > 60_000) seconds = 1;
  // Many that lost the same broker must not come back at the same moment.
  if (!stopping) await pause(seconds * 1000 * (0.5 + Math.random() / 2));
}
