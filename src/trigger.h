/*-------------------------------------------------------------------------
 *
 * trigger.h
 *	  Triggering: from the options of a call to a run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_TRIGGER_H
#define TRIGGER_IDEM_TRIGGER_H

#include "key.h"
#include "run.h"
#include "task.h"
#include "trigger_idem.h"

/* The options of a trigger: the arguments of trigger_task(), in their order */
typedef enum TriggerOption
{
	OPTION_TASK_ID,
	OPTION_PAYLOAD,
	OPTION_IDEMPOTENCY_KEY,
	OPTION_IDEMPOTENCY_KEY_TTL,
	OPTION_DELAY,
	OPTION_RUN_AT,
	OPTION_TTL,
	OPTION_PRIORITY,
	OPTION_QUEUE,
	OPTION_CONCURRENCY_KEY,
	OPTION_MAX_ATTEMPTS,
	OPTION_TAGS,
	OPTION_METADATA,
	OPTION_ENVIRONMENT,
	OPTION_IDEMPOTENCY_KEY_SCOPE,
} TriggerOption;

#define TRIGGER_OPTIONS (OPTION_IDEMPOTENCY_KEY_SCOPE + 1)

/* A trigger, its options checked and its defaults filled in */
typedef struct TriggerCall
{
	const Task *task;
	const char *environment;
	TimestampTz now;
	NullableDatum delay;
	TimestampTz given_run_at;	/* -infinity: none */
	TimestampTz run_at;
	TimestampTz expires_at;		/* not started by then, the run is expired */
	int			priority;
	int			max_attempts;
	NullableDatum ttl;
	NullableDatum queue;		/* null: the task's */
	NullableDatum concurrency_key;
	NullableDatum payload;
	NullableDatum tags;
	NullableDatum metadata;
	bool		is_awaited;		/* a run waits for it, or is about to */

	bool		is_tick;		/* the key is a schedule's, not the task's */
	bool		has_key;
	Key			key;
	pg_uuid_t	key_id;
	text	   *key_typed;		/* NULL: given in its 64-digit form */
	const char *key_scope;		/* NULL: not known */
	const Interval *key_ttl;	/* NULL: for ever */
	TimestampTz key_expires_at; /* once the key is to be taken */
} TriggerCall;

/* What a trigger answers */
typedef struct TriggerResult
{
	pg_uuid_t	run_id;
	bool		is_cached;
	RunStatus	status;
} TriggerResult;

/* Why a run is triggered */
typedef enum TriggerReason
{
	TRIGGER_CALL,
	TRIGGER_REPLAY,				/* has no key, even if the task requires one */
	TRIGGER_TICK,				/* of a schedule, which sets the key */
} TriggerReason;

extern void trigger_prepare(const NullableDatum *options, TriggerReason reason,
							TriggerCall *trigger);
extern void trigger_one(TriggerCall *trigger, TriggerResult *result);
extern bool trigger_peek(TriggerCall *trigger, TriggerResult *result);
extern void trigger_set_now(TriggerCall *trigger, TimestampTz now);
extern void trigger_acquire(TriggerCall *trigger, TriggerResult *result);
extern void trigger_run_row(const TriggerCall *trigger, const pg_uuid_t *run_id,
							Datum *values, bool *nulls);
extern void trigger_entry_row(const TriggerCall *trigger, const pg_uuid_t *run_id,
							  Datum *values, bool *nulls);
extern void trigger_inserted(const TriggerCall *trigger, const TriggerResult *result);
extern void trigger_finish(const TriggerCall *trigger);
extern void trigger_prevent_read_only(void);

#endif							/* TRIGGER_IDEM_TRIGGER_H */
