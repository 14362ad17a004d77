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
 * A run of a task with a concurrency limit is taken under a lock of its limit,
 * which lasts until the claim is committed, so that whoever comes next counts
 * it.  Somebody else's lock is not waited for as long as there is other work.
 *
 * A worker inside the database may claim several runs at a time, to work them one
 * after the other.  All but the first of them must be new, or back from a wait: of a
 * run that was claimed in vain, nobody knows whether it kills its worker.  Such a run, one that
 * must not be claimed twice, and one with a concurrency limit are claimed alone.
 *
 * What is met on the way that should have been started by now, and was not, is
 * ended as expired.
 *
 * Of several queues, the one goes first whose next run has been due longest.
 * Queues that were not there at the last look at everything wait for the next.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "claim.h"
#include "environment.h"
#include "key.h"
#include "lock.h"
#include "store.h"
#include "takeover.h"
#include "task.h"
#include "wait.h"
#include "worker.h"

/* How long a claimer may trust what it remembers */
#define LOOK_AGAIN_MS 1000

/*
 * A walk past more index entries than this is long.  Those that the index has
 * marked dead itself cannot be counted, but there is one for each earlier claim.
 */
#define LONG_WALK 100

/* While there is work to claim, look for dead workers this often. */
#define LOOK_FOR_DEAD_MS 1000

/* A claim ends no more expired runs than this. */
#define EXPIRE_MAX 1000

/* What is remembered of a queue */
typedef struct QueueHead
{
	char	   *queue;
	TimestampTz next;			/* no entry for us has a lower ord, as far as
								 * is known */
	bool		begin_there;	/* the walk up to next is long */
	int			claims;			/* since the last look at everything */
} QueueHead;

/* One claim */
typedef struct Claim
{
	Claimer    *claimer;
	StoreWalk	walk;
	TimestampTz now;
	HTAB	   *environments;	/* which of them are open to us; or NULL */
	HTAB	   *limits;			/* that were met; or NULL */
	bool		is_contended;	/* somebody else is claiming under a limit */
	LOCKTAG		contended;		/* that limit's lock */
	List	   *expired;		/* ids of runs to end */
	int			max_runs;
	List	   *claimed;
} Claim;

/* How many more runs may execute under a concurrency limit */
typedef struct LimitRoom
{
	Key			limit;			/* hash key */
	int			room;
	bool		is_locked;		/* by us */
} LimitRoom;

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

/* An entry whose task is known */
typedef struct Candidate
{
	const Task *task;
	char	   *environment;
	NullableDatum concurrency_key;
	LimitRoom  *room;			/* NULL: it has no limit */
} Candidate;

/* Remember a run that was not started in time. */
static void
claim_expire_later(Claim *claim)
{
	bool		isnull;
	pg_uuid_t  *run_id;

	if (list_length(claim->expired) == EXPIRE_MAX)
		return;
	run_id = palloc(sizeof(pg_uuid_t));
	*run_id = *DatumGetUUIDP(slot_getattr(claim->walk.slot, ENTRY_RUN_ID, &isnull));
	claim->expired = lappend(claim->expired, run_id);
}

/* Is a task one for this claimer? */
static bool
claimer_wants_task(const Claimer *claimer, const Task *task)
{
	ListCell   *cell;

	if (task == NULL || task->dropped)
		return false;
	if (claimer->worker_token != WORKER_OUTSIDE)
		return task->handler_name != NULL && strcmp(task->run_as, claimer->run_as) == 0;
	if (task->handler_name != NULL || !access_may_work(task))
		return false;
	foreach(cell, claimer->task_ids)
		if (strcmp(lfirst(cell), task->task_id) == 0)
		return true;
	return claimer->task_ids == NIL;
}

/* Is the entry that the walk is at due, and ours to work? */
static bool
claim_wants_entry(Claim *claim, Candidate *candidate)
{
	const Claimer *claimer = claim->claimer;
	TupleTableSlot *entry = claim->walk.slot;
	RunStatus	status = run_entry_status(entry, claim->now);
	char	   *task_id;
	bool		isnull;

	if (status == RUN_EXPIRED)
		claim_expire_later(claim);
	if (status != RUN_QUEUED)
		return false;

	candidate->environment = TextDatumGetCString(slot_getattr(entry, ENTRY_ENVIRONMENT, &isnull));
	task_id = TextDatumGetCString(slot_getattr(entry, ENTRY_TASK_ID, &isnull));
	candidate->task = task_find(task_id);
	pfree(task_id);
	if (claimer_wants_task(claimer, candidate->task) &&
		(claimer->environment == NULL ||
		 strcmp(candidate->environment, claimer->environment) == 0) &&
		(claim_environment_is_open(claim, candidate->environment) ||
		 access_is_member(GetUserId(), candidate->task->owner)))
		return true;
	pfree(candidate->environment);
	return false;
}

/*
 * May the entry that the walk is at be claimed together with others?  What is
 * claimed and not begun, because its worker died before, is claimed again.
 */
static bool
claim_may_share(const Claim *claim, const Candidate *candidate)
{
	TupleTableSlot *entry = claim->walk.slot;
	bool		isnull;

	/* the last attempt, if it ended by a wait; 0: there was none */
	int			last_well = DatumGetInt32(slot_getattr(entry, ENTRY_WAIT_ATTEMPT, &isnull));

	return claim->claimer->worker_token == WORKER_OUTSIDE ||
		(candidate->task->concurrency_limit == 0 &&
		 DatumGetInt32(slot_getattr(entry, ENTRY_ATTEMPT, &isnull)) == last_well &&
		 DatumGetInt32(slot_getattr(entry, ENTRY_FAILURES, &isnull)) + 1 <
		 DatumGetInt32(slot_getattr(entry, ENTRY_MAX_ATTEMPTS, &isnull)));
}

/* ---------- Concurrency limits ---------- */

/* How many runs are executing under the candidate's limit? */
static int
claim_count_executing(const Candidate *candidate)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreWalk	walk;
	int			count = 0;

	store_walk_begin(&walk, STORE_EXECUTING, snapshot);
	store_walk_seek_concurrent(&walk, CStringGetTextDatum(candidate->environment),
							   CStringGetTextDatum(candidate->task->task_id),
							   candidate->concurrency_key);
	while (store_walk_next(&walk))
		count++;
	store_walk_end(&walk);
	UnregisterSnapshot(snapshot);
	return count;
}

/* What names the candidate's limit */
static void
candidate_limit(const Candidate *candidate, Key *limit)
{
	KeyMaterial material;

	key_material_begin(&material, "trigger_idem concurrency v1");
	key_material_cstring(&material, candidate->environment);
	key_material_cstring(&material, candidate->task->task_id);
	if (!candidate->concurrency_key.isnull)
	{
		text	   *key = DatumGetTextPP(candidate->concurrency_key.value);

		key_material_text(&material, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	}
	key_material_hash(&material, limit);
}

/*
 * Is there room for the candidate under its limit?  If so, its lock is ours, and
 * nobody else claims under this limit until we have committed.
 */
static bool
claim_has_room(Claim *claim, Candidate *candidate)
{
	HASHCTL		info = {
		.keysize = sizeof(Key),
		.entrysize = sizeof(LimitRoom),
		.hcxt = CurrentMemoryContext
	};
	Key			limit;
	LOCKTAG		tag;
	bool		found;

	candidate->room = NULL;
	if (candidate->task->concurrency_limit == 0)
		return true;
	candidate->concurrency_key.value = slot_getattr(claim->walk.slot, ENTRY_CONCURRENCY_KEY,
													&candidate->concurrency_key.isnull);
	candidate_limit(candidate, &limit);
	if (claim->limits == NULL)
		claim->limits = hash_create("trigger_idem limits", 32, &info,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	candidate->room = hash_search(claim->limits, &limit, HASH_ENTER, &found);
	if (found)
		return candidate->room->room > 0;

	candidate->room->room = 0;
	candidate->room->is_locked = false;
	tag = lock_tag(LOCK_CONCURRENCY, &limit);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		claim->is_contended = true;
		claim->contended = tag;
		return false;
	}
	candidate->room->room = candidate->task->concurrency_limit - claim_count_executing(candidate);
	candidate->room->is_locked = candidate->room->room > 0;
	if (!candidate->room->is_locked)
		LockRelease(&tag, ExclusiveLock, false);
	return candidate->room->is_locked;
}

/*
 * Nothing was claimed, but somebody else is claiming under a limit: wait until
 * that is done.  The locks of other limits are let go before, for the other may
 * be waiting for one of them.
 */
static void
claim_wait_for_others(Claim *claim)
{
	HASH_SEQ_STATUS status;
	LimitRoom  *room;

	hash_seq_init(&status, claim->limits);
	while ((room = hash_seq_search(&status)) != NULL)
		if (room->is_locked)
		{
			LOCKTAG		tag = lock_tag(LOCK_CONCURRENCY, &room->limit);

			LockRelease(&tag, ExclusiveLock, false);
		}
	(void) LockAcquire(&claim->contended, ExclusiveLock, false, false);
	LockRelease(&claim->contended, ExclusiveLock, false);
}

/* ---------- One queue ---------- */

typedef enum QueueWalkEnd
{
	WALK_ENOUGH,				/* as many were claimed as are wanted */
	WALK_LATER,					/* there is a run, but others go first */
	WALK_NOTHING,
} QueueWalkEnd;

static bool
claim_queue_is_paused(Claim *claim, const char *queue)
{
	Datum		values[PAUSED_QUEUE_COLUMNS];
	bool		nulls[PAUSED_QUEUE_COLUMNS];

	return store_fetch(STORE_PAUSED_QUEUE, CStringGetTextDatum(queue), claim->walk.snapshot,
					   values, nulls);
}

/* Claim the entry that the walk is at, and has locked. */
static void
claim_entry(Claim *claim, Candidate *candidate)
{
	const Claimer *claimer = claim->claimer;
	ClaimedRun *claimed = palloc0(sizeof(ClaimedRun));

	claimed->lease_expires_at = DT_NOEND;
	if (claimer->worker_token == WORKER_OUTSIDE)
		claimed->lease_expires_at =
			timestamp_plus(claim->now, claimer->lease ? claimer->lease :
						   &candidate->task->lease_duration);
	/* so that the order of those claimed together can be seen */
	run_begin_attempt(&claim->walk, claimer->worker_id, claimer->worker_token,
					  claimed->lease_expires_at, claim->now + list_length(claim->claimed),
					  claimed);
	claim->claimed = lappend(claim->claimed, claimed);
	if (candidate->room)
		candidate->room->room--;
}

/* All is claimed that is wanted.  Is the very next entry for us, too? */
static void
claim_look_ahead(Claim *claim)
{
	Candidate	candidate;

	claim->claimer->more_is_due = claim->claimer->worker_token != WORKER_OUTSIDE &&
		store_walk_next(&claim->walk) && claim_wants_entry(claim, &candidate);
}

/*
 * Walk along a queue and claim runs that are for us, none whose ord is beyond
 * limit.
 */
static QueueWalkEnd
claim_from_queue(Claim *claim, QueueHead *head, TimestampTz limit)
{
	StoreWalk  *walk = &claim->walk;
	TimestampTz from = head->begin_there ? head->next : DT_NOBEGIN;

	if (claim_queue_is_paused(claim, head->queue))
		return WALK_NOTHING;

	store_walk_seek_queue(walk, CStringGetTextDatum(head->queue), from, claim->now);
	while (store_walk_next(walk))
	{
		Candidate	candidate;
		bool		may_share;
		bool		isnull;

		if (!claim_wants_entry(claim, &candidate))
			continue;
		may_share = claim_may_share(claim, &candidate);
		if (claim->claimed != NIL && !may_share)
		{
			claim->claimer->more_is_due = true;
			return WALK_ENOUGH;
		}
		if (!claim_has_room(claim, &candidate))
			continue;
		head->next = DatumGetTimestampTz(slot_getattr(walk->slot, ENTRY_ORD, &isnull));
		if (walk->passed > LONG_WALK || head->claims > LONG_WALK)
			head->begin_there = true;
		if (head->next > limit)
			return WALK_LATER;
		if (!store_walk_lock(walk))
			continue;
		claim_entry(claim, &candidate);
		head->claims++;
		if (!may_share || list_length(claim->claimed) == claim->max_runs)
		{
			claim_look_ahead(claim);
			return WALK_ENOUGH;
		}
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
	head->claims = 0;
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

/*
 * The names of queues that this session has met, sorted.  They are hints: to find
 * the first entry of an unknown queue takes reading a page of the index, and to see
 * that there is none between two known ones does not.
 */
#define KNOWN_QUEUES_MAX 100

static List *known_queues = NIL;

static int
compare_names(const ListCell *one, const ListCell *other)
{
	return strcmp(lfirst(one), lfirst(other));
}

static void
know_queues(List *names)
{
	MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
	List	   *known = known_queues;
	ListCell   *cell;

	/*
	 * what is not sorted is no hint, so there is none while an error is
	 * possible
	 */
	known_queues = NIL;
	if (list_length(known) + list_length(names) > KNOWN_QUEUES_MAX)
	{
		list_free_deep(known);
		known = NIL;
	}
	foreach(cell, names)
		if (list_length(known) < KNOWN_QUEUES_MAX)
		known = lappend(known, pstrdup(lfirst(cell)));
	list_sort(known, compare_names);
	known_queues = known;
	MemoryContextSwitchTo(caller);
}

/* The walk has come to the first entry of a queue: work it, if that is due. */
static void
claim_meet_queue(Claim *claim, const char *queue)
{
	bool		isnull;
	TimestampTz ord = DatumGetTimestampTz(slot_getattr(claim->walk.slot, ENTRY_ORD, &isnull));

	if (ord <= claim->now)
		claimer_add_head(claim->claimer, queue, ord);
}

/* Meet the queues with a name after one, and before another or NULL. */
static List *
claim_find_queues(Claim *claim, const char *after, const char *before)
{
	List	   *found = NIL;

	/* from queue to queue: this costs by the queue, not by the entry */
	for (;;)
	{
		bool		isnull;

		store_walk_seek_queues(&claim->walk, after, before);
		if (!store_walk_next(&claim->walk))
			return found;
		after = TextDatumGetCString(slot_getattr(claim->walk.slot, ENTRY_QUEUE, &isnull));
		claim_meet_queue(claim, after);
		found = lappend(found, unconstify(char *, after));
	}
}

/* Begin anew: forget what is remembered, and find the queues. */
static void
claim_look_at_everything(Claim *claim)
{
	Claimer    *claimer = claim->claimer;
	const char *after = "";
	List	   *found = NIL;
	ListCell   *cell;

	while (claimer->heads != NIL)
		claimer_forget_head(claimer, llast(claimer->heads));
	claimer->looked_at = claim->now;
	if (claimer->queue)
	{
		claimer_add_head(claimer, claimer->queue, DT_NOBEGIN);
		return;
	}
	foreach(cell, known_queues)
	{
		char	   *queue = lfirst(cell);

		found = list_concat(found, claim_find_queues(claim, after, queue));
		store_walk_seek_queue(&claim->walk, CStringGetTextDatum(queue), DT_NOBEGIN, claim->now);
		if (store_walk_next(&claim->walk))
			claim_meet_queue(claim, queue);
		after = queue;
	}
	found = list_concat(found, claim_find_queues(claim, after, NULL));
	if (found != NIL)
		know_queues(found);
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

static void
claim_from_heads(Claim *claim)
{
	QueueHead  *head;
	TimestampTz limit;

	while ((head = claim_first_head(claim->claimer, &limit)) != NULL)
		switch (claim_from_queue(claim, head, limit))
		{
			case WALK_ENOUGH:
				return;
			case WALK_LATER:
				break;
			case WALK_NOTHING:
				claimer_forget_head(claim->claimer, head);
				break;
		}
}

/* Claim from what is remembered, or, if that gives nothing, from everything. */
static void
claim_try(Claim *claim)
{
	Claimer    *claimer = claim->claimer;
	Snapshot	snapshot = store_latest_snapshot();
	bool		look = claimer->looked_at == 0 ||
		TimestampDifferenceExceeds(claimer->looked_at, claim->now, LOOK_AGAIN_MS);

	store_walk_begin(&claim->walk, STORE_QUEUE_ORDER, snapshot);
	if (look)
		claim_look_at_everything(claim);
	claim_from_heads(claim);
	if (claim->claimed == NIL && !look)
	{
		claim_look_at_everything(claim);
		claim_from_heads(claim);
	}
	store_walk_end(&claim->walk);
	UnregisterSnapshot(snapshot);
}

/*
 * Claim due runs that are for the claimer, at most so many: raise their attempts
 * and give them to the worker.  A list of ClaimedRun, in the current context.
 */
List *
claim_runs(Claimer *claimer, int max_runs)
{
	ListCell   *cell;
	List	   *claimed;
	bool		try_again;

	store_pin();
	claimer->more_is_due = false;
	do
	{
		Claim		claim = {
			.claimer = claimer,
			.now = GetCurrentTimestamp(),
			.max_runs = max_runs
		};

		claim_try(&claim);
		claimed = claim.claimed;
		foreach(cell, claim.expired)
			(void) run_end_unclaimed(lfirst(cell), RUN_EXPIRED, false);

		/* nothing but what others are claiming: see what they leave */
		try_again = claimed == NIL && claim.is_contended;
		if (try_again)
		{
			claim_wait_for_others(&claim);
			claimer->looked_at = 0;
		}
	} while (try_again);
	if (claimed != NIL)
		CommandCounterIncrement();
	foreach(cell, claimed)
	{
		ClaimedRun *run = lfirst(cell);

		run_read_payload(run);
		if (run->wait.by_this_claim)
			wait_note_timeout(&run->run_id, &run->wait);
	}
	return claimed;
}

/*
 * Put the runs of dead workers back into the queue: at the first call, then once
 * a second, and whenever nothing else is due.  True when there were some.  The
 * caller keeps the time of the last look, 0 before the first.
 */
bool
claim_take_over_dead(TimestampTz *looked_at, bool nothing_is_due)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!nothing_is_due && !TimestampDifferenceExceeds(*looked_at, now, LOOK_FOR_DEAD_MS))
		return false;
	*looked_at = now;
	if (take_over_dead() == 0)
		return false;
	CommandCounterIncrement();
	return true;
}
