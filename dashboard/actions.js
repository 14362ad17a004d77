// What can be done on the pages. Each action names the function that it calls, which the
// role must be allowed to execute; the rest is up to the database, which refuses what the
// role may not do.

import { escapeHtml } from './html.js'

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

async function readRun (query, { run }) {
  const rows = UUID.test(run ?? '')
    ? await query('SELECT run_id, task_id, environment, status, idempotency_key, idempotency_key_hex FROM trigger_idem.runs WHERE run_id = $1', run)
    : []
  if (!rows.length) throw Object.assign(new Error(`run ${run} does not exist`), { status: 404 })
  return rows[0]
}

async function readQueue (query, { queue }) {
  if (!queue) throw Object.assign(new Error('there is no queue without a name'), { status: 404 })
  return { queue }
}

function conflict (message) {
  return Object.assign(new Error(message), { status: 409 })
}

export const actions = {
  reset: {
    title: 'Reset the key',
    button: 'Reset key',
    function: 'trigger_idem.idempotency_key_reset(text,text,text)',
    read: readRun,
    tells: run => `The next trigger of the task ${run.task_id} with the key ${run.idempotency_key} will make a new run. ` +
      'This run goes on as it is.',
    async carryOut (query, { run }) {
      const row = await readRun(query, { run })
      const [{ done }] = row.idempotency_key_hex
        ? await query('SELECT trigger_idem.idempotency_key_reset($1, $2, $3) AS done', row.task_id, row.idempotency_key_hex, row.environment)
        : [{ done: false }]
      if (!done) throw conflict('The key does not stand for this run any more.')
      return `${run}.html`
    }
  },
  cancel: {
    title: 'Cancel the run',
    button: 'Cancel',
    function: 'trigger_idem.run_cancel(uuid)',
    read: readRun,
    tells: run => `The run of the task ${run.task_id}, which is ${run.status}, ends as canceled, and so do the unfinished runs ` +
      'that it has triggered, unless others wait for them.',
    async carryOut (query, { run }) {
      const [{ done }] = await query('SELECT trigger_idem.run_cancel($1) AS done', run)
      if (!done) throw conflict('The run had ended before.')
      return `${run}.html`
    }
  },
  replay: {
    title: 'Replay the run',
    button: 'Replay',
    function: 'trigger_idem.run_replay(uuid)',
    read: readRun,
    tells: run => `A new run of the task ${run.task_id} is triggered, with the same payload and options and without a key.`,
    async carryOut (query, { run }) {
      const [{ id }] = await query('SELECT trigger_idem.run_replay($1) AS id', run)
      return `${id}.html`
    }
  },
  pause: {
    title: 'Pause the queue',
    button: 'Pause',
    function: 'trigger_idem.queue_pause(text)',
    read: readQueue,
    tells: ({ queue }) => `Nothing more is claimed from the queue ${queue} until it is resumed. What executes goes on.`,
    async carryOut (query, { queue }) {
      await query('SELECT trigger_idem.queue_pause($1)', queue)
      return 'runs.html'
    }
  },
  resume: {
    title: 'Resume the queue',
    button: 'Resume',
    function: 'trigger_idem.queue_resume(text)',
    read: readQueue,
    tells: ({ queue }) => `Runs of the queue ${queue} are claimed again.`,
    async carryOut (query, { queue }) {
      await query('SELECT trigger_idem.queue_resume($1)', queue)
      return 'runs.html'
    }
  }
}

// Put buttons where a page of the database has room for them. What is taken from there is
// escaped already.
export function buttons (page, allowed) {
  const link = (name, subject) => allowed.has(name)
    ? `<a class="button" href="confirm?action=${name}&amp;${subject}">${actions[name].button}</a>`
    : ''
  return page
    .replace(/(<div class="actions" data-run="([^"]*)" data-final="([tf])" data-key="([^"]*)"[^>]*>)(?=<\/div>)/g,
      (all, start, run, isFinal, key) => start + (key ? link('reset', `run=${run}`) : '') + link('replay', `run=${run}`) +
        (isFinal === 't' ? '' : link('cancel', `run=${run}`)))
    .replace(/(<div class="actions" data-queue="([^"]*)" data-paused="([tf])">)(?=<\/div>)/g,
      (all, start, queue, isPaused) => start + link(isPaused === 't' ? 'resume' : 'pause', `queue=${encodeEscaped(queue)}`))
}

// For a query in a link, from text that is escaped for HTML
function encodeEscaped (text) {
  const characters = { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'", '&amp;': '&' }
  return encodeURIComponent(text.replace(/&(lt|gt|quot|#39|amp);/g, entity => characters[entity])).replace(/'/g, '%27')
}

export function confirmation (parameters, action, subject, token) {
  const hidden = (name, value) => `<input type="hidden" name="${name}" value="${escapeHtml(value)}">`
  const back = subject.run_id ? `${subject.run_id}.html` : 'runs.html'
  return `<section><p>${escapeHtml(action.tells(subject))}</p>
<div class="actions"><form method="post" action="do">${hidden('token', token)}${hidden('action', parameters.action)}` +
    (subject.run_id ? hidden('run', subject.run_id) : hidden('queue', subject.queue)) +
    `<button class="primary" autofocus>${escapeHtml(action.title)}</button></form>
<a class="button" href="${back}">Back</a></div></section>`
}
