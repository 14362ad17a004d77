/*-------------------------------------------------------------------------
 *
 * background.h
 *	  Background workers, where the library is preloaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_BACKGROUND_H
#define TRIGGER_IDEM_BACKGROUND_H

#include "utils/timestamp.h"
#include "utils/uuid.h"

extern void background_init(void);
extern bool background_is_there(void);
extern bool background_role_may_log_in(Oid role);
extern bool background_may_be(Oid role);
extern void background_wake(Oid role);
extern void background_scan_at(TimestampTz due);
extern void background_want_scan(void);
extern void background_watch(const pg_uuid_t *target);
extern void background_watch_end(void);
extern bool background_has_watchers(void);
extern void background_tell_watchers(const pg_uuid_t *target);

#endif							/* TRIGGER_IDEM_BACKGROUND_H */
