/*-------------------------------------------------------------------------
 *
 * await.h
 *	  The functions that wait, and blocking outside a run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_AWAIT_H
#define TRIGGER_IDEM_AWAIT_H

#include "store.h"
#include "wait.h"

typedef bool (*AwaitLook) (const pg_uuid_t *target);

extern bool await_run_has_ended(const pg_uuid_t *run_id);
extern void await_end(const pg_uuid_t *target, AwaitLook has_ended, TimestampTz until);
extern void await_refuse_own(StoreTable table, const pg_uuid_t *target, const char *what);

#endif							/* TRIGGER_IDEM_AWAIT_H */
