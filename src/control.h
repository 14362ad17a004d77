/*-------------------------------------------------------------------------
 *
 * control.h
 *	  Controlling runs and queues from outside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_CONTROL_H
#define TRIGGER_IDEM_CONTROL_H

#include "trigger_idem.h"

extern void control_init(void);
extern void run_require_visible(const pg_uuid_t *run_id, Datum *values, bool *nulls);

#endif							/* TRIGGER_IDEM_CONTROL_H */
