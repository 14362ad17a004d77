/*-------------------------------------------------------------------------
 *
 * background_shared.h
 *	  What background workers share; for their own processes only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_BACKGROUND_SHARED_H
#define TRIGGER_IDEM_BACKGROUND_SHARED_H

#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define MAX_WORKERS		64
#define MAX_DATABASES	64
#define MAX_DEMANDS		256
#define MAX_WATCHERS	256

/* A role that has something due in a database, and needs a worker */
typedef struct Demand
{
	Oid			database;		/* InvalidOid: unused */
	Oid			role;
} Demand;

typedef enum WorkerState
{
	WORKER_UNUSED,
	WORKER_STARTING,
	WORKER_BUSY,
	WORKER_IDLE,
} WorkerState;

typedef struct WorkerSlot
{
	WorkerState state;
	Oid			database;
	Oid			role;			/* InvalidOid: a scanner */
	Latch	   *latch;
	bool		stop;			/* it shall end when it is idle */
	volatile bool wants_scan;	/* others could work what it has in hand */
	TimestampTz reserved_at;
	TimestampTz woken_at;		/* 0: not by somebody else */
} WorkerSlot;

typedef struct ServedDatabase
{
	Oid			database;		/* InvalidOid: unused */
	TimestampTz scan_at;
	TimestampTz stay_away_until;
} ServedDatabase;

/* A session that waits for a run or a token */
typedef struct Watcher
{
	Latch	   *latch;			/* NULL: unused */
	pg_uuid_t	target;
} Watcher;

/* The counters of a database; see stats.c */
#define LATENCY_BUCKETS	12
#define STATS			36

typedef struct StatsDatabase
{
	Oid			database;		/* InvalidOid: unused */
	pg_atomic_uint64 counts[STATS];
} StatsDatabase;

typedef struct Shared
{
	LWLock	   *lock;
	TimestampTz started_at;
	Latch	   *launcher;		/* NULL: it does not run */
	ServedDatabase databases[MAX_DATABASES];
	Demand		demands[MAX_DEMANDS];
	WorkerSlot	workers[MAX_WORKERS];
	pg_atomic_uint32 watching;	/* how many of these are used */
	Watcher		watchers[MAX_WATCHERS];
	StatsDatabase stats[MAX_DATABASES];
} Shared;

extern Shared *background;

/* Of a worker or a scanner: which slot is ours */
extern WorkerSlot *background_slot;

/* Settings */
extern char *background_databases;
extern int	background_max_workers;
extern int	background_max_workers_per_database;
extern int	background_worker_idle_time;
extern int	background_poll_interval;

/* With the lock held */
extern ServedDatabase *background_find_database(Oid database);
extern void background_wake_launcher(void);
extern void background_demand(Oid database, Oid role);
extern bool background_take_demand(Oid database, Oid role);

extern void scanner_run(void);
extern PGDLLEXPORT void trigger_idem_launcher_main(Datum arg);
extern PGDLLEXPORT void trigger_idem_worker_main(Datum arg);

#endif							/* TRIGGER_IDEM_BACKGROUND_SHARED_H */
