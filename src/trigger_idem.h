/*-------------------------------------------------------------------------
 *
 * trigger_idem.h
 *	  What every room of trigger_idem may need.
 *
 * The vocabulary, the same in C, SQL, messages and documents:
 *
 *	task		a named kind of work
 *	run			one execution of a task for one payload, over all its attempts
 *	attempt		one start of a run; its number is the fencing token
 *	step		one run_once inside a run, named by its path of keys
 *	memo		the stored output of a step
 *	key			an idempotency key, 32 bytes, written as 64 hexadecimal digits
 *	lease		how long a worker may be silent before its run may be taken
 *
 * README.md in this folder tells how the rooms fit together.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_H
#define TRIGGER_IDEM_H

#include "postgres.h"

#include "utils/timestamp.h"
#include "utils/uuid.h"

#define EXTENSION_NAME "trigger_idem"

/* SQLSTATEs of our own; everything else uses PostgreSQL's */
#define ERRCODE_IDEMPOTENCY_KEY_PAYLOAD_MISMATCH	MAKE_SQLSTATE('T', 'I', '0', '0', '1')
#define ERRCODE_STALE_ATTEMPT	MAKE_SQLSTATE('T', 'I', '0', '0', '2')
#define ERRCODE_NO_CURRENT_RUN	MAKE_SQLSTATE('T', 'I', '0', '0', '3')
#define ERRCODE_OUTPUT_MISMATCH MAKE_SQLSTATE('T', 'I', '0', '0', '4')
#define ERRCODE_WAIT_CYCLE		MAKE_SQLSTATE('T', 'I', '0', '0', '5')
#define ERRCODE_ABORT_RUN		MAKE_SQLSTATE('T', 'I', '0', '0', '6')

/* trigger_idem.c */
extern int	trigger_idem_shard;
extern bool trigger_idem_notify;
extern int	trigger_idem_runs_per_commit;
extern const char *trigger_idem_environment(void);

#endif							/* TRIGGER_IDEM_H */
