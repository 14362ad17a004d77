// Looks at the dashboard with Chromium, for test/dashboard.sh: prints TAP.
//
// Nothing here waits for a time: a page is awaited by what it shows, a handler stops at
// a gate, which is an advisory lock.

import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import pg from 'pg'
import { chromium } from 'playwright-core'

const { ADMIN, MONITOR, WORK, SCREENSHOTS } = process.env
const axe = readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8')
let tests = 0
let failed = 0

// ---------- TAP ----------

function ok (name, holds, ...details) {
  tests++
  if (!holds) failed++
  console.log(`${holds ? 'ok' : 'not ok'} - ${name}`)
  if (!holds) for (const detail of details) console.log('# ' + String(detail).replaceAll('\n', '\n# '))
}

function is (name, got, expected) {
  const [one, other] = [got, expected].map(value => JSON.stringify(value))
  ok(name, one === other, `got: ${one}`, `expected: ${other}`)
}

// ---------- The database ----------

const database = new pg.Client()
await database.connect()

async function sql (text, ...values) {
  return (await database.query(text, values)).rows
}

async function trigger (task, payload, key = null, options = '') {
  const [row] = await sql(`SELECT run_id, is_cached FROM trigger_idem.trigger_task($1, $2, $3 ${options})`, task, JSON.stringify(payload), key)
  return row
}

async function statusOf (run) {
  return (await sql('SELECT status FROM trigger_idem.runs WHERE run_id = $1', run))[0].status
}

// A session of its own works what is due in a queue.
async function startWork (queue) {
  const session = new pg.Client()
  await session.connect()
  return session.query(`CALL trigger_idem.work('${queue}')`).finally(() => session.end())
}

// Until a query says true
async function until (text, ...values) {
  const deadline = Date.now() + 60000
  while (!Object.values((await sql(text, ...values))[0])[0]) {
    if (Date.now() > deadline) throw new Error(`waited in vain for: ${text}`)
  }
}

// ---------- The browser ----------

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync']
})
const complaints = []

async function newPage (options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 860 }, ...options })
  const page = await context.newPage()
  page.on('dialog', dialog => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss() })
  page.on('pageerror', error => complaints.push(`error: ${error}`))
  page.on('console', message => { if (/Content Security Policy|TypeError/.test(message.text())) complaints.push(message.text()) })
  page.on('request', request => {
    if (!/^(file:|data:|http:\/\/(127\.0\.0\.1|localhost):)/.test(request.url())) complaints.push(`outside: ${request.url()}`)
  })
  return page
}

async function screenshot (page, name, options = { fullPage: true }) {
  if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, ...options })
}

// What axe finds that is serious; through the debugger, which no policy forbids
async function checkAccessibility (page, name) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate('axe.run()')
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
  ok(`axe finds nothing serious: ${name}`, serious.length === 0,
    ...serious.map(v => `${v.id}: ${v.nodes.map(node => node.html.slice(0, 120)).join(' ')}`))
}

// What is done leads to another page, which is awaited
async function leads (action) {
  await Promise.all([page.waitForNavigation(), action()])
}

async function texts (page, selector) {
  return page.locator(selector).allInnerTexts()
}

const page = await newPage()

// ---------- Runs to look at ----------

const order = { order: 4711, mail: 'ada@example.com', amount: { value: '49.90', currency: 'EUR' }, lines: [{ sku: 'A-1', count: 2 }, { sku: 'B-7', count: 1 }] }
const { run_id: fulfil } = await trigger('fulfil', order, 'order-4711', ", tags => '{web,eu}', metadata => '{\"source\": \"shop\"}'")
await startWork('default')
await startWork('printer')
await until("SELECT status = 'queued' FROM trigger_idem.runs WHERE run_id = $1", fulfil)
await startWork('default')
await until("SELECT status IN ('queued', 'completed') FROM trigger_idem.runs WHERE run_id = $1", fulfil)
await startWork('default')
const [{ run_id: label }] = await sql("SELECT run_id FROM trigger_idem.runs WHERE task_id = 'label'")
const evil = '</script><script>document.title = "evil"; alert(1)</script>'
const { run_id: broken } = await trigger('broken', { [evil]: evil }, `<img src=x onerror="alert(2)">`)
await startWork('broken')
const { run_id: long } = await trigger('echo', { lines: Array.from({ length: 200 }, (_, n) => `line ${n}`) })
await startWork('echo')
const { run_id: delayed } = await trigger('echo', null, null, ", delay => '1 hour'")
await trigger('echo', { tenant: 'x' }, 'key <1>', ", environment => 'staging'")

// ---------- The list ----------

await page.goto(ADMIN)
is('the address leads to the list', new URL(page.url()).pathname, '/runs.html')
is('the newest runs come first', (await texts(page, '#list ~ .scroll td:nth-child(2) a')).join(' '), 'echo echo echo broken label fulfil')
is('runs are counted by state', await page.locator('.chips a', { hasText: 'completed' }).innerText(), 'completed 3')
ok('a chart shows what was triggered', /^6 runs triggered from .*, of which 1 failed/.test(await page.locator('.chart').getAttribute('aria-label')))
await checkAccessibility(page, 'the list')
await screenshot(page, 'runs', {})

await page.getByLabel('Status').selectOption('failed')
await leads(() => page.getByRole('button', { name: 'Show' }).click())
is('a status to filter by', await texts(page, '#list ~ .scroll td:nth-child(2) a'), ['broken'])
is('the filter is in the address', new URL(page.url()).searchParams.get('status'), 'failed')
is('and stays chosen', await page.getByLabel('Status').inputValue(), 'failed')
await leads(() => page.getByRole('link', { name: 'Clear' }).click())
await page.getByLabel('Task').selectOption('echo')
await page.getByLabel('Environment').selectOption('staging')
await leads(() => page.getByRole('button', { name: 'Show' }).click())
is('a task and an environment to filter by', await texts(page, '#list ~ .scroll td:nth-child(3)'), ['key <1>'])
await page.goto(ADMIN)
await page.getByLabel('Idempotency key').fill('order-4711')
await leads(() => page.keyboard.press('Enter'))
is('a key to filter by', await texts(page, '#list ~ .scroll td:nth-child(2) a'), ['fulfil'])
await page.goto(ADMIN)
await page.getByLabel('Triggered since').fill('tomorrow')
await leads(() => page.keyboard.press('Enter'))
is('a time to filter by', await page.locator('#list + p').innerText(), 'None.')
await page.goto(new URL('runs.html?limit=2', ADMIN).href)
await leads(() => page.getByRole('link', { name: 'Older' }).click())
is('older ones are a link away', (await texts(page, '#list ~ .scroll td:nth-child(2) a')).length, 2)
const bad = await page.goto(new URL('runs.html?status=done', ADMIN).href)
is('a bad filter is told', [bad.status(), (await page.locator('main').innerText()).includes('invalid value for filter "status"')], [400, true])

// ---------- A run ----------

await page.goto(ADMIN)
await leads(() => page.getByRole('link', { name: 'fulfil' }).click())
is('a run is a link away', new URL(page.url()).pathname, `/${fulfil}.html`)
is('its state', await page.locator('h1 + .status').innerText(), 'completed')
is('its lanes are attempts, steps in their steps, waits and children', (await texts(page, '.lanes li:not(.axis) .name')).map(text => text.trim().replace(/\s+/g, ' ')), [
  'Run', 'Attempt 1 waiting', 'charge replayed 2×', 'authorize', 'capture', 'waits for task label',
  'Attempt 2 failed', 'Attempt 3 completed', 'mail', 'run label completed'])
const indent = async name => page.locator('.lanes .name', { hasText: new RegExp(`^${name}`) }).evaluate(element => parseFloat(getComputedStyle(element).paddingLeft))
ok('nested steps stand further in', await indent('authorize') > await indent('charge') && await indent('charge') > await indent('Attempt 1'))
const retried = await page.locator('.events tr', { hasText: 'attempt failed' }).innerText()
ok('the retry tells its error', retried.includes('58000 the mail server is busy'), retried)
is('the next attempt is announced', (await texts(page, '.events tr:has-text("retry")')).length, 1)
const bars = await page.locator('.lanes svg').nth(3).locator('rect').evaluateAll(rects => rects.map(rect => rect.getBoundingClientRect().width))
ok('bars have a width', bars.length === 1 && bars[0] > 10, bars)
is('the key is shown as typed, with its state', await texts(page, '#key + dl dd:nth-child(2)'), ['order-4711', 'live', 'global', (await texts(page, '#key + dl dd:nth-child(2)'))[3], (await sql("SELECT trigger_idem.idempotency_key_create('order-4711', 'global') AS k"))[0].k])
await checkAccessibility(page, 'a run')
await screenshot(page, 'run-whole')
await screenshot(page, 'run', {})
await leads(() => page.locator('.lanes').getByRole('link', { name: 'label' }).last().click())
is('the child is a link away', new URL(page.url()).pathname, `/${label}.html`)
await leads(() => page.locator('#facts + dl').getByRole('link', { name: fulfil }).click())
is('and its parent', new URL(page.url()).pathname, `/${fulfil}.html`)
const missing = await page.goto(new URL('00000000-0000-7000-8000-000000000000.html', ADMIN).href)
is('a run that is not there', [missing.status(), (await page.locator('main').innerText()).includes('does not exist')], [404, true])

// ---------- Values are text ----------

await page.goto(new URL(`${broken}.html`, ADMIN).href)
is('a payload with a script stays text', await page.title(), 'broken - failed')
ok('and is shown as it is', (await page.locator('#payload + pre').innerText()).includes('</script><script>'))
ok('an error, too', (await page.locator('.error').first().innerText()).includes('</pre><script>'))
is('and a key', await page.locator('#key + dl code').first().innerText(), '<img src=x onerror="alert(2)">')
await page.goto(new URL(`${long}.html`, ADMIN).href)
ok('a long payload is folded', !(await page.locator('#payload + details pre').isVisible()))
await page.locator('#payload + details summary').focus()
await page.keyboard.press('Enter')
ok('and opens by the keyboard', await page.locator('#payload + details pre').isVisible())

// ---------- A run that is working, and then done ----------

const gate = new pg.Client()
await gate.connect()
await gate.query('SELECT pg_advisory_lock(1)')
const { run_id: importing } = await trigger('import', { lines: 1000 })
await page.goto(new URL(`${importing}.html`, ADMIN).href)
is('a run that waits for a worker', await page.locator('h1 + .status').innerText(), 'queued')
const worked = startWork('import')
await page.locator('h1 + .status.executing').waitFor()
ok('the page sees it begin, without being loaded again', true)
await page.locator('.lanes .name', { hasText: 'first half' }).waitFor()
is('its progress', await page.locator('progress').getAttribute('value'), '0.5')
ok('its progress in words', (await page.locator('#progress ~ p').innerText()).startsWith('50 %, half of the lines'))
await screenshot(page, 'working')
await page.getByRole('link', { name: 'Replay' }).focus()
await gate.query('SELECT pg_advisory_unlock(1)')
await worked
await page.locator('h1 + .status.completed').waitFor()
ok('and done', await page.locator('.lanes .name', { hasText: 'second half' }).isVisible())
is('the focus stays where it was', await page.evaluate('document.activeElement.innerText'), 'Replay')
is('those who do not see it are told', await page.locator('p[role=status]').textContent(), 'The run is completed.')
is('it has no progress any more', await page.locator('progress').count(), 0)
await page.waitForFunction('!document.querySelector("main").hasAttribute("data-live")')
await gate.end()

// ---------- Actions ----------

await page.goto(new URL(`${fulfil}.html`, ADMIN).href)
is('the key holds the next trigger back', await trigger('fulfil', order, 'order-4711'), { run_id: fulfil, is_cached: true })
await leads(() => page.getByRole('link', { name: 'Reset key' }).click())
ok('a reset asks first', (await page.locator('main').innerText()).includes('The next trigger of the task fulfil with the key order-4711 will make a new run'))
is('and has done nothing yet', (await trigger('fulfil', order, 'order-4711')).is_cached, true)
await checkAccessibility(page, 'the question before an action')
await screenshot(page, 'confirm', {})
await leads(() => page.getByRole('button', { name: 'Reset the key' }).click())
is('then the key is released', await page.locator('#key + dl .status').innerText(), 'released')
is('there is nothing left to reset', await page.getByRole('link', { name: 'Reset key' }).count(), 0)
const { run_id: next, is_cached: isCached } = await trigger('fulfil', order, 'order-4711')
ok('and the next trigger gets through', !isCached && next !== fulfil)

await page.goto(new URL(`${delayed}.html`, ADMIN).href)
await leads(() => page.getByRole('link', { name: 'Cancel' }).click())
await leads(() => page.getByRole('button', { name: 'Cancel the run' }).click())
is('a run is canceled', [await page.locator('h1 + .status').innerText(), await statusOf(delayed)], ['canceled', 'canceled'])
await leads(() => page.getByRole('link', { name: 'Replay' }).click())
await leads(() => page.getByRole('button', { name: 'Replay the run' }).click())
const replayed = new URL(page.url()).pathname.slice(1, -5)
ok('a replay leads to the new run', replayed !== delayed && await statusOf(replayed) === 'queued')

await page.goto(ADMIN)
await leads(() => page.locator('tr', { hasText: 'printer' }).getByRole('link', { name: 'Pause' }).click())
await leads(() => page.getByRole('button', { name: 'Pause the queue' }).click())
is('a queue is paused', await sql('SELECT queue FROM trigger_idem.queues WHERE paused'), [{ queue: 'printer' }])
ok('and says so', await page.locator('tr', { hasText: 'printer' }).locator('.paused').isVisible())
await leads(() => page.locator('tr', { hasText: 'printer' }).getByRole('link', { name: 'Resume' }).click())
await leads(() => page.getByRole('button', { name: 'Resume the queue' }).click())
is('and resumed', await sql('SELECT queue FROM trigger_idem.queues WHERE paused'), [])

// ---------- The keyboard alone ----------

await page.goto(ADMIN)
await page.keyboard.press('Tab')
is('the first stop skips to the content', await page.evaluate('document.activeElement.innerText'), 'Skip to the content')
await page.keyboard.press('Enter')
is('which has the focus then', await page.evaluate('document.activeElement.id'), 'main')
async function tabTo (text) {
  for (let n = 0; n < 100; n++) {
    await page.keyboard.press('Tab')
    const [name, outline] = await page.evaluate('[document.activeElement.innerText.trim(), getComputedStyle(document.activeElement).outlineStyle]')
    if (name === text) return outline
  }
  return 'never'
}
is('a run is reached, and the focus is seen', await tabTo('broken'), 'solid')
await leads(() => page.keyboard.press('Enter'))
await tabTo('Replay')
await leads(() => page.keyboard.press('Enter'))
await page.locator('button:focus').waitFor()
await leads(() => page.keyboard.press('Enter'))
is('an action is carried out', await page.locator('h1 + .status').innerText(), 'queued')

// ---------- Dark, and small ----------

const luminance = 'getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)'
const dark = await newPage({ colorScheme: 'dark' })
await dark.goto(new URL(`${fulfil}.html`, ADMIN).href)
ok('dark mode is dark', await dark.evaluate(luminance) < 100 && await page.evaluate(luminance) > 600)
await checkAccessibility(dark, 'a run, dark')
await screenshot(dark, 'run-dark', {})
await dark.goto(ADMIN)
await checkAccessibility(dark, 'the list, dark')
await screenshot(dark, 'runs-dark', {})

const phone = await newPage({ viewport: { width: 390, height: 800 }, isMobile: true, hasTouch: true })
for (const [name, path] of [['the list', 'runs.html'], ['a run', `${fulfil}.html`], ['a run that failed', `${broken}.html`]]) {
  await phone.goto(new URL(path, ADMIN).href)
  const width = await phone.evaluate('document.documentElement.scrollWidth')
  ok(`nothing is wider than a phone: ${name}`, width <= 390, width)
  await checkAccessibility(phone, `${name}, on a phone`)
}
await phone.goto(new URL(`${fulfil}.html`, ADMIN).href)
await screenshot(phone, 'run-phone', {})
await phone.goto(ADMIN)
await screenshot(phone, 'runs-phone', {})

// ---------- Rights ----------

await page.goto(new URL(`${fulfil}.html`, MONITOR).href)
ok('who may only look sees what others have triggered', (await page.locator('h1').innerText()).includes('fulfil'))
const { run_id: hidden } = await trigger('echo', null, null, ", environment => 'closed'")
await page.goto(new URL(`${hidden}.html`, MONITOR).href)
is('but nothing in an environment that is closed to it', await page.locator('h1').innerText(), 'That did not work')
await page.goto(MONITOR)
is('and has no buttons', await page.locator('.actions a:has-text("Pause"), .actions a:has-text("Cancel")').count(), 0)
is('nor the question', (await page.goto(new URL('confirm?action=pause&queue=printer', MONITOR).href)).status(), 404)

// ---------- Other sites ----------

// Any request, with what a browser would not let a page set
function send (method, path, headers, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(new URL(path, ADMIN), { method, headers }, response => {
      response.resume()
      response.on('end', () => resolve(response))
    })
    request.on('error', reject)
    request.end(body)
  })
}
const host = new URL(ADMIN).host
const statusFor = async (...request) => (await send(...request)).statusCode
is('another host name is refused', await statusFor('GET', '/runs.html', { host: 'evil.example' }), 421)
is('one that was allowed is not', await statusFor('GET', '/runs.html', { host: 'runs.example.com' }), 200)
const asked = await send('GET', '/confirm?action=pause&queue=printer', {})
const cookie = asked.headers['set-cookie'][0]
ok('the cookie is for this site alone', /HttpOnly; SameSite=Strict/.test(cookie), cookie)
await page.goto(new URL('confirm?action=pause&queue=printer', ADMIN).href)
const token = await page.locator('input[name=token]').inputValue()
const own = (await page.context().cookies()).find(({ name }) => name === 'trigger_idem_browser')
const form = `action=pause&queue=printer&token=${token}`
const headers = { 'content-type': 'application/x-www-form-urlencoded', origin: `http://${host}`, cookie: `${own.name}=${own.value}` }
is('a form without a token is refused', await statusFor('POST', '/do', headers, 'action=pause&queue=printer'), 403)
is('with the token of another browser', await statusFor('POST', '/do', { ...headers, cookie: cookie.split(';')[0] }, form), 403)
is('without its cookie', await statusFor('POST', '/do', { ...headers, cookie: '' }, form), 403)
is('from another site, by its origin', await statusFor('POST', '/do', { ...headers, origin: 'http://evil.example' }, form), 403)
is('from another site, by what the browser says', await statusFor('POST', '/do', { ...headers, 'sec-fetch-site': 'cross-site' }, form), 403)
const { origin, ...unsaid } = headers
is('that does not say where it is from', await statusFor('POST', '/do', unsaid, form), 403)
is('an action by a link', await statusFor('GET', '/do?' + form, headers), 404)
is('an action that there is not', await statusFor('POST', '/do', headers, `action=constructor&token=${token}`), 404)
is('nothing of this was done', await sql('SELECT queue FROM trigger_idem.queues WHERE paused'), [])
is('the form itself is accepted', await statusFor('POST', '/do', headers, form), 303)
is('and done', await sql('SELECT queue FROM trigger_idem.queues WHERE paused'), [{ queue: 'printer' }])
const { headers: policy } = await send('GET', '/runs.html', {})
ok('the policy forbids scripts of others, and frames', /default-src 'none'; script-src 'self';.*frame-ancestors 'none'/.test(policy['content-security-policy']) &&
  !policy['content-security-policy'].includes('unsafe'))

// ---------- A file ----------

const [{ file }] = await sql('SELECT trigger_idem.run_page($1) AS file', fulfil)
writeFileSync(`${WORK}/${fulfil}.html`, file)
writeFileSync(`${WORK}/${label}.html`, (await sql('SELECT trigger_idem.run_page($1) AS file', label))[0].file)
await page.goto(`file://${WORK}/${fulfil}.html`)
ok('a page works from a file', (await page.locator('section').first().evaluate(element => getComputedStyle(element).borderRadius)) === '10px')
await leads(() => page.locator('.lanes').getByRole('link', { name: 'label' }).last().click())
is('and leads to the file of the child', await page.locator('h1').innerText(), 'label')
is('a file has no buttons', await page.locator('.actions a').count(), 0)

is('no script ran, nothing was fetched from outside, no policy was broken', complaints, [])

await browser.close()
await database.end()
console.log(`1..${tests}`)
process.exitCode = failed === 0 ? 0 : 1
