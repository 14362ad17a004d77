/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  Telling workers that there is something to do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WAKE_H
#define TRIGGER_IDEM_WAKE_H

#include "task.h"

extern void wake_init(void);
extern void wake_workers(const char *queue, const Task *task);
extern void wake_later(TimestampTz due);
extern void wake_watchers(const pg_uuid_t *target);

#endif							/* TRIGGER_IDEM_WAKE_H */
