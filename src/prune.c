/*-------------------------------------------------------------------------
 *
 * prune.c
 *	  prune(): removing what is no longer needed, a batch at a time.
 *
 * Runs are found by their ids, which tell when they were made: no index has to
 * be kept on when they finished.  Nor is there one on when keys expire, which
 * every trigger would pay for; keys are found by reading their table, beginning
 * where this session's last call has stopped.
 *
 * What somebody else has locked is left for the next time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "run.h"
#include "statement.h"
#include "store.h"
#include "task.h"

#define BATCH_MAX 1000000

PG_FUNCTION_INFO_V1(trigger_idem_prune);

/* ---------- Runs ---------- */

static Statement expired_runs = {
	.sql = "SELECT e.run_id FROM trigger_idem.queue_entry e "
	"WHERE e.first_started_at IS NULL"
	"  AND e.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() "
	"ORDER BY e.expires_at LIMIT $1",
	.expected = SPI_OK_SELECT,
	.argtypes = {INT4OID}
};

static Statement finished_runs = {
	.sql = "SELECT pg_catalog.array_agg(v.run_id) FROM ("
	"  SELECT r.run_id FROM trigger_idem.run r"
	"  WHERE r.run_id OPERATOR(pg_catalog.<) $1 AND r.status IS NOT NULL"
	"    AND r.finished_at OPERATOR(pg_catalog.<) $2"
	"    AND NOT EXISTS (SELECT FROM trigger_idem.awaited a JOIN trigger_idem.queue_entry e"
	"      ON e.run_id OPERATOR(pg_catalog.=) a.run_id"
	"      WHERE a.target OPERATOR(pg_catalog.=) r.run_id)"
	"  ORDER BY r.run_id LIMIT $3 FOR UPDATE SKIP LOCKED) v",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID, TIMESTAMPTZOID, INT4OID}
};

static Statement delete_steps = {
	.sql = "DELETE FROM trigger_idem.step WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
	"  SELECT s.ctid FROM trigger_idem.step s"
	"  WHERE s.run_id OPERATOR(pg_catalog.=) ANY ($1) LIMIT $2))",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDARRAYOID, INT4OID}
};

static Statement delete_attempts = {
	.sql = "DELETE FROM trigger_idem.attempt WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
	"  SELECT a.ctid FROM trigger_idem.attempt a"
	"  WHERE a.run_id OPERATOR(pg_catalog.=) ANY ($1) LIMIT $2))",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDARRAYOID, INT4OID}
};

static Statement delete_waits = {
	.sql = "DELETE FROM trigger_idem.wait WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
	"  SELECT w.ctid FROM trigger_idem.wait w"
	"  WHERE w.run_id OPERATOR(pg_catalog.=) ANY ($1)"
	"    AND NOT EXISTS (SELECT FROM trigger_idem.awaited a"
	"      WHERE a.wait_id OPERATOR(pg_catalog.=) w.wait_id) LIMIT $2))",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDARRAYOID, INT4OID}
};

static Statement delete_awaited = {
	.sql = "DELETE FROM trigger_idem.awaited WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
	"  SELECT a.ctid FROM trigger_idem.wait w JOIN trigger_idem.awaited a"
	"    ON a.wait_id OPERATOR(pg_catalog.=) w.wait_id"
	"  WHERE w.run_id OPERATOR(pg_catalog.=) ANY ($1) LIMIT $2))",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDARRAYOID, INT4OID}
};

/* Tokens that have ended long ago, and that no unfinished run has waited for */
static Statement delete_tokens = {
	.sql = "DELETE FROM trigger_idem.wait_token WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
	"  SELECT k.ctid FROM trigger_idem.wait_token k"
	"  WHERE (k.completed_at OPERATOR(pg_catalog.<) $1 OR k.expires_at OPERATOR(pg_catalog.<) $1)"
	"    AND NOT EXISTS (SELECT FROM trigger_idem.awaited a JOIN trigger_idem.queue_entry e"
	"      ON e.run_id OPERATOR(pg_catalog.=) a.run_id"
	"      WHERE a.target OPERATOR(pg_catalog.=) k.token)"
	"  LIMIT $2 FOR UPDATE SKIP LOCKED))",
	.expected = SPI_OK_DELETE,
	.argtypes = {TIMESTAMPTZOID, INT4OID}
};

/* Those whose steps and attempts did not fit into the batch go the next time. */
static Statement delete_runs = {
	.sql = "DELETE FROM trigger_idem.run r WHERE r.run_id OPERATOR(pg_catalog.=) ANY ($1)"
	"  AND NOT EXISTS (SELECT FROM trigger_idem.step s"
	"    WHERE s.run_id OPERATOR(pg_catalog.=) r.run_id)"
	"  AND NOT EXISTS (SELECT FROM trigger_idem.attempt a"
	"    WHERE a.run_id OPERATOR(pg_catalog.=) r.run_id)"
	"  AND NOT EXISTS (SELECT FROM trigger_idem.wait w"
	"    WHERE w.run_id OPERATOR(pg_catalog.=) r.run_id)",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDARRAYOID}
};

/* What a call has removed */
typedef struct Pruned
{
	uint64		keys;
	uint64		runs;
	uint64		attempts;
	uint64		steps;
	uint64		global_steps;
	uint64		waits;
	uint64		awaited;
	uint64		tokens;
} Pruned;

/* Runs that were never started in time are finished, noticed or not. */
static void
prune_expire_runs(int batch)
{
	OwnerScope	scope;
	Datum		limit = Int32GetDatum(batch);
	pg_uuid_t  *run_ids;
	uint64		count;

	owner_begin(&scope);
	count = statement_run(&expired_runs, &limit, NULL);
	run_ids = MemoryContextAlloc(scope.caller, Max(count, 1) * sizeof(pg_uuid_t));
	for (uint64 i = 0; i < count; i++)
		run_ids[i] = *DatumGetUUIDP(statement_value(i, 1, NULL));
	owner_end(&scope);
	for (uint64 i = 0; i < count; i++)
		(void) run_end_unclaimed(&run_ids[i], RUN_EXPIRED, false);
}

static void
prune_runs(TimestampTz cutoff, int batch, Pruned *pruned)
{
	Datum		values[3];
	pg_uuid_t	first_id;
	Datum		run_ids;
	bool		none;

	run_id_first(&first_id, cutoff);
	values[0] = UUIDPGetDatum(&first_id);
	values[1] = TimestampTzGetDatum(cutoff);
	values[2] = Int32GetDatum(batch);
	statement_run(&finished_runs, values, NULL);
	run_ids = statement_value(0, 1, &none);
	if (none)
		return;
	values[0] = run_ids;
	values[1] = Int32GetDatum(batch);
	pruned->steps = statement_run(&delete_steps, values, NULL);
	pruned->attempts = statement_run(&delete_attempts, values, NULL);
	pruned->awaited = statement_run(&delete_awaited, values, NULL);
	values[1] = Int32GetDatum(batch - (int) pruned->awaited);
	pruned->waits = statement_run(&delete_waits, values, NULL);
	pruned->runs = statement_run(&delete_runs, values, NULL);
}

/* ---------- Keys ---------- */

static Statement delete_keys = {
	.sql = "DELETE FROM trigger_idem.idempotency_key WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
	"  SELECT k.ctid FROM trigger_idem.idempotency_key k"
	"  WHERE k.ctid OPERATOR(pg_catalog.>=) $1 AND k.ctid OPERATOR(pg_catalog.<) $2"
	"    AND k.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
	"  LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING ctid",
	.expected = SPI_OK_DELETE_RETURNING,
	.argtypes = {TIDOID, TIDOID, INT4OID}
};

/*
 * Delete expired keys that are stored from one block to before another.  next is
 * set to where to go on.
 */
static uint64
prune_key_range(BlockNumber from, BlockNumber to, int batch, BlockNumber *next)
{
	ItemPointerData tids[2];
	Datum		values[3] = {PointerGetDatum(&tids[0]), PointerGetDatum(&tids[1]),
	Int32GetDatum(batch)};
	uint64		removed;

	ItemPointerSet(&tids[0], from, 0);
	ItemPointerSet(&tids[1], to, 0);
	removed = statement_run(&delete_keys, values, NULL);
	*next = removed < (uint64) batch ? to : from;
	if (*next == from)
		for (uint64 i = 0; i < removed; i++)
		{
			ItemPointer tid = (ItemPointer) DatumGetPointer(statement_value(i, 1, NULL));

			*next = Max(*next, ItemPointerGetBlockNumber(tid));
		}
	return removed;
}

static void
prune_keys(int batch, Pruned *pruned)
{
	static BlockNumber start = 0;
	BlockNumber begun_at = start;
	BlockNumber next;

	pruned->keys = prune_key_range(begun_at, MaxBlockNumber, batch, &next);
	if (next == MaxBlockNumber)
	{
		next = begun_at;
		if (begun_at > 0)
			pruned->keys += prune_key_range(0, begun_at, batch - (int) pruned->keys, &next);
	}
	start = next;
}

static Statement delete_global_steps = {
	.sql = "DELETE FROM trigger_idem.global_step WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
	"  SELECT g.ctid FROM trigger_idem.global_step g"
	"  WHERE g.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
	"  LIMIT $1 FOR UPDATE SKIP LOCKED))",
	.expected = SPI_OK_DELETE,
	.argtypes = {INT4OID}
};

/* ---------- prune ---------- */

static void
answer_row(ReturnSetInfo *answer, const char *what, uint64 removed)
{
	Datum		values[2] = {CStringGetTextDatum(what), Int64GetDatum((int64) removed)};
	bool		nulls[2] = {false, false};

	tuplestore_putvalues(answer->setResult, answer->setDesc, values, nulls);
}

/* prune(finished_before interval, batch int) */
Datum
trigger_idem_prune(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *answer = (ReturnSetInfo *) fcinfo->resultinfo;
	Pruned		pruned = {0};
	OwnerScope	scope;
	TimestampTz cutoff;
	Datum		limit;
	Datum		token_values[2];
	int			batch;

	access_require_for_all(ACCESS_ADMIN, "prune()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "finished_before" : "batch")));
	interval_check("finished_before", PG_GETARG_INTERVAL_P(0), 0);
	batch = PG_GETARG_INT32(1);
	if (batch < 1 || batch > BATCH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch is out of range"),
				 errdetail("It must be between 1 and %d.", BATCH_MAX)));
	PreventCommandDuringRecovery("prune()");
	PreventCommandIfReadOnly("prune()");
	InitMaterializedSRF(fcinfo, 0);
	cutoff = timestamp_minus(GetCurrentTimestamp(), PG_GETARG_INTERVAL_P(0));
	limit = Int32GetDatum(batch);

	prune_expire_runs(batch);
	owner_begin(&scope);
	prune_keys(batch, &pruned);
	prune_runs(cutoff, batch, &pruned);
	pruned.global_steps = statement_run(&delete_global_steps, &limit, NULL);
	token_values[0] = TimestampTzGetDatum(cutoff);
	token_values[1] = limit;
	pruned.tokens = statement_run(&delete_tokens, token_values, NULL);
	owner_end(&scope);

	answer_row(answer, "idempotency_keys", pruned.keys);
	answer_row(answer, "runs", pruned.runs);
	answer_row(answer, "attempts", pruned.attempts);
	answer_row(answer, "steps", pruned.steps);
	answer_row(answer, "global_steps", pruned.global_steps);
	answer_row(answer, "waits", pruned.waits + pruned.awaited);
	answer_row(answer, "wait_tokens", pruned.tokens);
	return (Datum) 0;
}
