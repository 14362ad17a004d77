/*-------------------------------------------------------------------------
 *
 * task.h
 *	  Tasks: named kinds of work and their settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_TASK_H
#define TRIGGER_IDEM_TASK_H

#include "routine.h"
#include "run.h"
#include "trigger_idem.h"

/* The longest name of a task, a queue, a group or an environment */
#define IDENTIFIER_MAX_BYTES 255

/* A task's settings, as they stand now */
typedef struct Task
{
	char	   *task_id;
	char	   *owner;
	char	   *run_as;
	char	   *handler_schema; /* NULL: worked by an application */
	char	   *handler_name;
	char	   *handler_owner;
	char	   *queue;
	int			max_attempts;
	Interval	min_backoff;
	Interval	max_backoff;
	float8		backoff_factor;
	bool		backoff_jitter;
	Interval   *max_duration;	/* NULL: unlimited */
	Interval	lease_duration;
	Interval   *idempotency_key_ttl;	/* NULL: for ever */
	uint32		release_key_on; /* a bit for each final RunStatus */
	char	   *idempotency_group;	/* NULL: keys are the task's own */
	bool		compares_payloads;	/* on_payload_mismatch is error */
	int			concurrency_limit;	/* 0: none */
	bool		idempotency_key_required;
	bool		dropped;
} Task;

extern void task_init(void);
extern const Task *task_find(const char *task_id);
extern const Task *task_require(const char *task_id);
extern void identifier_check(const char *what, const char *identifier);
extern void max_attempts_check(int max_attempts);
extern void task_check_handler(const Task *task, const Handler *handler);
extern void task_require_same(const char *task_id, const char *owner);
extern void interval_check(const char *name, const Interval *interval, int64 least_us);
extern TimestampTz timestamp_plus(TimestampTz start, const Interval *interval);
extern TimestampTz timestamp_minus(TimestampTz end, const Interval *interval);
extern int64 interval_to_ms(const Interval *interval);

#endif							/* TRIGGER_IDEM_TASK_H */
