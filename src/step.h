/*-------------------------------------------------------------------------
 *
 * step.h
 *	  Steps: run_once() and its relatives.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_STEP_H
#define TRIGGER_IDEM_STEP_H

#include "current.h"
#include "key.h"

extern void step_init(void);
extern void step_key(const pg_uuid_t *run_id, const char *environment, const Key *parent, text *key,
					 Key *result);
extern void step_forget_run(void);
extern const Key *step_around(void);
extern Datum step_path_to(text *name);

#endif							/* TRIGGER_IDEM_STEP_H */
