/*-------------------------------------------------------------------------
 *
 * current.h
 *	  The run that this session is executing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_CURRENT_H
#define TRIGGER_IDEM_CURRENT_H

#include "compat.h"
#include "run.h"
#include "trigger_idem.h"

typedef struct CurrentRun
{
	pg_uuid_t	run_id;
	int			attempt;
	int			steady_attempt; /* first after the last failed or dead one */
	char	   *environment;
	MemoryContext context;		/* lives as long as the attempt */
	bool		is_entered;		/* by an application, in this transaction */
	int			steps_done;
	int			steps_replayed;
	List	   *replayed;		/* ids of the steps replayed, each once */
	bool		is_grouped;		/* its transaction is one of several runs */
	EndedWait	last_wait;
	struct WaitState *waits;	/* see wait.c; NULL: none yet */
} CurrentRun;

extern void current_init(void);
extern CurrentRun *current_run(void);
extern void current_run_set(CurrentRun *run);
extern void current_run_clear(void);
extern CurrentRun *current_run_enter(const pg_uuid_t *run_id, int attempt, int steady_attempt,
									 const char *environment);
pg_noreturn extern void current_stale_error(const pg_uuid_t *run_id, int attempt);

#endif							/* TRIGGER_IDEM_CURRENT_H */
