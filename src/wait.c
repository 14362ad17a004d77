/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  Waiting: what a run asks to wait for, and the answers.
 *
 * A handler that waits is left by an error that only passes through.  What it
 * asked for stands in the memory of the run; when the handler has ended, however
 * that came, the worker rolls back and records the wait (suspend.c).  An application
 * has its wait recorded by its own commit.
 *
 * A run that waits has a queue entry that names the wait, and is visible from
 * the end of its timeout.  Whatever ends a run or a token that is awaited makes
 * the entry visible in the same transaction (awaited.c).  Then, or by the clock, the run is
 * claimed like any other; that fixes how the wait has ended.  The handler begins
 * anew, and passes the waits that are over with the same answer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "application.h"
#include "awaited.h"
#include "key.h"
#include "statement.h"
#include "step.h"
#include "store.h"
#include "suspend.h"
#include "token.h"
#include "wait.h"

#define WAIT_DOMAIN "trigger_idem wait v1"

static const char *const kind_names[WAIT_KINDS] = {
	[WAIT_FOR_TIME] = "time",
	[WAIT_FOR_RUN] = "run",
	[WAIT_FOR_TASK] = "task",
	[WAIT_FOR_BATCH] = "batch",
	[WAIT_FOR_TOKEN] = "token",
};

/* How often something has been asked for in this attempt */
typedef struct WaitCounter
{
	pg_uuid_t	what;			/* hash key */
	int			count;
} WaitCounter;

/* A savepoint that an application rolls back did not count. */
typedef struct Counted
{
	pg_uuid_t	what;
	int			nest_level;
} Counted;

/* What the current run has waited for, and asks to wait for; see current.h */
typedef struct WaitState
{
	HTAB	   *answers;		/* of waits that are over; NULL: not loaded
								 * yet */
	HTAB	   *counters;		/* loaded with them */
	List	   *counted;		/* Counted: by this transaction of an
								 * application */
	WaitRequest *request;		/* of a handler: it shall wait */
	List	   *remembered;		/* WaitRequest: over without having waited */
} WaitState;

/* ---------- What the run has waited for ---------- */

static WaitState *
wait_state(CurrentRun *run)
{
	if (run->waits == NULL)
		run->waits = MemoryContextAllocZero(run->context, sizeof(WaitState));
	return run->waits;
}

const char *
wait_kind_name(WaitKind kind)
{
	return kind_names[kind];
}

static WaitKind
kind_parse(const char *name)
{
	for (int i = 0; i < WAIT_KINDS; i++)
		if (strcmp(name, kind_names[i]) == 0)
			return (WaitKind) i;
	elog(ERROR, "unknown kind of wait");
}

/* Read the row of a wait that the current run has ended; false if it has not. */
static bool
answer_read(const CurrentRun *run, TupleTableSlot *row, WaitAnswer *answer)
{
	Datum		values[WAIT_COLUMNS];
	bool		nulls[WAIT_COLUMNS];
	bool		is_last;

	slot_getallattrs(row);
	memcpy(values, row->tts_values, sizeof(values));
	memcpy(nulls, row->tts_isnull, sizeof(nulls));
	memset(answer, 0, sizeof(*answer));
	answer->wait_id = *DatumGetUUIDP(values[WAIT_WAIT_ID - 1]);
	is_last = run->last_wait.has_ended &&
		memcmp(&run->last_wait.wait_id, &answer->wait_id, sizeof(pg_uuid_t)) == 0;
	if (nulls[WAIT_ENDED_AT - 1] && !is_last)
		return false;

	answer->kind = kind_parse(TextDatumGetCString(values[WAIT_KIND - 1]));
	answer->steady_attempt = DatumGetInt32(values[WAIT_STEADY_ATTEMPT - 1]);
	if (!nulls[WAIT_TARGET - 1])
		answer->target = *DatumGetUUIDP(values[WAIT_TARGET - 1]);
	answer->is_cached = !nulls[WAIT_IS_CACHED - 1] && DatumGetBool(values[WAIT_IS_CACHED - 1]);
	answer->until = nulls[WAIT_UNTIL - 1] ? DT_NOEND : DatumGetTimestampTz(values[WAIT_UNTIL - 1]);
	if (nulls[WAIT_ENDED_AT - 1])
		answer->timed_out = run->last_wait.timed_out;
	else
		answer->timed_out = !nulls[WAIT_TIMED_OUT - 1] && DatumGetBool(values[WAIT_TIMED_OUT - 1]);
	answer->has_status = !nulls[WAIT_STATUS - 1];
	if (answer->has_status)
		answer->status = run_status_from_oid(DatumGetObjectId(values[WAIT_STATUS - 1]));
	return true;
}

/* An application has passed this wait before, in the present attempt: count it. */
static void
answer_count(HTAB *counters, TupleTableSlot *row, int column)
{
	bool		isnull;
	Datum		what = slot_getattr(row, column, &isnull);
	bool		found;
	WaitCounter *counter;

	if (isnull)
		return;
	counter = hash_search(counters, DatumGetUUIDP(what), HASH_ENTER, &found);
	counter->count = found ? counter->count + 1 : 1;
}

/* Know what this and earlier attempts have waited for. */
static void
answers_require(CurrentRun *run)
{
	WaitState  *state = wait_state(run);
	HASHCTL		info = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(WaitAnswer),.hcxt = run->context};
	HASHCTL		counter_info = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(WaitCounter),.hcxt = run->context};
	HTAB	   *answers;
	HTAB	   *counters;
	Snapshot	snapshot;
	StoreLookup lookup;
	bool		found;

	if (state->answers)
		return;
	answers = hash_create("trigger_idem waits", 16, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	counters = hash_create("trigger_idem wait counters", 16, &counter_info,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	snapshot = store_latest_snapshot();
	for (found = store_lookup(&lookup, STORE_WAIT, UUIDPGetDatum(&run->run_id), snapshot);
		 found; found = store_lookup_next(&lookup))
	{
		WaitAnswer	answer;
		bool		isnull;
		int			passed = DatumGetInt32(slot_getattr(lookup.slot, WAIT_PASSED_ATTEMPT, &isnull));

		if (answer_read(run, lookup.slot, &answer))
			*(WaitAnswer *) hash_search(answers, &answer.wait_id, HASH_ENTER, NULL) = answer;
		if (!isnull && passed == run->attempt)
		{
			answer_count(counters, lookup.slot, WAIT_WHAT);
			answer_count(counters, lookup.slot, WAIT_KEYLESS);
		}
		CHECK_FOR_INTERRUPTS();
	}
	store_lookup_end(&lookup);
	UnregisterSnapshot(snapshot);
	state->answers = answers;
	state->counters = counters;
}

/* ---------- What it asks for ---------- */

/* The id of the number-th thing of a kind and a name in the current step */
static void
wait_identify(const char *kind, const void *name, int length, int number, pg_uuid_t *id)
{
	const CurrentRun *run = current_run();
	const Key  *around = step_around();
	KeyMaterial material;
	Key			key;

	key_material_begin(&material, WAIT_DOMAIN);
	key_material_bytes(&material, run->run_id.data, UUID_LEN);
	key_material_bytes(&material, around ? around->bytes : NULL, around ? KEY_BYTES : 0);
	key_material_cstring(&material, kind);
	key_material_bytes(&material, name, length);
	key_material_number(&material, number);
	key_material_hash(&material, &key);
	memcpy(id->data, key.bytes, UUID_LEN);
}

/* Count what has this id; the first time, the answer is 1. */
static int
wait_count(const pg_uuid_t *what)
{
	CurrentRun *run = current_run();
	bool		found;
	WaitCounter *counter;

	answers_require(run);
	counter = hash_search(run->waits->counters, what, HASH_ENTER, &found);
	counter->count = found ? counter->count + 1 : 1;
	if (run->is_entered)
	{
		MemoryContext caller = MemoryContextSwitchTo(run->context);
		Counted    *counted = palloc(sizeof(Counted));

		counted->what = *what;
		counted->nest_level = GetCurrentTransactionNestLevel();
		run->waits->counted = lappend(run->waits->counted, counted);
		MemoryContextSwitchTo(caller);
	}
	return counter->count;
}

static void
wait_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
					  void *arg)
{
	CurrentRun *run = current_run();
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	if (run == NULL || !run->is_entered || run->waits == NULL ||
		(event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB))
		return;
	foreach(cell, run->waits->counted)
	{
		Counted    *counted = lfirst(cell);
		WaitCounter *counter;

		if (counted->nest_level < level)
			continue;
		counted->nest_level = level - 1;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			continue;
		counter = hash_search(run->waits->counters, &counted->what, HASH_FIND, NULL);
		counter->count--;
		run->waits->counted = foreach_delete_current(run->waits->counted, cell);
	}
}

/* Called once, when the library is loaded. */
void
wait_init(void)
{
	RegisterSubXactCallback(wait_subxact_callback, NULL);
}

/*
 * The key of a trigger that has none: the task, the number of such triggers in
 * this attempt and, in a step, the key of that.  keyless is what it was counted
 * under.
 */
text *
wait_keyless_key(const char *task_id, pg_uuid_t *keyless)
{
	const Key  *around = step_around();
	text	   *parts[3];

	wait_identify("keyless", task_id, (int) strlen(task_id), 0, keyless);
	parts[0] = cstring_to_text(task_id);
	parts[1] = cstring_to_text(psprintf("%d", wait_count(keyless)));
	if (around)
		parts[2] = key_to_hex(around);
	return key_of_run(parts, around ? 3 : 2);
}

/* A uuid, as long as the run */
static NullableDatum
keep_uuid(const pg_uuid_t *uuid)
{
	pg_uuid_t  *copy = MemoryContextAlloc(current_run()->context, sizeof(pg_uuid_t));

	*copy = *uuid;
	return (NullableDatum)
	{
		.value = UUIDPGetDatum(copy)
	};
}

/* The request is for a trigger that has no key. */
void
wait_is_keyless(WaitRequest *request, const pg_uuid_t *keyless)
{
	request->keyless = keep_uuid(keyless);
}

/*
 * Make a request to wait for something that has a name.  If that may happen more
 * than once in a run, the n-th time is a wait of its own.  In the memory context
 * of the current run; until and what is for its kind are to be filled in.
 */
WaitRequest *
wait_request(WaitKind kind, const void *name, int length, bool is_counted, text *shown)
{
	CurrentRun *run = current_run();
	MemoryContext caller = MemoryContextSwitchTo(run->context);
	WaitRequest *request = palloc0(sizeof(WaitRequest));
	int			number = 0;

	request->what.isnull = request->keyless.isnull = true;
	if (is_counted)
	{
		pg_uuid_t	what;

		wait_identify(kind_names[kind], name, length, 0, &what);
		number = wait_count(&what);
		request->what = keep_uuid(&what);
	}
	wait_identify(kind_names[kind], name, length, number, &request->wait_id);
	request->kind = kind;
	request->path = step_path_to(shown);
	request->until = DT_NOEND;
	request->run_id = run->run_id;
	request->attempt = run->attempt;
	request->steady_attempt = run->steady_attempt;
	if (kind == WAIT_FOR_TASK || kind == WAIT_FOR_BATCH)
	{
		GetUserIdAndSecContext(&request->role, &request->security_context);
		request->time_zone = pstrdup(GetConfigOption("TimeZone", false, false));
		request->date_style = pstrdup(GetConfigOption("DateStyle", false, false));
		request->interval_style = pstrdup(GetConfigOption("IntervalStyle", false, false));
	}
	MemoryContextSwitchTo(caller);
	return request;
}

/* ---------- Answers ---------- */

/*
 * How does a final run answer?  If it is gone, its status is the one known.  Who may
 * not see the run, for he only knows its key, gets no more than its status.
 */
void
wait_run_answer(const pg_uuid_t *run_id, RunStatus known, RunAnswer *answer)
{
	Snapshot	snapshot = store_latest_snapshot();
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];

	answer->status = known;
	answer->output.isnull = answer->error.isnull = true;
	if (store_fetch(STORE_RUN, UUIDPGetDatum(run_id), snapshot, values, nulls))
	{
		if (nulls[RUN_STATUS - 1])
			(void) run_find_status(run_id, snapshot, &answer->status);
		else
			answer->status = run_status_from_oid(DatumGetObjectId(values[RUN_STATUS - 1]));
		if (access_may_see_run(TextDatumGetCString(values[RUN_TASK_ID - 1]),
							   TextDatumGetCString(values[RUN_TRIGGERED_BY - 1]),
							   TextDatumGetCString(values[RUN_ENVIRONMENT - 1])))
		{
			answer->output.value = values[RUN_OUTPUT - 1];
			answer->output.isnull = nulls[RUN_OUTPUT - 1];
			answer->error.value = values[RUN_ERROR - 1];
			answer->error.isnull = nulls[RUN_ERROR - 1];
		}
	}
	UnregisterSnapshot(snapshot);
}

/* The items of a batch that was waited for, in their order */
WaitTarget *
wait_batch_targets(const pg_uuid_t *wait_id, int *count)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreLookup lookup;
	WaitTarget *targets = palloc(16 * sizeof(WaitTarget));
	int			size = 16;
	bool		found;

	*count = 0;
	for (found = store_lookup(&lookup, STORE_AWAITED, UUIDPGetDatum(wait_id), snapshot);
		 found; found = store_lookup_next(&lookup))
	{
		WaitTarget *target;
		Datum		status;
		bool		isnull;

		if (*count == size)
			targets = repalloc_huge(targets, (size *= 2) * sizeof(WaitTarget));
		target = &targets[(*count)++];
		memset(target, 0, sizeof(*target));
		target->id = *DatumGetUUIDP(slot_getattr(lookup.slot, AWAITED_TARGET, &isnull));
		target->is_cached = DatumGetBool(slot_getattr(lookup.slot, AWAITED_IS_CACHED, &isnull));
		status = slot_getattr(lookup.slot, AWAITED_STATUS, &isnull);
		target->status = isnull ? RUN_COMPLETED : run_status_from_oid(DatumGetObjectId(status));
		CHECK_FOR_INTERRUPTS();
	}
	store_lookup_end(&lookup);
	UnregisterSnapshot(snapshot);
	return targets;
}

bool
wait_run_has_completed(const pg_uuid_t *run_id, RunStatus known)
{
	RunAnswer	answer;

	wait_run_answer(run_id, known, &answer);
	return answer.status == RUN_COMPLETED;
}

/*
 * Does an answer hold?  After an attempt that failed, what has not completed is
 * asked for anew.
 */
static bool
answer_holds(const CurrentRun *run, const WaitAnswer *answer)
{
	WaitTarget *targets;
	int			count;

	if (answer->kind == WAIT_FOR_TIME || answer->kind == WAIT_FOR_TOKEN ||
		answer->steady_attempt == run->steady_attempt)
		return true;
	if (answer->timed_out)
		return false;
	if (answer->kind != WAIT_FOR_BATCH)
		return wait_run_has_completed(&answer->target, answer->status);
	targets = wait_batch_targets(&answer->wait_id, &count);
	for (int i = 0; i < count; i++)
		if (!wait_run_has_completed(&targets[i].id, targets[i].status))
			return false;
	return true;
}

/* Is a wait over?  Then this is the answer, the same in every attempt. */
bool
wait_find_answer(WaitRequest *request, WaitAnswer *answer)
{
	CurrentRun *run = current_run();
	WaitAnswer *found;

	answers_require(run);
	found = hash_search(run->waits->answers, &request->wait_id, HASH_FIND, NULL);
	if (found == NULL)
		return false;
	*answer = *found;
	request->is_again = !answer_holds(run, found);
	if (!request->is_again && run->is_entered && !request->what.isnull)
		application_pass(request, false);
	return !request->is_again;
}

/* ---------- Cycles ---------- */

/* Is a run waiting, and for which runs and tokens? */
static WaitTarget *
run_waits_for(const pg_uuid_t *run_id, int *count)
{
	Snapshot	snapshot = store_latest_snapshot();
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	bool		is_waiting;

	*count = 0;
	is_waiting = store_fetch(STORE_QUEUE_ENTRY, UUIDPGetDatum(run_id), snapshot, values, nulls) &&
		run_entry_is_waiting(values, nulls);
	UnregisterSnapshot(snapshot);
	return is_waiting ? wait_batch_targets(DatumGetUUIDP(values[ENTRY_WAIT_ID - 1]), count) : NULL;
}

/* TI005 if what waits for target would, in the end, wait for itself. */
void
wait_check_cycle(const pg_uuid_t *waiter, const pg_uuid_t *first)
{
	HASHCTL		info = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(pg_uuid_t),.hcxt = CurrentMemoryContext};
	HTAB	   *seen = hash_create("trigger_idem cycle", 16, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	List	   *left = list_make1(unconstify(pg_uuid_t *, first));

	while (left != NIL)
	{
		pg_uuid_t  *run_id = llast(left);
		WaitTarget *targets;
		int			count;
		bool		was_seen;

		CHECK_FOR_INTERRUPTS();
		left = list_delete_last(left);
		if (memcmp(run_id, waiter, sizeof(pg_uuid_t)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_WAIT_CYCLE),
					 errmsg("run %s would wait for itself", run_id_text(waiter)),
					 errdetail("It would wait for run %s, which is, or waits for, that run.",
							   run_id_text(first))));
		hash_search(seen, run_id, HASH_ENTER, &was_seen);
		if (was_seen)
			continue;
		targets = run_waits_for(run_id, &count);
		for (int i = 0; i < count; i++)
			left = lappend(left, &targets[i].id);
	}
	hash_destroy(seen);
}

/* ---------- Beginning to wait ---------- */

/* Take what a handler that has ended has asked for, and what was over. */
WaitRequest *
wait_take_request(CurrentRun *run)
{
	WaitRequest *request = run->waits->request;

	run->waits->request = NULL;
	return request;
}

List *
wait_take_remembered(const CurrentRun *run)
{
	List	   *remembered = run->waits ? run->waits->remembered : NIL;

	if (remembered)
		run->waits->remembered = NIL;
	return remembered;
}

bool
wait_has_begun(const CurrentRun *run)
{
	return run->waits && run->waits->request;
}

/* Leave the handler; EXCEPTION WHEN OTHERS lets this code pass. */
pg_noreturn static void
wait_leave_handler(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_ASSERT_FAILURE),
			 errmsg("run %s waits", run_id_text(&current_run()->run_id)),
			 errhint("This error ends the attempt, which is not counted. Let it pass; the handler is called again when the wait is over.")));
}

/* A handler that has caught the error gets it again. */
void
wait_check_not_begun(void)
{
	CurrentRun *run = current_run();

	if (run && wait_has_begun(run))
		wait_leave_handler();
}

/*
 * Have the current run wait.  A handler is left; to an application this returns,
 * and its commit ends the attempt.
 */
void
wait_begin(WaitRequest *request)
{
	CurrentRun *run = current_run();

	PreventCommandIfReadOnly("a wait");
	if (run->is_entered)
	{
		if (request->arguments)
			suspend_trigger(request);
		application_wait(request);
		return;
	}

	/*
	 * in a group others may have written, and it will have its own
	 * transaction
	 */
	if (!run->is_grouped && TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait in a transaction that has written something"),
				 errdetail("To wait ends the attempt, and would undo it."),
				 errhint("COMMIT first, in a procedure; a function can wait as long as it has not written.")));
	wait_state(run)->request = request;
	wait_leave_handler();
}

/*
 * A wait that was over when it was asked for: the next attempt shall get the same
 * answer.  A handler that writes could not wait any more, so its worker records it
 * together with the end of the attempt.
 */
void
wait_remember(const WaitRequest *request, const WaitTarget *targets, int count)
{
	CurrentRun *run = current_run();
	MemoryContext caller = MemoryContextSwitchTo(run->context);
	WaitRequest *copy = palloc(sizeof(WaitRequest));

	*copy = *request;
	copy->targets = palloc_extended(Max(count, 1) * sizeof(WaitTarget), MCXT_ALLOC_HUGE);
	if (count > 0)
		memcpy(copy->targets, targets, count * sizeof(WaitTarget));
	copy->count = count;
	if (run->is_entered)
		application_pass(copy, true);
	else
		wait_state(run)->remembered = lappend(wait_state(run)->remembered, copy);
	MemoryContextSwitchTo(caller);
}

/* ---------- Ending a wait ---------- */

static Statement note_status = {
	.sql = "UPDATE trigger_idem.wait SET status = $3::trigger_idem.run_status "
	"WHERE run_id OPERATOR(pg_catalog.=) $1 AND wait_id OPERATOR(pg_catalog.=) $2"
	"  AND status IS NULL",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, UUIDOID, TEXTOID}
};

static Statement note_end = {
	.sql = "UPDATE trigger_idem.queue_entry SET wait_over = true "
	"WHERE run_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID}
};

/* What a wait of a run is for, if that is one run or token */
static bool
wait_find_target(const pg_uuid_t *run_id, const pg_uuid_t *wait_id, Snapshot snapshot,
				 WaitKind *kind, pg_uuid_t *target)
{
	StoreLookup lookup;
	bool		found;
	bool		isnull = true;

	for (found = store_lookup(&lookup, STORE_WAIT, UUIDPGetDatum(run_id), snapshot);
		 found; found = store_lookup_next(&lookup))
	{
		Datum		value;

		if (memcmp(DatumGetUUIDP(slot_getattr(lookup.slot, WAIT_WAIT_ID, &isnull)), wait_id,
				   sizeof(pg_uuid_t)) != 0)
			continue;
		*kind = kind_parse(TextDatumGetCString(slot_getattr(lookup.slot, WAIT_KIND, &isnull)));
		value = slot_getattr(lookup.slot, WAIT_TARGET, &isnull);
		if (!isnull)
			*target = *DatumGetUUIDP(value);
		break;
	}
	store_lookup_end(&lookup);
	return found && !isnull;
}

/*
 * A run was claimed, and its wait ended by the clock.  Has its target ended in the
 * meantime, and nobody could tell?  Then that is the answer.  If not, the status
 * that a run has now is part of it.
 */
void
wait_note_timeout(const pg_uuid_t *run_id, EndedWait *wait)
{
	Snapshot	snapshot = store_latest_snapshot();
	WaitKind	kind;
	pg_uuid_t	target;
	RunStatus	status = RUN_QUEUED;
	Datum		values[3];
	OwnerScope	scope;

	if (wait_find_target(run_id, &wait->wait_id, snapshot, &kind, &target))
	{
		if (kind == WAIT_FOR_TOKEN)
			wait->timed_out = !token_is_completed(&target, snapshot);
		else
			wait->timed_out = run_find_status(&target, snapshot, &status) &&
				!RUN_STATUS_IS_FINAL(status);
		values[0] = UUIDPGetDatum(run_id);
		values[1] = UUIDPGetDatum(&wait->wait_id);
		values[2] = CStringGetTextDatum(run_status_name(status));
		owner_begin(&scope);
		scope_see_latest(&scope);
		if (!wait->timed_out)
			statement_run(&note_end, values, NULL);
		else if (kind == WAIT_FOR_RUN)
			statement_run(&note_status, values, NULL);
		owner_end(&scope);
	}
	UnregisterSnapshot(snapshot);
}
