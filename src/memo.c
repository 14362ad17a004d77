/*-------------------------------------------------------------------------
 *
 * memo.c
 *	  What the current run knows of its finished steps.
 *
 * Memos of the run being executed are kept in a hash table in the run's memory
 * context, loaded once from what earlier attempts committed.  Those of the
 * present transaction are also on a stack, in the order in which they were
 * made, each with the nesting level of the (sub)transaction that would undo it:
 * a rolled-back savepoint pops its own and no others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "current.h"
#include "memo.h"
#include "stats.h"
#include "store.h"

/* So much of a step's id tells it from the others of its run. */
#define REPLAYED_BYTES		8

/* A memo that is not committed yet */
typedef struct PendingMemo
{
	Key			step_id;
	int			nest_level;
} PendingMemo;

/* Of the current run; all in its memory context */
static HTAB *memos = NULL;
static PendingMemo *pending = NULL;
static int	pending_count = 0;
static int	pending_size = 0;

/* The run is no longer current; its memory context is about to go. */
void
memo_forget_run(void)
{
	memos = NULL;
	pending = NULL;
	pending_count = pending_size = 0;
}

static void
memo_enter(HTAB *table, const Key *step_id, Datum output, bool isnull)
{
	MemoryContext caller = MemoryContextSwitchTo(current_run()->context);
	Memo	   *memo = hash_search(table, step_id, HASH_ENTER, NULL);

	memo->isnull = isnull;
	memo->is_replayed = false;
	memo->output = isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(output));
	MemoryContextSwitchTo(caller);
}

/*
 * Load what earlier attempts of the run have committed.  Only a table that is
 * complete becomes the run's: the handler may catch an error and go on.
 */
static void
memos_load(CurrentRun *run)
{
	HTAB	   *table;
	HASHCTL		info = {.keysize = sizeof(Key),.entrysize = sizeof(Memo),.hcxt = run->context};
	Snapshot	snapshot;
	StoreLookup lookup;
	bool		found;

	table = hash_create("trigger_idem memos", 64, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	/* an application may have committed some in this attempt */
	if (run->attempt == 1 && !run->is_entered)
	{
		memos = table;
		return;
	}

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (found = store_lookup(&lookup, STORE_STEP, UUIDPGetDatum(&run->run_id), snapshot);
		 found; found = store_lookup_next(&lookup))
	{
		bool		isnull;
		Key			step_id;
		Datum		output;

		key_from_bytea(slot_getattr(lookup.slot, STEP_STEP_ID, &isnull), &step_id);
		output = slot_getattr(lookup.slot, STEP_OUTPUT, &isnull);
		memo_enter(table, &step_id, output, isnull);
		CHECK_FOR_INTERRUPTS();
	}
	store_lookup_end(&lookup);
	UnregisterSnapshot(snapshot);
	memos = table;
}

/* Have the memos of what was committed before. */
void
memo_prepare(void)
{
	if (memos == NULL)
		memos_load(current_run());
}

/* The memo of a step, or NULL; good until the run is not current any more */
Memo *
memo_find(const Key *step_id)
{
	memo_prepare();
	return hash_search(memos, step_id, HASH_FIND, NULL);
}

/* How many steps are done? */
int64
memo_number(void)
{
	return hash_get_num_entries(memos);
}

/* A step got its stored output. */
void
memo_note_replay(Memo *memo)
{
	CurrentRun *run = current_run();
	MemoryContext caller;
	Key		   *step_id;

	run->steps_replayed++;
	stats_count(STAT_STEPS_REPLAYED);
	if (memo->is_replayed)
		return;
	caller = MemoryContextSwitchTo(run->context);
	step_id = palloc(sizeof(Key));
	*step_id = memo->step_id;
	run->replayed = lappend(run->replayed, step_id);
	memo->is_replayed = true;
	MemoryContextSwitchTo(caller);
}

/*
 * Tell what an attempt has done, for its row in the table of attempts; in the
 * memory context of the run.
 */
void
memo_count(const CurrentRun *run, AttemptResult *result)
{
	MemoryContext caller;
	int			count = 0;
	Datum	   *ids;
	ListCell   *cell;

	result->steps_done = run->steps_done;
	result->steps_replayed = run->steps_replayed;
	result->replayed = (Datum) 0;
	if (run->replayed == NIL)
		return;
	caller = MemoryContextSwitchTo(run->context);
	ids = palloc(list_length(run->replayed) * sizeof(Datum));
	foreach(cell, run->replayed)
	{
		bytea	   *id = palloc(VARHDRSZ + REPLAYED_BYTES);

		SET_VARSIZE(id, VARHDRSZ + REPLAYED_BYTES);
		memcpy(VARDATA(id), ((Key *) lfirst(cell))->bytes, REPLAYED_BYTES);
		ids[count++] = PointerGetDatum(id);
	}
	result->replayed = PointerGetDatum(construct_array(ids, count, BYTEAOID, -1, false,
													   TYPALIGN_INT));
	MemoryContextSwitchTo(caller);
}

/* Remember that a memo goes when the present (sub)transaction does. */
static void
memo_push_pending(const Key *step_id)
{
	if (pending == NULL)
	{
		pending_size = 16;
		pending = MemoryContextAlloc(current_run()->context, pending_size * sizeof(PendingMemo));
	}
	else if (pending_count == pending_size)
	{
		pending_size *= 2;
		pending = repalloc(pending, pending_size * sizeof(PendingMemo));
	}
	pending[pending_count].step_id = *step_id;
	pending[pending_count].nest_level = GetCurrentTransactionNestLevel();
	pending_count++;
}

/* Undo the memos of this nesting level and the deeper ones. */
static void
memos_roll_back(int nest_level)
{
	CurrentRun *run = current_run();

	while (pending_count > 0 && pending[pending_count - 1].nest_level >= nest_level)
	{
		hash_search(memos, &pending[--pending_count].step_id, HASH_REMOVE, NULL);
		run->steps_done--;
	}
}

/*
 * The memo of a step is being stored, in this (sub)transaction.  Those of what was
 * committed are there already, for this one is not to be taken for one of them.
 */
void
memo_add(const Key *step_id, Datum output, bool isnull)
{
	memo_push_pending(step_id);
	memo_enter(memos, step_id, output, isnull);
	current_run()->steps_done++;
}

static void
memo_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		pending_count = 0;
	else if (event == XACT_EVENT_ABORT)
		memos_roll_back(0);
}

static void
memo_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
					  void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		memos_roll_back(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = pending_count - 1; i >= 0 && pending[i].nest_level >= level; i--)
			pending[i].nest_level = level - 1;
}

/* Called once, when the library is loaded. */
void
memo_init(void)
{
	RegisterXactCallback(memo_xact_callback, NULL);
	RegisterSubXactCallback(memo_subxact_callback, NULL);
}
