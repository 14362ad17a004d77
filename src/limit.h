/*-------------------------------------------------------------------------
 *
 * limit.h
 *	  Limits that keep one user of the server from starving others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_LIMIT_H
#define TRIGGER_IDEM_LIMIT_H

#include "trigger_idem.h"

extern void limit_init(void);
extern void limit_payload(NullableDatum payload);
extern void limit_metadata(NullableDatum metadata);
extern void limit_output(const char *what, NullableDatum output);
extern void limit_tags(int count);
extern void limit_steps(int64 steps);
extern void limit_steps_of_run(const pg_uuid_t *run_id, bool adds_one);
extern void limit_active_runs(const char *environment, int64 more);

#endif							/* TRIGGER_IDEM_LIMIT_H */
