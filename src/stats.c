/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Counting what happens, where the library is preloaded.
 *
 * A transaction counts by itself, on a stack with a frame for each nesting level
 * that has counted: a savepoint that is rolled back takes its frame along.  When
 * the transaction commits it adds what it has to the counters of its database in
 * shared memory, by atomic additions without a lock.  What is rolled back, or
 * prepared for a second phase, is not counted.
 *
 * Latencies go into buckets with fixed bounds, so that rates of several servers
 * can be added up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "background_shared.h"
#include "stats.h"

PG_FUNCTION_INFO_V1(trigger_idem_stats_shared);

/* Upper bounds in microseconds; the last bucket has none */
static const int64 bounds[LATENCY_BUCKETS - 1] = {
	1000, 2500, 5000, 10000, 25000, 100000, 500000, 1000000, 5000000, 30000000, 300000000
};

/* Where a counter stands among the others */
#define END_STAT(status)		(STAT_STEPS_REPLAYED + 1 + ((status) - RUN_COMPLETED))
#define LATENCY_STATS			(LATENCY_BUCKETS + 1)	/* the last is the sum */
#define LATENCY_STAT(what, n)	(END_STAT(RUN_EXPIRED) + 1 + (what) * LATENCY_STATS + (n))

StaticAssertDecl(LATENCY_STAT(STAT_WAKEUP, LATENCY_STATS) == STATS, "STATS is the number of counters");
StaticAssertDecl(STATS <= 64, "there is a bit for each counter");

/* What a nesting level of this transaction has counted */
typedef struct Frame
{
	int			nest_level;
	struct Frame *outer;
	uint64		touched;		/* a bit for each counter that is not zero */
	uint64		counts[STATS];
} Frame;

static Frame base;
static Frame *innermost = NULL;

/* ---------- In shared memory ---------- */

/* The counters of this database, or NULL: no preloading, or no room. */
static StatsDatabase *
stats_database(void)
{
	static StatsDatabase *mine = NULL;

	if (mine || background == NULL)
		return mine;
	Assert(OidIsValid(MyDatabaseId));
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES && mine == NULL; i++)
	{
		StatsDatabase *database = &background->stats[i];

		if (database->database == MyDatabaseId || !OidIsValid(database->database))
		{
			database->database = MyDatabaseId;
			mine = database;
		}
	}
	LWLockRelease(background->lock);
	return mine;
}

/* Must not raise an error. */
static void
stats_publish(const Frame *frame)
{
	StatsDatabase *database = stats_database();
	uint64		touched = frame->touched;

	if (database == NULL)
		return;
	while (touched != 0)
	{
		int			stat = pg_rightmost_one_pos64(touched);

		pg_atomic_fetch_add_u64(&database->counts[stat], (int64) frame->counts[stat]);
		touched &= touched - 1;
	}
}

/* ---------- In a transaction ---------- */

static Frame *
stats_frame(void)
{
	int			level = GetCurrentTransactionNestLevel();
	Frame	   *frame;

	if (innermost && innermost->nest_level == level)
		return innermost;
	frame = innermost ? MemoryContextAlloc(TopTransactionContext, sizeof(Frame)) : &base;
	memset(frame, 0, sizeof(Frame));
	frame->nest_level = level;
	frame->outer = innermost;
	innermost = frame;
	return frame;
}

static void
stats_add(int stat, uint64 count)
{
	Frame	   *frame;

	if (background == NULL)
		return;
	frame = stats_frame();
	frame->touched |= UINT64CONST(1) << stat;
	frame->counts[stat] += count;
}

void
stats_count(Stat stat)
{
	stats_add(stat, 1);
}

/* A run has ended. */
void
stats_count_end(RunStatus status)
{
	stats_add(END_STAT(status), 1);
}

static int
latency_bucket(int64 us)
{
	int			n = 0;

	while (n < LATENCY_BUCKETS - 1 && us > bounds[n])
		n++;
	return n;
}

void
stats_count_latency(StatLatency what, TimestampTz since, TimestampTz until)
{
	int64		us = Max(until - since, 0);

	stats_add(LATENCY_STAT(what, latency_bucket(us)), 1);
	stats_add(LATENCY_STAT(what, LATENCY_BUCKETS), us);
}

/* This worker was woken at that time, outside a transaction. */
void
stats_count_wakeup_now(TimestampTz since)
{
	StatsDatabase *database = stats_database();
	int64		us = Max(GetCurrentTimestamp() - since, 0);

	if (database == NULL)
		return;
	pg_atomic_fetch_add_u64(&database->counts[LATENCY_STAT(STAT_WAKEUP, latency_bucket(us))], 1);
	pg_atomic_fetch_add_u64(&database->counts[LATENCY_STAT(STAT_WAKEUP, LATENCY_BUCKETS)], us);
}

/* What the innermost frame has counted is its outer level's now. */
static void
stats_merge(int level)
{
	Frame	   *frame = innermost;

	if (frame->outer == NULL || frame->outer->nest_level < level - 1)
	{
		frame->nest_level = level - 1;
		return;
	}
	for (int i = 0; i < STATS; i++)
		frame->outer->counts[i] += frame->counts[i];
	frame->outer->touched |= frame->touched;
	innermost = frame->outer;
}

static void
stats_xact_callback(XactEvent event, void *arg)
{
	if (innermost == NULL)
		return;
	if (event == XACT_EVENT_COMMIT)
		stats_publish(innermost);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		innermost = NULL;
}

static void
stats_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
					   void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (innermost == NULL || innermost->nest_level < level)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		stats_merge(level);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		innermost = innermost->outer;
}

/* Called once, when the library is loaded. */
void
stats_init(void)
{
	RegisterXactCallback(stats_xact_callback, NULL);
	RegisterSubXactCallback(stats_subxact_callback, NULL);
}

/* ---------- stats_shared ---------- */

static void
put_stat(ReturnSetInfo *rows, const char *name, const char *label, double value)
{
	Datum		values[4];
	bool		nulls[4] = {false, label == NULL, false, false};

	values[0] = CStringGetTextDatum(name);
	values[1] = label ? CStringGetTextDatum(label) : (Datum) 0;
	values[2] = Float8GetDatum(value);
	values[3] = TimestampTzGetDatum(background->started_at);
	tuplestore_putvalues(rows->setResult, rows->setDesc, values, nulls);
}

/* Buckets count what is within their bound, those of the smaller ones included. */
static void
put_latency(ReturnSetInfo *rows, const char *name, StatLatency what, const uint64 *counts)
{
	uint64		total = 0;

	for (int i = 0; i < LATENCY_BUCKETS; i++)
	{
		total += counts[LATENCY_STAT(what, i)];
		put_stat(rows, psprintf("%s_bucket", name),
				 i < LATENCY_BUCKETS - 1 ? psprintf("%g", (double) bounds[i] / 1e6) : "+Inf", (double) total);
	}
	put_stat(rows, psprintf("%s_count", name), NULL, (double) total);
	put_stat(rows, psprintf("%s_sum", name), NULL,
			 (double) counts[LATENCY_STAT(what, LATENCY_BUCKETS)] / 1e6);
}

/* stats_shared(): the counters of this database; no row where there are none */
Datum
trigger_idem_stats_shared(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rows = (ReturnSetInfo *) fcinfo->resultinfo;
	StatsDatabase *database = stats_database();
	uint64		counts[STATS];

	/* they are of all tasks and environments */
	access_require_for_all(ACCESS_MONITOR, "stats()");
	InitMaterializedSRF(fcinfo, 0);
	if (database == NULL)
		return (Datum) 0;
	for (int i = 0; i < STATS; i++)
		counts[i] = pg_atomic_read_u64(&database->counts[i]);

	put_stat(rows, "triggers", NULL, (double) counts[STAT_TRIGGERS]);
	put_stat(rows, "hits", NULL, (double) counts[STAT_HITS]);
	put_stat(rows, "steps_done", NULL, (double) counts[STAT_STEPS_DONE]);
	put_stat(rows, "steps_replayed", NULL, (double) counts[STAT_STEPS_REPLAYED]);
	for (int status = RUN_COMPLETED; status <= RUN_EXPIRED; status++)
		put_stat(rows, "runs_ended", run_status_name(status), (double) counts[END_STAT(status)]);
	put_latency(rows, "claim_seconds", STAT_CLAIM, counts);
	put_latency(rows, "wakeup_seconds", STAT_WAKEUP, counts);
	return (Datum) 0;
}
