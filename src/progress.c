/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  How far runs have come: run_progress().
 *
 * A session that executes a run shows its progress beside its sign of life
 * (worker.c), where others read it at once.  That is gone with the attempt, and an
 * application has no such place.  So the next commit also writes it into the queue
 * entry, which is gone with the run.  Not the call itself: a transaction that has
 * written must not be suspended (wait.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "answer.h"
#include "control.h"
#include "current.h"
#include "progress.h"
#include "store.h"
#include "worker.h"

#define MESSAGE_CHARS	(PROGRESS_MESSAGE_BYTES / MAX_MULTIBYTE_CHAR_LEN)

PG_FUNCTION_INFO_V1(trigger_idem_run_progress);
PG_FUNCTION_INFO_V1(trigger_idem_run_progress_of);

/* What a run has told in this transaction; at is 0 if none has */
static Progress told;
static pg_uuid_t told_by;

/* ---------- The next commit ---------- */

static void
progress_set(const Progress *progress, Datum *values, bool *nulls)
{
	values[ENTRY_PROGRESS - 1] = Float8GetDatum(progress->fraction);
	values[ENTRY_PROGRESSED_AT - 1] = TimestampTzGetDatum(progress->at);
	nulls[ENTRY_PROGRESS - 1] = nulls[ENTRY_PROGRESSED_AT - 1] = false;
	nulls[ENTRY_PROGRESS_MESSAGE - 1] = progress->length < 0;
	if (progress->length >= 0)
		values[ENTRY_PROGRESS_MESSAGE - 1] =
			PointerGetDatum(cstring_to_text_with_len(progress->message, progress->length));
}

/*
 * Write what was told into the queue entry, which the fence has found to be ours
 * and nobody else can take until we have committed.  There is none any more if this
 * transaction has ended the run.
 */
static void
progress_write(const CurrentRun *run)
{
	StoreRow	row;
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];

	CommandCounterIncrement();
	if (store_row_lock(&row, STORE_QUEUE_ENTRY, UUIDPGetDatum(&run->run_id), LockWaitBlock) !=
		STORE_LOCKED)
		return;
	store_row_read(&row, values, nulls);
	progress_set(&told, values, nulls);
	/* an index that an administrator has added may run SQL */
	PushActiveSnapshot(GetTransactionSnapshot());
	store_row_update(&row, values, nulls);
	PopActiveSnapshot();
	store_row_end(&row);
}

static void
progress_xact_callback(XactEvent event, void *arg)
{
	if (told.at == 0)
		return;
	if (event == XACT_EVENT_PRE_COMMIT && current_run() && !XactReadOnly &&
		memcmp(&current_run()->run_id, &told_by, sizeof(pg_uuid_t)) == 0)
		progress_write(current_run());
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		told.at = 0;
}

/* Called once, when the library is loaded. */
void
progress_init(void)
{
	RegisterXactCallback(progress_xact_callback, NULL);
}

/* ---------- The SQL functions ---------- */

/* run_progress(fraction float8, message text) */
Datum
trigger_idem_run_progress(PG_FUNCTION_ARGS)
{
	text	   *message = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	Progress	progress;

	if (current_run() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_CURRENT_RUN),
				 errmsg("%s is called outside a run", "run_progress()"),
				 errhint("Call it in the handler of a task, or after run_enter().")));
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("fraction must not be null")));
	progress.fraction = PG_GETARG_FLOAT8(0);
	/* not a number is neither */
	if (!(progress.fraction >= 0 && progress.fraction <= 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("fraction must be between 0 and 1")));
	progress.length = -1;
	if (message)
	{
		const char *string = VARDATA_ANY(message);

		progress.length = VARSIZE_ANY_EXHDR(message);
		if (pg_mbstrlen_with_len(string, progress.length) > MESSAGE_CHARS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("message must not be longer than %d characters", MESSAGE_CHARS)));
		memcpy(progress.message, string, progress.length);
	}
	progress.at = GetCurrentTimestamp();

	told = progress;
	told_by = current_run()->run_id;
	if (!current_run()->is_entered)
		worker_set_progress(&progress);
	PG_RETURN_VOID();
}

/* What the queue entry, or the worker that it names, has of a run's progress */
static bool
progress_find(const pg_uuid_t *run_id, Progress *progress)
{
	Snapshot	snapshot = store_latest_snapshot();
	Datum		entry[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	bool		found = store_fetch(STORE_QUEUE_ENTRY, UUIDPGetDatum(run_id), snapshot, entry, nulls);
	int64		token;

	UnregisterSnapshot(snapshot);
	if (!found)
		return false;
	token = nulls[ENTRY_WORKER_TOKEN - 1] ? WORKER_OUTSIDE :
		DatumGetInt64(entry[ENTRY_WORKER_TOKEN - 1]);
	if (token != WORKER_OUTSIDE &&
		worker_read_progress(token, run_id, DatumGetInt32(entry[ENTRY_ATTEMPT - 1]), progress))
		return true;
	if (nulls[ENTRY_PROGRESSED_AT - 1])
		return false;
	progress->fraction = DatumGetFloat8(entry[ENTRY_PROGRESS - 1]);
	progress->at = DatumGetTimestampTz(entry[ENTRY_PROGRESSED_AT - 1]);
	progress->length = -1;
	if (!nulls[ENTRY_PROGRESS_MESSAGE - 1])
	{
		text	   *message = DatumGetTextPP(entry[ENTRY_PROGRESS_MESSAGE - 1]);

		progress->length = pg_mbcliplen(VARDATA_ANY(message), VARSIZE_ANY_EXHDR(message),
										PROGRESS_MESSAGE_BYTES);
		memcpy(progress->message, VARDATA_ANY(message), progress->length);
	}
	return true;
}

/* run_progress_of(run_id uuid): nulls when it has told nothing, or is final */
Datum
trigger_idem_run_progress_of(PG_FUNCTION_ARGS)
{
	Datum		run[RUN_COLUMNS];
	bool		run_nulls[RUN_COLUMNS];
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};
	Progress	progress;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("run_id must not be null")));
	run_require_visible(PG_GETARG_UUID_P(0), run, run_nulls);
	if (progress_find(PG_GETARG_UUID_P(0), &progress))
	{
		values[0] = Float8GetDatum(progress.fraction);
		values[2] = TimestampTzGetDatum(progress.at);
		nulls[0] = nulls[2] = false;
		nulls[1] = progress.length < 0;
		if (progress.length >= 0)
			values[1] = PointerGetDatum(cstring_to_text_with_len(progress.message, progress.length));
	}
	PG_RETURN_DATUM(answer_row(fcinfo, values, nulls));
}
