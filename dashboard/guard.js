// What keeps other sites from acting through the browser of somebody who may: the name
// that was asked for must be one of ours (DNS rebinding), a form must come from a page of
// ours, and it must carry the token that this process gave to this browser.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

const COOKIE = 'trigger_idem_browser'

// A request that is refused; isPlain: without asking the database for a page.
export class Refused extends Error {
  constructor (status, message, isPlain = false) {
    super(message)
    this.status = status
    this.isPlain = isPlain
  }
}

export class Guard {
  #secret = randomBytes(32)
  #hosts

  constructor (hosts) {
    this.#hosts = new Set(['localhost', '127.0.0.1', '[::1]', ...hosts.map(host => host.toLowerCase())])
  }

  checkHost (request) {
    const host = (request.headers.host ?? '').toLowerCase().replace(/:\d+$/, '')
    if (!this.#hosts.has(host)) throw new Refused(421, 'This host name is not served; see --allow-host', true)
  }

  checkForm (request, token) {
    const { origin, host } = request.headers
    const site = request.headers['sec-fetch-site']
    if (site === undefined && origin === undefined) throw new Refused(403, 'The form does not tell where it is from', true)
    if (site !== undefined && site !== 'same-origin') throw new Refused(403, 'The form is from another site', true)
    if (origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== host)) {
      throw new Refused(403, 'The form is from another site', true)
    }
    const expected = this.#sign(browserOf(request) ?? '')
    const given = Buffer.from(String(token), 'hex')
    if (browserOf(request) === null || given.length !== expected.length || !timingSafeEqual(given, expected)) {
      throw new Refused(403, 'The form is out of date: go back, reload the page, and try again')
    }
  }

  // The token for a form, and the cookie to set where the browser has none.
  token (request) {
    const known = browserOf(request)
    const browser = known ?? randomBytes(16).toString('hex')
    return {
      token: this.#sign(browser).toString('hex'),
      cookie: known === null ? `${COOKIE}=${browser}; HttpOnly; SameSite=Strict; Path=/` : undefined
    }
  }

  #sign (browser) {
    return createHmac('sha256', this.#secret).update(browser).digest()
  }
}

function browserOf (request) {
  return (request.headers.cookie ?? '').match(new RegExp(`(?:^|; )${COOKIE}=([0-9a-f]{32})(?:;|$)`))?.[1] ?? null
}
