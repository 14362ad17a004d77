/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  Claiming: which run is to be worked next.
 *
 * A claim walks along the index (queue, ord), past what is not for this worker,
 * and takes the first entry that it can lock.  What one claim has walked past,
 * runs of others and entries that are dead but not yet vacuumed, the next one
 * need not walk past again: after a walk that was long, a claimer begins where
 * it last found something.  Once a second, and before it says that nothing is
 * due, it looks at everything.  So an entry that comes in before that place, by
 * its priority or because its transaction took long to commit, may be found up
 * to a second later than it should.
 *
 * Of several queues, the one goes first whose next run has been due longest.
 * Queues that were not there at the last look at everything wait for the next.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "claim.h"
#include "environment.h"
#include "store.h"
#include "task.h"

/* How long a claimer may trust what it remembers */
#define LOOK_AGAIN_MS 1000

/* A walk past more index entries than this is long. */
#define LONG_WALK 100

/* What is remembered of a queue */
typedef struct QueueHead
{
	char	   *queue;
	TimestampTz next;			/* no entry for us has a lower ord, as far as
								 * is known */
	bool		begin_there;	/* the walk up to next is long */
} QueueHead;

/* One claim */
typedef struct Claim
{
	Claimer    *claimer;
	StoreWalk	walk;
	TimestampTz now;
	HTAB	   *environments;	/* which of them are open to us; NULL: none
								 * was met */
} Claim;

/* Is an environment open to us? */
typedef struct EnvironmentAccess
{
	char		environment[IDENTIFIER_MAX_BYTES + 1];	/* hash key */
	bool		is_open;
} EnvironmentAccess;

/* ---------- What is for us ---------- */

static bool
claim_environment_is_open(Claim *claim, const char *environment)
{
	EnvironmentAccess *access;
	bool		found;

	if (environment_is_default(environment))
		return true;
	if (claim->environments == NULL)
	{
		HASHCTL		info = {
			.keysize = sizeof(access->environment),
			.entrysize = sizeof(EnvironmentAccess),
			.hcxt = CurrentMemoryContext
		};

		claim->environments = hash_create("trigger_idem environments", 32, &info,
										  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	access = hash_search(claim->environments, environment, HASH_ENTER, &found);
	if (!found)
		access->is_open = environment_is_open(environment);
	return access->is_open;
}

/* Is the entry that the walk is at due, and ours to work? */
static bool
claim_wants_entry(Claim *claim)
{
	const Claimer *claimer = claim->claimer;
	TupleTableSlot *entry = claim->walk.slot;
	const Task *task;
	char	   *environment;
	char	   *task_id;
	bool		isnull;
	bool		wanted;

	if (!slot_attisnull(entry, ENTRY_WORKER_TOKEN) ||
		DatumGetTimestampTz(slot_getattr(entry, ENTRY_VISIBLE_FROM, &isnull)) > claim->now)
		return false;

	environment = TextDatumGetCString(slot_getattr(entry, ENTRY_ENVIRONMENT, &isnull));
	task_id = TextDatumGetCString(slot_getattr(entry, ENTRY_TASK_ID, &isnull));
	task = task_find(task_id);
	wanted = task != NULL && !task->dropped && task->handler_name != NULL &&
		strcmp(task->run_as, claimer->run_as) == 0 &&
		(claimer->environment == NULL || strcmp(environment, claimer->environment) == 0) &&
		claim_environment_is_open(claim, environment);
	pfree(environment);
	pfree(task_id);
	return wanted;
}

/* ---------- One queue ---------- */

typedef enum QueueWalkEnd
{
	WALK_CLAIMED,
	WALK_LATER,					/* there is a run, but others go first */
	WALK_NOTHING,
} QueueWalkEnd;

/*
 * Walk along a queue and claim the first run that is for us, unless its ord is
 * beyond limit.
 */
static QueueWalkEnd
claim_from_queue(Claim *claim, QueueHead *head, TimestampTz limit, ClaimedRun *claimed)
{
	StoreWalk  *walk = &claim->walk;
	TimestampTz from = head->begin_there ? head->next : DT_NOBEGIN;

	store_walk_seek_queue(walk, CStringGetTextDatum(head->queue), from, claim->now);
	while (store_walk_next(walk))
	{
		bool		isnull;

		if (!claim_wants_entry(claim))
			continue;
		head->next = DatumGetTimestampTz(slot_getattr(walk->slot, ENTRY_ORD, &isnull));
		if (walk->passed > LONG_WALK)
			head->begin_there = true;
		if (head->next > limit)
			return WALK_LATER;
		if (!store_walk_lock(walk))
			continue;
		run_begin_attempt(walk, claim->claimer->worker_id, claim->claimer->worker_token,
						  claim->now, claimed);
		return WALK_CLAIMED;
	}
	return WALK_NOTHING;
}

/* ---------- All queues ---------- */

static void
claimer_add_head(Claimer *claimer, const char *queue, TimestampTz next)
{
	MemoryContext caller = MemoryContextSwitchTo(claimer->context);
	QueueHead  *head = palloc(sizeof(QueueHead));

	head->queue = pstrdup(queue);
	head->next = next;
	head->begin_there = false;
	claimer->heads = lappend(claimer->heads, head);
	MemoryContextSwitchTo(caller);
}

static void
claimer_forget_head(Claimer *claimer, QueueHead *head)
{
	claimer->heads = list_delete_ptr(claimer->heads, head);
	pfree(head->queue);
	pfree(head);
}

/* Begin anew: forget what is remembered, and find the queues. */
static void
claim_look_at_everything(Claim *claim)
{
	Claimer    *claimer = claim->claimer;
	Datum		queue = CStringGetTextDatum("");

	while (claimer->heads != NIL)
		claimer_forget_head(claimer, llast(claimer->heads));
	claimer->looked_at = claim->now;
	if (claimer->queue)
	{
		claimer_add_head(claimer, claimer->queue, DT_NOBEGIN);
		return;
	}

	/* from queue to queue: this costs by the queue, not by the entry */
	for (;;)
	{
		TimestampTz ord;
		bool		isnull;

		store_walk_seek_after_queue(&claim->walk, queue);
		if (!store_walk_next(&claim->walk))
			break;
		queue = datumCopy(slot_getattr(claim->walk.slot, ENTRY_QUEUE, &isnull), false, -1);
		ord = DatumGetTimestampTz(slot_getattr(claim->walk.slot, ENTRY_ORD, &isnull));
		if (ord <= claim->now)
			claimer_add_head(claimer, TextDatumGetCString(queue), ord);
	}
}

/* The queue whose next run has been due longest, and how far it may go */
static QueueHead *
claim_first_head(const Claimer *claimer, TimestampTz *limit)
{
	QueueHead  *first = NULL;
	ListCell   *cell;

	*limit = DT_NOEND;
	foreach(cell, claimer->heads)
	{
		QueueHead  *head = lfirst(cell);

		if (first == NULL || head->next < first->next)
		{
			if (first)
				*limit = first->next;
			first = head;
		}
		else
			*limit = Min(*limit, head->next);
	}
	return first;
}

static bool
claim_from_heads(Claim *claim, ClaimedRun *claimed)
{
	QueueHead  *head;
	TimestampTz limit;

	while ((head = claim_first_head(claim->claimer, &limit)) != NULL)
		switch (claim_from_queue(claim, head, limit, claimed))
		{
			case WALK_CLAIMED:
				return true;
			case WALK_LATER:
				break;
			case WALK_NOTHING:
				claimer_forget_head(claim->claimer, head);
				break;
		}
	return false;
}

/*
 * Claim one due run whose task has a handler and runs as the claimer's role:
 * raise its attempt and give it to the worker.  False when there is none.  What
 * comes back is in the current context.
 */
bool
claim_next(Claimer *claimer, ClaimedRun *claimed)
{
	Snapshot	snapshot;
	Claim		claim = {.claimer = claimer,.now = GetCurrentTimestamp()};
	bool		looked = false;
	bool		found;

	store_pin();
	snapshot = store_snapshot();
	store_walk_begin(&claim.walk, STORE_QUEUE_ORDER, snapshot);
	if (claimer->looked_at == 0 ||
		TimestampDifferenceExceeds(claimer->looked_at, claim.now, LOOK_AGAIN_MS))
	{
		claim_look_at_everything(&claim);
		looked = true;
	}
	found = claim_from_heads(&claim, claimed);
	if (!found && !looked)
	{
		claim_look_at_everything(&claim);
		found = claim_from_heads(&claim, claimed);
	}
	store_walk_end(&claim.walk);
	UnregisterSnapshot(snapshot);
	if (found)
		run_read_payload(claimed);
	return found;
}
