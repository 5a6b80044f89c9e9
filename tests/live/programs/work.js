// SPDX-License-Identifier: GPL-2.0-only
// node at work: timers, promises, file reads through its thread pool, a worker thread.
const fs = require('fs');
const { Worker } = require('worker_threads');

const dir = process.argv[2];
let step = 0;
let ready = false;
const worker = new Worker(
  "const { parentPort } = require('worker_threads'); parentPort.on('message', (n) => parentPort.postMessage([n, n * n]));",
  { eval: true });
const waiting = new Map();
worker.on('message', ([n, square]) => { waiting.get(n)(square); waiting.delete(n); });
const squareOf = (n) => new Promise((resolve) => { waiting.set(n, resolve); worker.postMessage(n); });
fs.writeFileSync(`${dir}/data`, 'x'.repeat(100000));

function put(name, text) {
  fs.writeFileSync(`${dir}/${name}.new`, text);
  fs.renameSync(`${dir}/${name}.new`, `${dir}/${name}`);
}

async function tick() {
  let bad = '';
  step += 1;
  if (await squareOf(step) !== step * step) bad = 'BAD worker';
  const data = await fs.promises.readFile(`${dir}/data`);
  if (data.length !== 100000) bad = 'BAD read';
  if (!ready) { put('ready', String(process.pid)); ready = true; }
  if (bad || fs.existsSync(`${dir}/go`)) {
    fs.rmSync(`${dir}/go`, { force: true });
    put('report', `step ${step} ${bad || 'ok'}\n`);
  }
  setTimeout(tick, 1);
}
tick();
