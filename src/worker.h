/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The sign of life of a worker inside the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WORKER_H
#define TRIGGER_IDEM_WORKER_H

#include "storage/dsm.h"

#include "trigger_idem.h"

/* Stands for the token of a worker that is no session of this server */
#define WORKER_OUTSIDE 0

/* A session claims no more runs than this at a time. */
#define WORKER_HAND_MAX 1000

/* What a worker says to whoever would take an attempt from it */
typedef enum WorkerAnswer
{
	WORKER_GONE,				/* nothing: there is no such worker any more */
	WORKER_SILENT,				/* it has begun, and not been seen for too
								 * long */
	WORKER_KEEPS,
	WORKER_GIVES,				/* it has not begun, and never will */
} WorkerAnswer;

/* What an attempt has told of its progress */
#define PROGRESS_MESSAGE_BYTES 800

typedef struct Progress
{
	TimestampTz at;				/* 0: nothing */
	double		fraction;
	int			length;			/* of the message; -1: none */
	char		message[PROGRESS_MESSAGE_BYTES];
} Progress;

extern int64 worker_begin(void);
extern void worker_set_progress(const Progress *progress);
extern bool worker_read_progress(int64 token, const pg_uuid_t *run_id, int attempt,
								 Progress *progress);
extern void worker_end(void);
extern void worker_hand_clear(void);
extern void worker_hand_restart(void);
extern void worker_hand_add(const pg_uuid_t *run_id, int attempt);
extern bool worker_begin_attempt(const pg_uuid_t *run_id, int attempt, int64 lease_ms);
extern bool worker_end_attempt(void);
extern dsm_segment *worker_keep(int64 token);
extern void worker_let_go(void);
extern void worker_cancel(dsm_segment *segment, const pg_uuid_t *run_id, int attempt);
extern WorkerAnswer worker_take(int64 token, const pg_uuid_t *run_id, int attempt,
								int64 max_silence_ms);

#endif							/* TRIGGER_IDEM_WORKER_H */
