/*-------------------------------------------------------------------------
 *
 * run.h
 *	  Runs: their ids, their status, and the one place that changes it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_RUN_H
#define TRIGGER_IDEM_RUN_H

#include "utils/jsonb.h"

#include "compat.h"
#include "store.h"
#include "trigger_idem.h"

/* As the enum type trigger_idem.run_status, in its order */
typedef enum RunStatus
{
	RUN_DELAYED,
	RUN_QUEUED,
	RUN_EXECUTING,
	RUN_WAITING,
	RUN_COMPLETED,
	RUN_FAILED,
	RUN_CRASHED,
	RUN_TIMED_OUT,
	RUN_CANCELED,
	RUN_EXPIRED,
} RunStatus;

#define RUN_STATUSES (RUN_EXPIRED + 1)
#define RUN_STATUS_IS_FINAL(status) ((status) >= RUN_COMPLETED)

/* The last wait of a run, if that is over: how it ended stands in the entry. */
typedef struct EndedWait
{
	bool		has_ended;		/* else there is none */
	pg_uuid_t	wait_id;
	bool		timed_out;
	bool		by_this_claim;	/* it is the clock that has ended it, now */
	TimestampTz ended_at;
} EndedWait;

/* A run that somebody has just claimed */
typedef struct ClaimedRun
{
	pg_uuid_t	run_id;
	int			attempt;
	int			steady_attempt;
	EndedWait	wait;
	char	   *environment;
	char	   *task_id;
	TimestampTz lease_expires_at;	/* of a worker outside */
	Datum		payload;
	bool		payload_isnull;
} ClaimedRun;

/* How an attempt ended */
typedef enum AttemptEnd
{
	ATTEMPT_COMPLETED,
	ATTEMPT_FAILED,				/* an error; retried while attempts are left */
	ATTEMPT_ABORTED,			/* an error that must not be retried */
	ATTEMPT_CRASHED,			/* its worker is gone */
	ATTEMPT_TIMED_OUT,			/* it took longer than max_duration */
	ATTEMPT_CANCELED,
	ATTEMPT_RELEASED,			/* given back; it does not count */
	ATTEMPT_WAITING,			/* suspended; it does not count */
} AttemptEnd;

/* When a run is tried again, if no time is given */
#define RETRY_AS_TASK_SAYS	(-1)
#define RETRY_IN_PLACE		(-2)	/* at its old place in the queue */

typedef struct AttemptResult
{
	AttemptEnd	end;
	Jsonb	   *output;			/* or NULL */
	Jsonb	   *error;			/* or NULL */
	int			steps_done;		/* -1: not known */
	int			steps_replayed;
	Datum		replayed;		/* as the table has it; 0: none */
	int64		retry_after_ms; /* of a failed or released one, or RETRY_... */
	pg_uuid_t	wait_id;		/* of a suspended one */
} AttemptResult;

/* What becomes of the run of an attempt that has ended */
typedef struct RunOutcome
{
	RunStatus	status;
	TimestampTz visible_from;	/* if it goes back into the queue */
} RunOutcome;

extern void run_id_generate(pg_uuid_t *run_id, TimestampTz now);
extern void run_id_first(pg_uuid_t *run_id, TimestampTz time);
extern const char *run_status_name(RunStatus status);
extern Oid	run_status_oid(RunStatus status);
extern RunStatus run_status_from_oid(Oid oid);
extern bool run_status_parse(const char *name, RunStatus *status);
extern RunStatus run_entry_status(TupleTableSlot *entry, TimestampTz now);
extern bool run_entry_is_waiting(const Datum *entry, const bool *nulls);
extern void run_entry_wait(const Datum *entry, const bool *nulls, EndedWait *wait);
extern bool run_wake(const pg_uuid_t *run_id, const pg_uuid_t *wait_id);
extern bool run_has_expired(const Datum *entry, const bool *nulls);
extern bool run_find_status(const pg_uuid_t *run_id, Snapshot snapshot, RunStatus *status);

extern void run_begin_attempt(StoreWalk *entry, const char *worker_id, int64 worker_token,
							  TimestampTz lease_expires_at, TimestampTz now,
							  ClaimedRun *claimed);
extern void run_read_payload(ClaimedRun *claimed);
extern char *run_id_text(const pg_uuid_t *run_id);
pg_noreturn extern void run_unknown_error(const pg_uuid_t *run_id);
extern void run_judge(const Datum *entry, const AttemptResult *result, RunOutcome *outcome);
extern bool run_end_attempt(const pg_uuid_t *run_id, int attempt, const AttemptResult *result,
							const RunOutcome *outcome);
extern bool run_take_away(const pg_uuid_t *run_id, int attempt, const AttemptResult *result);
extern bool run_end_unclaimed(const pg_uuid_t *run_id, RunStatus status, bool wait);

#endif							/* TRIGGER_IDEM_RUN_H */
