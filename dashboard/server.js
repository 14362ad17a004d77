#!/usr/bin/env node
// Shows the pages of trigger_idem in a browser: node server.js [--host 127.0.0.1] [--port 8790]
// [--allow-host NAME]... Where the database is comes from PGHOST, PGDATABASE, PGUSER and so on.
//
// The pages are made in the database, with the rights of the role that connects.
// This adds what a file cannot do: it refreshes them and carries out actions.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { actions, buttons, confirmation } from './actions.js'
import { Guard, Refused } from './guard.js'
import { escapeHtml } from './html.js'

const RUN_PAGE = /^\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.html$/
const MAX_FORM_BYTES = 10000
const REFRESH_SCRIPT = readFileSync(new URL('refresh.js', import.meta.url))

const { values: options } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '8790' },
    'allow-host': { type: 'string', multiple: true, default: [] }
  }
})
const guard = new Guard([options.host, ...options['allow-host']])
const pool = new pg.Pool({ max: 5, application_name: 'trigger_idem dashboard', statement_timeout: 10000 })
pool.on('error', () => {}) // an idle connection broke: the next query takes another

async function query (sql, ...values) {
  return (await pool.query(sql, values)).rows
}

// ---------- Pages ----------

// The actions that the role may carry out; the others are not shown.
async function allowedActions () {
  const names = Object.keys(actions)
  const rows = await query(
    `SELECT n.name FROM unnest($1::text[], $2::text[]) n(name, function)
     WHERE pg_catalog.has_function_privilege(n.function, 'EXECUTE')`,
    names, names.map(name => actions[name].function))
  return new Set(rows.map(row => row.name))
}

// A page of the database, with buttons, and with a policy that allows our script. No
// value can look like what is replaced: all of them are escaped.
async function decorate (page, request) {
  const allowed = await allowedActions()
  const etag = '"' + digest(page.replace(/<span data-now>.*?<\/span>/, '')).slice(0, 32) + '"'
  const decorated = buttons(page, allowed).replace(/<!--policy-->.*<!--\/policy-->/,
    `<meta name="etag" content="${escapeHtml(etag)}"><script src="refresh.js" defer></script>`)
  return request.headers['if-none-match'] === etag
    ? { status: 304, headers: { ETag: etag } }
    : html(200, decorated, { ETag: etag })
}

function html (status, page, headers = {}) {
  const style = page.match(/<style>([^]*?)<\/style>/)?.[1] ?? ''
  return {
    status,
    body: page,
    headers: {
      ...headers,
      'Content-Type': 'text/html; charset=utf-8',
      'Content-Security-Policy': "default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'self'; " +
        `base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-${digest(style, 'base64')}'`
    }
  }
}

// A page of our own, which looks like those of the database; main is HTML.
async function ownPage (status, title, main, headers) {
  const [{ page }] = await query('SELECT trigger_idem.html_page($1, $2, false) AS page', title,
    `<div class="head"><h1>${escapeHtml(title)}</h1></div>\n${main}`)
  return html(status, page.replace(/<!--policy-->.*<!--\/policy-->/, ''), headers)
}

function digest (text, encoding = 'hex') {
  return createHash('sha256').update(text).digest(encoding)
}

function redirect (to) {
  return { status: 303, headers: { Location: to } }
}

// ---------- Requests ----------

async function show (request, url) {
  const run = url.pathname.match(RUN_PAGE)
  if (run) {
    const [{ page }] = await query('SELECT trigger_idem.run_page($1) AS page', run[1])
    return decorate(page, request)
  }
  switch (url.pathname) {
    case '/':
      return redirect('runs.html')
    case '/runs.html': {
      const filter = {}
      for (const [name, value] of url.searchParams) {
        filter[name] = filter[name] && value ? filter[name] + ',' + value : filter[name] || value
      }
      const [{ page }] = await query('SELECT trigger_idem.runs_page($1) AS page', JSON.stringify(filter))
      return decorate(page, request)
    }
    case '/confirm':
      return confirm(request, Object.fromEntries(url.searchParams))
    case '/refresh.js':
      return { status: 200, body: REFRESH_SCRIPT, headers: { 'Content-Type': 'text/javascript; charset=utf-8' } }
    default:
      return ownPage(404, 'There is no such page', '<section><a href="runs.html">To the runs</a></section>')
  }
}

function actionNamed (name) {
  if (!Object.hasOwn(actions, name ?? '')) throw new Refused(404, 'There is no such action')
  return actions[name]
}

// Asks before an action; the form that is sent then carries a token.
async function confirm (request, parameters) {
  const action = actionNamed(parameters.action)
  if (!(await allowedActions()).has(parameters.action)) throw new Refused(404, 'There is no such action')
  const subject = await action.read(query, parameters)
  const { token, cookie } = guard.token(request)
  return ownPage(200, action.title, confirmation(parameters, action, subject, token), cookie && { 'Set-Cookie': cookie })
}

async function act (request) {
  const form = Object.fromEntries(new URLSearchParams(await body(request)))
  guard.checkForm(request, form.token)
  const action = actionNamed(form.action)
  return redirect(await action.carryOut(query, form))
}

async function body (request) {
  let text = ''
  request.setEncoding('utf8')
  for await (const part of request) {
    text += part
    if (text.length > MAX_FORM_BYTES) throw new Refused(413, 'The form is too long')
  }
  return text
}

async function answer (request) {
  guard.checkHost(request)
  const url = new URL(request.url, 'http://localhost')
  if (request.method === 'GET' || request.method === 'HEAD') return show(request, url)
  if (request.method === 'POST' && url.pathname === '/do') return act(request)
  throw new Refused(405, 'This method is not known here')
}

// What has gone wrong, as a page; a plain one where the database does not answer.
async function failure (error) {
  const status = error.status ??
    ({ 42704: 404, 22023: 400, '22P02': 400, 42501: 403, '55P03': 409, 55000: 409 }[error.code] ?? 503)
  if (status === 503) console.error(error)
  try {
    if (error instanceof Refused && error.isPlain) throw error
    return await ownPage(status, 'That did not work', '<section class="error"><p><b>' + escapeHtml(error.message) + '</b></p>' +
      (error.detail ? `<p>${escapeHtml(error.detail)}</p>` : '') + (error.hint ? `<p class="soft">${escapeHtml(error.hint)}</p>` : '') +
      '</section><p><a href="runs.html">To the runs</a></p>')
  } catch {
    return { status, body: status === 503 ? 'The database does not answer.\n' : error.message + '\n', headers: { 'Content-Type': 'text/plain; charset=utf-8' } }
  }
}

const server = http.createServer(async (request, response) => {
  const { status, body, headers } = await answer(request).catch(failure)
  response.writeHead(status, {
    'Cache-Control': 'no-store',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'same-origin',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    ...headers
  })
  response.end(request.method === 'HEAD' ? undefined : body)
})

// ---------- Start and stop ----------

try {
  await query("SELECT trigger_idem.runs_page('{\"limit\": 1}')")
} catch (error) {
  console.error(`trigger_idem dashboard: ${error.message || error.code}`)
  if (error.code === '42501') console.error('The role needs the access "monitor".')
  process.exit(1)
}
server.listen({ host: options.host, port: Number(options.port) }, () => {
  const { address, port, family } = server.address()
  console.log(`trigger_idem dashboard: http://${family === 'IPv6' ? `[${address}]` : address}:${port}/`)
  if (!['127.0.0.1', '::1'].includes(address)) console.log('It has no login of its own: put it behind a proxy that has one.')
})
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close(() => pool.end())
    server.closeIdleConnections()
  })
}
