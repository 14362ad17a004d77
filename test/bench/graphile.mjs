// graphile-worker beside trigger_idem: prints jobs a second and the latency from
// the commit of a job to the start of its handler.
//
//   node graphile.mjs rate JOBS [batched]
//   node graphile.mjs latency JOBS

import { run } from 'graphile-worker';
import pg from 'pg';

const [what, jobs, batched] = process.argv.slice(2);
const pool = new pg.Pool({ max: 26 });
pool.on('error', () => {});

let started = 0;
let first, last, seen;
const now = () => performance.timeOrigin + performance.now();

const runner = await run({
  pgPool: pool,
  noHandleSignals: true,
  taskList: {
    noop: async () => {
      last = now();
      first ??= last;
      started += 1;
      seen?.(last);
    },
  },
  preset: {
    worker: {
      concurrentJobs: what === 'latency' ? 1 : 24,
      pollInterval: 2000,
      ...(batched && { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }),
    },
  },
});

if (what === 'rate') {
  await pool.query("SELECT count(graphile_worker.add_job('noop', '{}')) FROM generate_series(1, $1::int)", [jobs]);
  while (started < jobs) await new Promise((resolve) => setTimeout(resolve, 10));
  console.log(((1000 * jobs) / (last - first)).toFixed(0));
} else {
  const latencies = [];
  const client = await pool.connect();
  for (let i = 0; i < jobs; i++) {
    const handled = new Promise((resolve) => (seen = resolve));
    await client.query("SELECT graphile_worker.add_job('noop', '{}')");
    const committed = now();
    latencies.push(Math.max(0, (await handled) - committed));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  client.release();
  latencies.sort((a, b) => a - b);
  console.log(`${latencies[Math.floor(jobs / 2)].toFixed(3)} ${latencies[Math.floor(jobs * 0.99)].toFixed(3)}`);
}
await runner.stop();
await pool.end().catch(() => {});
process.exit(0);
