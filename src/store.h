/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Direct access to the extension's own tables, without SPI.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_STORE_H
#define TRIGGER_IDEM_STORE_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "nodes/lockoptions.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

typedef enum StoreTable
{
	STORE_ENVIRONMENT,
	STORE_TASK,
	STORE_IDEMPOTENCY_KEY,
	STORE_RUN,
	STORE_QUEUE_ENTRY,
	STORE_STEP,
	STORE_GLOBAL_STEP,
	STORE_PAUSED_QUEUE,
	STORE_ATTEMPT,
	STORE_WAIT,
	STORE_AWAITED,
	STORE_WAIT_TOKEN,
	STORE_ACCESS_ENTRY,
} StoreTable;

#define STORE_TABLES (STORE_ACCESS_ENTRY + 1)

/*
 * Column numbers; the .sql file of each room declares the tables in this
 * order.  A later version only adds columns at the end, without a default that is
 * passed by reference.
 */
enum
{
	ENVIRONMENT_ENVIRONMENT = 1,
	ENVIRONMENT_ROLE,
	ENVIRONMENT_COLUMNS = ENVIRONMENT_ROLE
};

enum
{
	TASK_TASK_ID = 1,
	TASK_OWNER,
	TASK_RUN_AS,
	TASK_HANDLER_SCHEMA,
	TASK_HANDLER_NAME,
	TASK_HANDLER_OWNER,
	TASK_QUEUE,
	TASK_MAX_ATTEMPTS,
	TASK_MIN_BACKOFF,
	TASK_MAX_BACKOFF,
	TASK_BACKOFF_FACTOR,
	TASK_BACKOFF_JITTER,
	TASK_MAX_DURATION,
	TASK_LEASE_DURATION,
	TASK_IDEMPOTENCY_KEY_TTL,
	TASK_RELEASE_KEY_ON,
	TASK_IDEMPOTENCY_GROUP,
	TASK_ON_PAYLOAD_MISMATCH,
	TASK_CONCURRENCY_LIMIT,
	TASK_IDEMPOTENCY_KEY_REQUIRED,
	TASK_CREATED_AT,
	TASK_DROPPED_AT,
	TASK_COLUMNS = TASK_DROPPED_AT
};

enum
{
	KEY_KEY_ID = 1,
	KEY_RUN_ID,
	KEY_CREATED_AT,
	KEY_EXPIRES_AT,
	KEY_STATUS,
	KEY_IDEMPOTENCY_KEY,
	KEY_ENVIRONMENT,
	KEY_TASK_ID,
	KEY_IDEMPOTENCY_GROUP,
	KEY_KEY,
	KEY_SCOPE,
	KEY_TRIGGERED_BY,
	KEY_PAYLOAD_DIGEST,
	KEY_COLUMNS = KEY_PAYLOAD_DIGEST
};

enum
{
	RUN_RUN_ID = 1,
	RUN_CREATED_AT,
	RUN_RUN_AT,
	RUN_KEY_ID,
	RUN_KEY_EXPIRES_AT,
	RUN_PARENT_RUN_ID,
	RUN_MAX_ATTEMPTS,
	RUN_PRIORITY,
	RUN_TTL,
	RUN_ENVIRONMENT,
	RUN_TASK_ID,
	RUN_QUEUE,
	RUN_CONCURRENCY_KEY,
	RUN_TRIGGERED_BY,
	RUN_IDEMPOTENCY_KEY,
	RUN_IDEMPOTENCY_KEY_SCOPE,
	RUN_TAGS,
	RUN_METADATA,
	RUN_PAYLOAD,
	RUN_STATUS,
	RUN_ATTEMPT,
	RUN_STARTED_AT,
	RUN_FINISHED_AT,
	RUN_OUTPUT,
	RUN_ERROR,
	RUN_COLUMNS = RUN_ERROR
};

enum
{
	ENTRY_RUN_ID = 1,
	ENTRY_ORD,
	ENTRY_VISIBLE_FROM,
	ENTRY_EXPIRES_AT,
	ENTRY_STARTED_AT,
	ENTRY_FIRST_STARTED_AT,
	ENTRY_LEASE_EXPIRES_AT,
	ENTRY_WORKER_TOKEN,
	ENTRY_PARENT_RUN_ID,
	ENTRY_WAIT_ID,
	ENTRY_ATTEMPT,
	ENTRY_FAILURES,
	ENTRY_STEADY_ATTEMPT,
	ENTRY_MAX_ATTEMPTS,
	ENTRY_PRIORITY,
	ENTRY_WAIT_ATTEMPT,
	ENTRY_WAIT_OVER,
	ENTRY_IS_AWAITED,
	ENTRY_QUEUE,
	ENTRY_ENVIRONMENT,
	ENTRY_TASK_ID,
	ENTRY_CONCURRENCY_KEY,
	ENTRY_WORKER_ID,
	ENTRY_PROGRESS,
	ENTRY_PROGRESS_MESSAGE,
	ENTRY_PROGRESSED_AT,
	ENTRY_COLUMNS = ENTRY_PROGRESSED_AT
};

enum
{
	STEP_RUN_ID = 1,
	STEP_STEP_ID,
	STEP_ATTEMPT,
	STEP_STARTED_AT,
	STEP_FINISHED_AT,
	STEP_PATH,
	STEP_OUTPUT,
	STEP_COLUMNS = STEP_OUTPUT
};

enum
{
	GLOBAL_STEP_STEP_ID = 1,
	GLOBAL_STEP_ENVIRONMENT,
	GLOBAL_STEP_ROLE,
	GLOBAL_STEP_PATH,
	GLOBAL_STEP_RUN_ID,
	GLOBAL_STEP_ATTEMPT,
	GLOBAL_STEP_STARTED_AT,
	GLOBAL_STEP_FINISHED_AT,
	GLOBAL_STEP_EXPIRES_AT,
	GLOBAL_STEP_OUTPUT,
	GLOBAL_STEP_COLUMNS = GLOBAL_STEP_OUTPUT
};

enum
{
	PAUSED_QUEUE_QUEUE = 1,
	PAUSED_QUEUE_PAUSED_AT,
	PAUSED_QUEUE_COLUMNS = PAUSED_QUEUE_PAUSED_AT
};

enum
{
	ATTEMPT_RUN_ID = 1,
	ATTEMPT_ATTEMPT,
	ATTEMPT_STATUS,
	ATTEMPT_WORKER_ID,
	ATTEMPT_STARTED_AT,
	ATTEMPT_FINISHED_AT,
	ATTEMPT_STEPS_DONE,
	ATTEMPT_STEPS_REPLAYED,
	ATTEMPT_ERROR,
	ATTEMPT_REPLAYED,
	ATTEMPT_COLUMNS = ATTEMPT_REPLAYED
};

enum
{
	WAIT_RUN_ID = 1,
	WAIT_WAIT_ID,
	WAIT_ATTEMPT,
	WAIT_STEADY_ATTEMPT,
	WAIT_KIND,
	WAIT_PATH,
	WAIT_TARGET,
	WAIT_IS_CACHED,
	WAIT_STARTED_AT,
	WAIT_UNTIL,
	WAIT_ENDED_AT,
	WAIT_TIMED_OUT,
	WAIT_STATUS,
	WAIT_WHAT,
	WAIT_KEYLESS,
	WAIT_PASSED_ATTEMPT,
	WAIT_COLUMNS = WAIT_PASSED_ATTEMPT
};

enum
{
	AWAITED_WAIT_ID = 1,
	AWAITED_INDEX,
	AWAITED_RUN_ID,
	AWAITED_TARGET,
	AWAITED_IS_BATCH,
	AWAITED_IS_CACHED,
	AWAITED_IS_PENDING,
	AWAITED_NEEDS_CHECK,
	AWAITED_STATUS,
	AWAITED_COLUMNS = AWAITED_STATUS
};

enum
{
	WAIT_TOKEN_TOKEN = 1,
	WAIT_TOKEN_ENVIRONMENT,
	WAIT_TOKEN_CREATED_BY,
	WAIT_TOKEN_CREATED_AT,
	WAIT_TOKEN_EXPIRES_AT,
	WAIT_TOKEN_COMPLETED_AT,
	WAIT_TOKEN_IDEMPOTENCY_KEY,
	WAIT_TOKEN_OUTPUT,
	WAIT_TOKEN_COLUMNS = WAIT_TOKEN_OUTPUT
};

enum
{
	ACCESS_ENTRY_ROLE = 1,
	ACCESS_ENTRY_ACCESS,
	ACCESS_ENTRY_TASK_ID,
	ACCESS_ENTRY_GRANTED_BY,
	ACCESS_ENTRY_GRANTED_AT,
	ACCESS_ENTRY_COLUMNS = ACCESS_ENTRY_GRANTED_AT
};

/* Room for a row of any of the tables */
#define STORE_MAX_COLUMNS 32

/* One index lookup in progress */
typedef struct StoreLookup
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;		/* the row found last */
} StoreLookup;

/* The other indexes that we read through */
typedef enum StoreIndex
{
	STORE_QUEUE_ORDER,			/* (queue, ord) of the queue entries */
	STORE_EXECUTING,			/* entries that have a worker */
	STORE_CHILDREN,				/* entries of children, by their parents */
	STORE_TARGET,				/* what is awaited */
	STORE_PENDING,				/* items that a batch still waits for */
	STORE_UNCHECKED,			/* what is awaited and needs a check */
	STORE_ALL_CHILDREN,			/* runs that have a parent, final ones
								 * included */
} StoreIndex;

#define STORE_INDEXES (STORE_ALL_CHILDREN + 1)

/* A walk through rows along one of these */
typedef struct StoreWalk
{
	Relation	rel;
	Relation	index;
	Snapshot	snapshot;
	IndexScanDesc scan;			/* NULL before the first seek */
	TupleTableSlot *slot;		/* the row found last */
	int64		passed;			/* index entries since the last seek, dead
								 * ones included */
} StoreWalk;

/* One row, to be changed */
typedef struct StoreRow
{
	StoreTable	table;
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;
} StoreRow;

/* What came of the wish to lock a row */
typedef enum StoreLock
{
	STORE_LOCKED,
	STORE_GONE,					/* there is no such row, or not any more */
	STORE_BUSY,					/* somebody has it, and we do not wait */
} StoreLock;

/* Many rows to insert into one table */
#define STORE_WRITER_ROWS	64
#define STORE_WRITER_BYTES	((Size) 1024 * 1024)

typedef struct StoreWriter
{
	Relation	rel;
	StoreTable	table;
	MemoryContext context;
	TupleTableSlot *rows[STORE_WRITER_ROWS];
	int			slots;			/* of these, how many were made */
	int			count;			/* and how many have a row */
	Size		bytes;			/* in those rows */
} StoreWriter;

typedef void (*StoreInvalidationCallback) (void);

extern void store_init(void);
extern void store_on_invalidation(StoreTable table, StoreInvalidationCallback callback);
extern bool store_exists(void);
extern bool store_is_uncommitted(StoreTable table, Datum key);
extern void store_pin(void);
extern Oid	store_owner(void);
extern Oid	store_run_status_type(void);
extern Oid	store_run_status(int number);
extern Oid	store_table_id(StoreTable table);
extern Snapshot store_snapshot(void);
extern Snapshot store_latest_snapshot(void);
extern bool store_lookup(StoreLookup *lookup, StoreTable table, Datum key, Snapshot snapshot);
extern void store_lookup_begin(StoreLookup *lookup, StoreTable table, Snapshot snapshot);
extern bool store_lookup_seek(StoreLookup *lookup, StoreTable table, Datum key);
extern bool store_lookup_next(StoreLookup *lookup);
extern void store_lookup_newest(StoreLookup *lookup, StoreTable table, const pg_uuid_t *from,
								const pg_uuid_t *before, Snapshot snapshot);
extern bool store_lookup_previous(StoreLookup *lookup);
extern void store_lookup_end(StoreLookup *lookup);
extern bool store_fetch(StoreTable table, Datum key, Snapshot snapshot,
						Datum *values, bool *nulls);
extern void store_walk_begin(StoreWalk *walk, StoreIndex index, Snapshot snapshot);
extern void store_walk_seek_all(StoreWalk *walk);
extern void store_walk_seek_queue(StoreWalk *walk, Datum queue, TimestampTz from, TimestampTz to);
extern void store_walk_seek_queues(StoreWalk *walk, const char *after, const char *before);
extern void store_walk_seek_concurrent(StoreWalk *walk, Datum environment, Datum task_id,
									   NullableDatum concurrency_key);
extern void store_walk_seek_uuid(StoreWalk *walk, Datum uuid);
extern bool store_walk_next(StoreWalk *walk);
extern bool store_walk_lock(StoreWalk *walk);
extern void store_walk_update(StoreWalk *walk, Datum *values, bool *nulls);
extern void store_walk_end(StoreWalk *walk);
extern bool store_lock_latest(StoreTable table, Datum key, Datum *values, bool *nulls);
extern StoreLock store_row_lock(StoreRow *row, StoreTable table, Datum key,
								LockWaitPolicy policy);
extern void store_row_read(StoreRow *row, Datum *values, bool *nulls);
extern void store_row_update(StoreRow *row, Datum *values, bool *nulls);
extern void store_row_delete(StoreRow *row);
extern void store_row_end(StoreRow *row);
extern void store_insert(StoreTable table, Datum *values, bool *nulls);
extern void store_writer_begin(StoreWriter *writer, StoreTable table);
extern void store_writer_insert(StoreWriter *writer, Datum *values, bool *nulls);
extern void store_writer_end(StoreWriter *writer);
extern bool store_insert_new(StoreTable table, Datum *values, bool *nulls);

#endif							/* TRIGGER_IDEM_STORE_H */
