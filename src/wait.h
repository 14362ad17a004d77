/*-------------------------------------------------------------------------
 *
 * wait.h
 *	  Waiting: what a run asks to wait for, and the answers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WAIT_H
#define TRIGGER_IDEM_WAIT_H

#include "awaited.h"
#include "current.h"
#include "run.h"

typedef enum WaitKind
{
	WAIT_FOR_TIME,
	WAIT_FOR_RUN,
	WAIT_FOR_TASK,				/* triggered, and waited for */
	WAIT_FOR_BATCH,
	WAIT_FOR_TOKEN,
} WaitKind;

#define WAIT_KINDS (WAIT_FOR_TOKEN + 1)

/* What a run has asked to wait for; in the run's memory context */
typedef struct WaitRequest
{
	WaitKind	kind;
	pg_uuid_t	wait_id;
	Datum		path;			/* text[]: the step around it, and its name */
	TimestampTz until;			/* DT_NOEND: as long as it takes */
	bool		timed_out;		/* if it was over when it was asked for */
	bool		is_again;		/* there is an answer, which does not hold any
								 * more */
	NullableDatum *arguments;	/* of a trigger; NULL: it is none */
	WaitTarget *targets;		/* of a trigger, once it was done */
	int			count;
	pg_uuid_t	run_id;			/* who waits */
	int			attempt;
	int			steady_attempt;

	NullableDatum what;			/* uuid: what the wait was counted under */
	NullableDatum keyless;		/* uuid: and its trigger, which has no key */

	/* what a trigger depends on, when the worker does it */
	Oid			role;
	int			security_context;
	const char *time_zone;
	const char *date_style;
	const char *interval_style;
} WaitRequest;

/* How a wait has ended */
typedef struct WaitAnswer
{
	pg_uuid_t	wait_id;		/* hash key */
	WaitKind	kind;
	int			steady_attempt;
	pg_uuid_t	target;			/* of a run, a task, a token */
	bool		is_cached;
	TimestampTz until;
	bool		timed_out;
	bool		has_status;
	RunStatus	status;			/* of the target, when it was known */
} WaitAnswer;

/* The answer of a run that was waited for */
typedef struct RunAnswer
{
	RunStatus	status;
	NullableDatum output;
	NullableDatum error;
} RunAnswer;

/* For what suspends the run that this session executes */
extern WaitRequest *wait_request(WaitKind kind, const void *name, int length, bool is_counted,
								 text *shown);
extern text *wait_keyless_key(const char *task_id, pg_uuid_t *keyless);
extern void wait_is_keyless(WaitRequest *request, const pg_uuid_t *keyless);
extern bool wait_find_answer(WaitRequest *request, WaitAnswer *answer);
extern void wait_remember(const WaitRequest *request, const WaitTarget *targets, int count);
extern WaitTarget *wait_batch_targets(const pg_uuid_t *wait_id, int *count);
extern void wait_check_cycle(const pg_uuid_t *waiter, const pg_uuid_t *first);
extern void wait_begin(WaitRequest *request);
extern void wait_run_answer(const pg_uuid_t *run_id, RunStatus known, RunAnswer *answer);

/* For who executes it */
extern void wait_init(void);
extern bool wait_has_begun(const CurrentRun *run);
extern void wait_check_not_begun(void);
extern WaitRequest *wait_take_request(CurrentRun *run);
extern List *wait_take_remembered(const CurrentRun *run);
extern const char *wait_kind_name(WaitKind kind);
extern bool wait_run_has_completed(const pg_uuid_t *run_id, RunStatus known);

extern void wait_note_timeout(const pg_uuid_t *run_id, EndedWait *wait);

#endif							/* TRIGGER_IDEM_WAIT_H */
