// Refreshes a page that can still change: fetches it again, and puts what has changed in
// the place of what was there. What is open stays open, and the focus stays where it is.

const EVERY_MS = 2000

let etag = document.querySelector('meta[name="etag"]')?.content

// Tells changes of the state to those who do not see them
const teller = document.createElement('p')
teller.className = 'skip'
teller.setAttribute('role', 'status')
document.body.append(teller)

function nameOf (element) {
  return [element.tagName, element.id, element.className, element.getAttribute('aria-labelledby')].join(' ')
}

function isTypedInto (element) {
  return element.contains(document.activeElement) && document.activeElement.matches('input, select')
}

// How to find the element that has the focus in what takes its place
function selectorOfFocus (within) {
  const element = document.activeElement
  if (!within.contains(element)) return null
  if (element.id) return '#' + CSS.escape(element.id)
  if (element.hasAttribute('href')) return `[href="${CSS.escape(element.getAttribute('href'))}"]`
  if (element.hasAttribute('aria-label')) return `[aria-label="${CSS.escape(element.getAttribute('aria-label'))}"]`
  return element.tagName === 'SUMMARY' ? 'summary' : null
}

function replace (old, fresh) {
  if (old.outerHTML === fresh.outerHTML || isTypedInto(old)) return
  const open = new Set([...old.querySelectorAll('details[open]')].map(details => details.textContent))
  const focus = selectorOfFocus(old)
  for (const details of fresh.querySelectorAll('details')) details.open = open.has(details.textContent)
  old.replaceWith(fresh)
  if (focus) fresh.querySelector(focus)?.focus({ preventScroll: true })
}

function show (page) {
  const old = document.querySelector('main')
  const fresh = page.querySelector('main')
  const before = old.querySelector('h1 + .status')?.textContent
  const after = fresh.querySelector('h1 + .status')?.textContent
  const [was, is] = [[...old.children], [...fresh.children]]
  if (was.map(nameOf).join() === is.map(nameOf).join()) was.forEach((element, n) => replace(element, is[n]))
  else replace(old, fresh)
  document.querySelector('main').toggleAttribute('data-live', fresh.hasAttribute('data-live'))
  document.querySelector('footer').replaceWith(page.querySelector('footer'))
  document.title = page.title
  if (after !== before) teller.textContent = `The run is ${after}.`
}

async function refresh () {
  if (!document.hidden) {
    try {
      const response = await fetch(location.href, { headers: etag ? { 'If-None-Match': etag } : {} })
      if (response.status === 200) {
        etag = response.headers.get('ETag')
        show(new DOMParser().parseFromString(await response.text(), 'text/html'))
      }
    } catch {} // the server is away: the next time
  }
  if (document.querySelector('main').hasAttribute('data-live')) setTimeout(refresh, EVERY_MS)
}

if (document.querySelector('main').hasAttribute('data-live')) setTimeout(refresh, EVERY_MS)
