// Works the runs of the queue "orders", one at a time: node worker.js [--stop-when-idle]
// Where the database is comes from PGHOST, PGDATABASE and so on. Start as many as you like.

import os from 'node:os'
import pg from 'pg'

const QUEUE = 'orders'
const POLL_MS = 1000 * (process.env.POLL_SECONDS ?? 5)
const WORKER_ID = `${os.hostname()} ${process.pid}`
const STOP = new Error('the worker is stopping')

const pool = new pg.Pool({ max: 3 })
pool.on('error', () => {}) // an idle connection broke: the next query takes another

// A query that is a transaction of its own
async function query (sql, ...values) {
  return (await pool.query(sql, values)).rows
}

// ---------- What this worker is for ----------

async function order (run, signal) {
  const orderId = run.payload?.order_id
  if (!Number.isInteger(orderId)) throw Object.assign(new Error('no order_id'), { retry: false })

  if (run.payload.needs_approval) {
    const token = await once(run, 'ask', key => ask(key, orderId))
    const approval = await waitForToken(run, token)
    if (approval.ok === null) return // the run waits, and nobody works it; we go on with others
    if (!approval.output?.approved) throw Object.assign(new Error('not approved'), { retry: false })
  }

  const charge = await once(run, 'charge', key => pay(key, orderId, signal))
  signal.throwIfAborted()

  await inTransaction(async client => {
    await client.query('SELECT trigger_idem.run_enter($1, $2)', [run.run_id, run.attempt])
    await client.query('INSERT INTO booking VALUES ($1, $2, trigger_idem.current_run_id())', [orderId, charge])
    await client.query('SELECT trigger_idem.run_complete($1, $2, $3)',
      [run.run_id, run.attempt, JSON.stringify({ charge })])
  })
}

// Has somebody asked, who finds the order and its token in the table approval. The run
// goes on when he calls wait_token_complete(token, '{"approved": true}').
async function ask (key, orderId) {
  const [{ token }] = await query("SELECT token FROM trigger_idem.wait_token_create($1, timeout => '3 days')", key)
  await query('INSERT INTO approval VALUES ($1, $2) ON CONFLICT DO NOTHING', orderId, token)
  return token
}

// Pretends to be outside the database. A real one would be
//   fetch(url, { method: 'POST', headers: { 'Idempotency-Key': key }, signal, ... })
async function pay (key, orderId, signal) {
  return (await query('SELECT pay($1, $2) AS charge', key, orderId))[0].charge
}

// ---------- What every worker does ----------

// A step: what the callback returned is stored, and it is not called again.
async function once (run, key, callback) {
  const [step] = await query('SELECT * FROM trigger_idem.run_once_begin($1, $2, $3)', run.run_id, run.attempt, key)
  if (step.is_cached) return step.output
  const output = await callback(step.idempotency_key)
  await query('SELECT trigger_idem.run_once_end($1, $2, $3, $4)',
    run.run_id, run.attempt, key, JSON.stringify(output ?? null))
  return output
}

// ok is null where the token is not completed: the commit has ended the attempt, and the
// run is claimed again, as another attempt, when it is. The steps that are done stay done.
async function waitForToken (run, token) {
  return inTransaction(async client => {
    await client.query('SELECT trigger_idem.run_enter($1, $2)', [run.run_id, run.attempt])
    return (await client.query('SELECT * FROM trigger_idem.wait_for_token($1)', [token])).rows[0]
  })
}

async function inTransaction (work) {
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    const result = await work(client)
    await client.query('COMMIT')
    client.release()
    return result
  } catch (error) {
    client.release(true) // closing the connection rolls back
    throw error
  }
}

let current // the AbortController of the run in hand

async function work (run) {
  const abort = current = new AbortController()
  const heartbeat = setInterval(() => {
    query('SELECT trigger_idem.run_heartbeat($1, $2)', run.run_id, run.attempt).catch(error => {
      if (error.code === 'TI002') abort.abort(error) // canceled, or taken over
    })
  }, run.lease * 1000 / 3)
  try {
    await order(run, abort.signal)
  } catch (error) {
    await end(run, error).catch(lost => console.error(`run ${run.run_id}: ${lost.message}`))
  } finally {
    clearInterval(heartbeat)
  }
}

async function end (run, error) {
  if (error.code === 'TI002') throw error // it is not ours any more
  if (error === STOP) {
    await query('SELECT trigger_idem.run_release($1, $2)', run.run_id, run.attempt)
  } else {
    await query('SELECT trigger_idem.run_fail($1, $2, $3, $4)', run.run_id, run.attempt,
      JSON.stringify({ code: error.code, message: error.message }), error.retry ?? true)
  }
}

const stopWhenIdle = process.argv.includes('--stop-when-idle')
let stopping = false
let woken = false
let endSleep = () => {}

function wake () {
  woken = true
  endSleep()
}

// Until somebody wakes us, or POLL_MS have passed
async function sleep () {
  let timer
  if (!woken) await new Promise(resolve => { endSleep = resolve; timer = setTimeout(resolve, POLL_MS) })
  clearTimeout(timer)
}

process.on('SIGTERM', () => {
  console.log('stopping')
  stopping = true
  current?.abort(STOP)
  wake()
})

// LISTEN needs a connection of its own: where the others go to a pooler, another server
const listener = new pg.Client({ host: process.env.LISTEN_HOST, port: process.env.LISTEN_PORT })
listener.on('error', () => {}) // then there is polling
listener.on('notification', message => { if (message.payload === QUEUE) wake() })
await listener.connect()
await listener.query('LISTEN trigger_idem')

while (!stopping) {
  try {
    woken = false
    const [run] = await query(
      `SELECT *, extract(epoch FROM lease_expires_at - clock_timestamp())::float8 AS lease
       FROM trigger_idem.run_claim($1, $2)`, WORKER_ID, QUEUE)
    if (run) await work(run)
    else if (stopWhenIdle) break
    else await sleep()
  } catch (error) {
    console.error(`cannot claim: ${error.message}`)
    await sleep()
  }
}
await listener.end().catch(() => {})
await pool.end()
