// BullMQ on Node: addBulk, and one Worker with a fixed concurrency. The twin of tally.py for Node is in this file.
import { createRequire } from "node:module";
import { writeSync, openSync } from "node:fs";
import { createInterface } from "node:readline";
import { join } from "node:path";

const require = createRequire(join(process.env.BENCH_MODULES, "index.js"));
const { Queue, Worker, FlowProducer } = require("bullmq");

const { hostname: host, port } = new URL(process.env.BENCH_URL);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const count = Number(process.env.BENCH_COUNT);
const each = process.env.BENCH_EACH === "1";
const pipe = openSync(process.env.BENCH_PIPE, "w");
const word = process.argv[2];
const NAME = "bench";
const BULK = 1000;
const IN_FLIGHT = 50;
const UNTOLD = 5; // ms, see tally.py

const tell = (...words) => writeSync(pipe, words.join(" ") + "\n");
const now = () => process.hrtime.bigint();
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
};
const stamp = (what) => tell(what, now(), cpu());

async function timed(work) {
  const began = now();
  await work();
  tell("took", now() - began);
}

async function enqueue(queue) {
  for (let first = 0; first < count; first += BULK) {
    const size = Math.min(BULK, count - first);
    await queue.addBulk(Array.from({ length: size }, () => ({ name: "noop", data: {} })));
  }
}

const step = (name, children) => ({ name, queueName: NAME, data: {}, children });

async function chain(flows) {
  for (let first = 0; first < count; first += BULK) {
    const size = Math.min(BULK, count - first);
    await flows.addBulk(Array.from({ length: size }, () => step("third", [step("second", [step("first")])])));
  }
}

async function singles(queue) {
  let left = count;
  const some = async () => {
    while (left-- > 0) await queue.add("noop", {});
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, some));
}

function work() {
  let started = 0;
  let ended = 0;
  const job = async () => {
    if (each) tell("start", now());
    else if (++started === 1) stamp("first");
  };
  const worker = new Worker(NAME, job, { connection, concurrency: 200 });
  worker.on("completed", () => {
    if (each) return;
    ended += 1;
    if (ended === count) stamp("last");
    else if (ended > count) tell("extra", ended);
  });
  worker.on("ready", () => tell("ready"));
  process.on("SIGTERM", () => worker.close().then(() => process.exit(0)));
}

if (word === "work") work();
else {
  const queue = new Queue(NAME, { connection });
  await queue.waitUntilReady();
  if (word === "enqueue") await timed(() => enqueue(queue));
  else if (word === "singles") await timed(() => singles(queue));
  else if (word === "chain") {
    const flows = new FlowProducer({ connection });
    await flows.waitUntilReady();
    await timed(() => chain(flows));
    await flows.close();
  } else {
    tell("ready");
    for await (const _ of createInterface({ input: process.stdin })) {
      const began = now();
      await queue.add("noop", {});
      await new Promise((done) => setTimeout(done, UNTOLD));
      tell("submit", began);
    }
  }
  await queue.close();
  process.exit(0);
}
