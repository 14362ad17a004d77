/*-------------------------------------------------------------------------
 *
 * acquire.h
 *	  Acquiring idempotency keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_ACQUIRE_H
#define TRIGGER_IDEM_ACQUIRE_H

#include "trigger.h"

extern void key_mismatch_error(const pg_uuid_t *visible_run, const char *where);
extern bool key_acquire(TriggerCall *trigger, TriggerResult *result);
extern bool key_peek(const TriggerCall *trigger, TriggerResult *result);

#endif							/* TRIGGER_IDEM_ACQUIRE_H */
