// For the few pages that are not made in the database

const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

export function escapeHtml (text) {
  return String(text).replace(/[&<>"']/g, character => ENTITIES[character])
}
