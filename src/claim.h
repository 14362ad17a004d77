/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  Claiming: which run is to be worked next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_CLAIM_H
#define TRIGGER_IDEM_CLAIM_H

#include "run.h"
#include "trigger_idem.h"

/* Who claims, and from where */
typedef struct Claimer
{
	const char *queue;			/* NULL: all */
	const char *environment;	/* NULL: all that we may see */
	const char *run_as;			/* of a worker inside the database */
	const char *worker_id;
	int64		worker_token;	/* WORKER_OUTSIDE: works tasks without handler */
	List	   *task_ids;		/* NIL: all */
	const Interval *lease;		/* of a worker outside; NULL: the task's */
	MemoryContext context;		/* for what is remembered between claims */
	TimestampTz looked_at;		/* last look at everything; 0: none yet */
	List	   *heads;			/* of the queues that may have something due */
	bool		more_is_due;	/* after the last claim, for all we know */
} Claimer;

extern List *claim_runs(Claimer *claimer, int max_runs);
extern bool claim_take_over_dead(TimestampTz *looked_at, bool nothing_is_due);

#endif							/* TRIGGER_IDEM_CLAIM_H */
