/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The sign of life of a worker inside the database.
 *
 * A session that works runs owns a small dynamic shared memory segment, in
 * which a timer writes the time, through one long statement too.  A token in
 * the queue entry names the segment.  Whoever finds the entry attaches it:
 *
 *	no such segment				the worker is gone, its run is free at once
 *	a time older than the lease	the worker is stopped, its run may be taken
 *	a recent time				leave it alone
 *
 * The segment vanishes with its backend, however that ends, and all of them
 * vanish with the server.  A token is the segment's handle and a random number
 * that stands in the segment too, so a handle that is used again for something
 * else is not taken for a sign of life.  So does the database: in a copy of it,
 * restored beside the original, the worker does not work.
 *
 * The segment also tells which attempt its session executes.  Whoever cancels
 * that looks there, and sends the signal under the lock that the session takes
 * when it ends an attempt, so no signal meets the next one.
 *
 * A session may have claimed several runs.  They are its hand, and what it has
 * not begun others may take out of it: under the same lock, under which the
 * session begins an attempt.  A run that it has claimed and that is not in its
 * hand, it will not begin.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "storage/dsm.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

#include "background.h"
#include "worker.h"

/*
 * What a worker has in hand while it executes something else for longer than
 * this, others may take.
 */
#define IN_HAND_MS 50

#define SIGN_MAGIC UINT64CONST(0x747269676465616c)

/* An attempt that a session has claimed */
typedef struct HandSlot
{
	pg_uuid_t	run_id;
	int			attempt;
	bool		has_begun;
	bool		is_taken;		/* by somebody else, who came first */
} HandSlot;

typedef struct SignOfLife
{
	uint64		magic;
	Oid			database;
	int64		token;
	pg_atomic_uint64 tick;		/* a TimestampTz */

	slock_t		mutex;			/* for what follows */
	pid_t		pid;
	pg_uuid_t	run_id;			/* what it executes */
	int			attempt;		/* 0: nothing */
	TimestampTz began_at;		/* that attempt */
	bool		is_canceled;
	Progress	progress;		/* of that attempt */
	int			hand_size;
	int			hand_next;		/* where to look first */
	HandSlot	hand[WORKER_HAND_MAX];
} SignOfLife;

static dsm_segment *my_segment = NULL;
static SignOfLife *volatile my_sign = NULL;
static TimeoutId tick_timeout = MAX_TIMEOUTS;
static TimeoutId in_hand_timeout = MAX_TIMEOUTS;

/* Segments of other workers, mapped until the transaction ends; in its context */
static List *kept = NIL;

/* Runs in a signal handler */
static void
worker_tick(void)
{
	if (my_sign)
		pg_atomic_write_u64(&my_sign->tick, (uint64) GetCurrentTimestamp());
}

/*
 * The segment is about to go, perhaps because the session ends: the timer may
 * tick once more, but no longer there.  Who still looks at it shall find nothing to
 * cancel: the process may be another one by then.
 */
static void
worker_detached(dsm_segment *segment, Datum arg)
{
	SignOfLife *sign = dsm_segment_address(segment);

	my_sign = NULL;
	SpinLockAcquire(&sign->mutex);
	sign->attempt = 0;
	SpinLockRelease(&sign->mutex);
}

/*
 * Begin to show a sign of life, until worker_end() or the end of the session, if
 * that was not done yet.  Returns the token that names it.
 */
int64
worker_begin(void)
{
	dsm_segment *segment;
	SignOfLife *sign;

	if (my_segment)
		return my_sign->token;
	if (tick_timeout == MAX_TIMEOUTS)
	{
		tick_timeout = RegisterTimeout(USER_TIMEOUT, worker_tick);
		in_hand_timeout = RegisterTimeout(USER_TIMEOUT, background_want_scan);
	}
	segment = dsm_create(sizeof(SignOfLife), 0);

	sign = dsm_segment_address(segment);
	sign->magic = SIGN_MAGIC;
	sign->database = MyDatabaseId;
	sign->token = (int64) (((uint64) dsm_segment_handle(segment) << 32) |
						   pg_prng_uint32(&pg_global_prng_state));
	pg_atomic_init_u64(&sign->tick, (uint64) GetCurrentTimestamp());
	SpinLockInit(&sign->mutex);
	sign->pid = MyProcPid;
	sign->attempt = 0;
	sign->is_canceled = false;
	sign->hand_size = sign->hand_next = 0;
	on_dsm_detach(segment, worker_detached, (Datum) 0);
	/* nothing can go wrong from here on */
	dsm_pin_mapping(segment);
	my_segment = segment;
	my_sign = sign;
	return sign->token;
}

/* ---------- The hand ---------- */

/* This attempt's place in a hand, or NULL; the lock is held. */
static HandSlot *
hand_find(SignOfLife *sign, const pg_uuid_t *run_id, int attempt)
{
	for (int i = 0; i < sign->hand_size; i++)
	{
		HandSlot   *slot = &sign->hand[(sign->hand_next + i) % sign->hand_size];

		if (slot->attempt == attempt && memcmp(&slot->run_id, run_id, sizeof(pg_uuid_t)) == 0)
			return slot;
	}
	return NULL;
}

/* Put down what is in the hand, and show life, for something is to be claimed. */
void
worker_hand_clear(void)
{
	worker_tick();
	SpinLockAcquire(&my_sign->mutex);
	my_sign->hand_size = my_sign->hand_next = 0;
	SpinLockRelease(&my_sign->mutex);
}

/* A group has failed: none of its attempts has begun after all. */
void
worker_hand_restart(void)
{
	SpinLockAcquire(&my_sign->mutex);
	for (int i = 0; i < my_sign->hand_size; i++)
		my_sign->hand[i].has_begun = false;
	my_sign->hand_next = 0;
	SpinLockRelease(&my_sign->mutex);
}

/* Take an attempt into the hand, before others can see that it was claimed. */
void
worker_hand_add(const pg_uuid_t *run_id, int attempt)
{
	SpinLockAcquire(&my_sign->mutex);
	Assert(my_sign->hand_size < WORKER_HAND_MAX);
	my_sign->hand[my_sign->hand_size++] = (HandSlot)
	{
		.run_id = *run_id,.attempt = attempt
	};
	SpinLockRelease(&my_sign->mutex);
}

/* ---------- One attempt ---------- */

/*
 * Begin an attempt with this lease: show life now, and then three times in each
 * lease.  Not more often, for each tick interrupts what the handler waits for.
 * False: somebody has taken it out of our hand.
 */
bool
worker_begin_attempt(const pg_uuid_t *run_id, int attempt, int64 lease_ms)
{
	int			interval = (int) Min(lease_ms / 3, INT_MAX / 2);
	TimestampTz now = GetCurrentTimestamp();
	HandSlot   *slot;
	bool		is_ours;

	/* before it can be seen that it has begun: the claim may have taken long */
	worker_tick();
	SpinLockAcquire(&my_sign->mutex);
	slot = hand_find(my_sign, run_id, attempt);
	is_ours = slot && !slot->is_taken;
	if (is_ours)
	{
		slot->has_begun = true;
		my_sign->hand_next = (int) (slot - my_sign->hand) + 1;
		my_sign->run_id = *run_id;
		my_sign->attempt = attempt;
		my_sign->began_at = now;
		my_sign->is_canceled = false;
		my_sign->progress.at = 0;
	}
	SpinLockRelease(&my_sign->mutex);
	if (!is_ours)
		return false;
	enable_timeout_every(tick_timeout, TimestampTzPlusMilliseconds(now, interval), interval);
	if (my_sign->hand_next < my_sign->hand_size)
		enable_timeout_after(in_hand_timeout, IN_HAND_MS + 1);
	return true;
}

/*
 * The attempt is over.  Was it canceled?  Then the signal may have come too late
 * for it, and shall not meet what comes next.
 */
bool
worker_end_attempt(void)
{
	bool		is_canceled;

	disable_timeout(tick_timeout, false);
	disable_timeout(in_hand_timeout, false);
	SpinLockAcquire(&my_sign->mutex);
	is_canceled = my_sign->is_canceled;
	my_sign->attempt = 0;
	my_sign->is_canceled = false;
	SpinLockRelease(&my_sign->mutex);
	if (is_canceled)
	{
		/* it was sent before we had the lock, and comes with any system call */
		pg_usleep(1);
		QueryCancelPending = false;
	}
	return is_canceled;
}

/* Show how far the attempt that we execute has come. */
void
worker_set_progress(const Progress *progress)
{
	SpinLockAcquire(&my_sign->mutex);
	my_sign->progress = *progress;
	SpinLockRelease(&my_sign->mutex);
}

/* Stop showing it; called on error too. */
void
worker_end(void)
{
	if (my_segment != NULL)
	{
		disable_timeout(tick_timeout, false);
		disable_timeout(in_hand_timeout, false);
		dsm_detach(my_segment);
		my_segment = NULL;
	}
}

/* ---------- Other workers ---------- */

/*
 * Look at the segment of the worker named by token, if it is ours to look at; NULL:
 * it is gone.  Where it was not mapped before, is_new, the caller detaches it:
 * others may use a mapping that was there.
 */
static dsm_segment *
worker_attach(int64 token, bool *is_new)
{
	dsm_handle	handle = (dsm_handle) ((uint64) token >> 32);
	dsm_segment *segment = dsm_find_mapping(handle);
	SignOfLife *sign;

	*is_new = segment == NULL;
	if (segment == NULL)
		segment = dsm_attach(handle);
	if (segment == NULL)
		return NULL;
	sign = dsm_segment_address(segment);
	if (dsm_segment_map_length(segment) >= sizeof(SignOfLife) && sign->magic == SIGN_MAGIC &&
		sign->token == token && sign->database == MyDatabaseId)
		return segment;
	if (*is_new)
		dsm_detach(segment);
	return NULL;
}

/*
 * Keep the worker named by token in reach of worker_cancel() until the transaction
 * ends, so that nothing can go wrong when it commits; NULL: it is gone.
 */
dsm_segment *
worker_keep(int64 token)
{
	bool		is_new;
	dsm_segment *segment = worker_attach(token, &is_new);
	MemoryContext caller;

	if (segment == NULL || !is_new)
		return segment;
	caller = MemoryContextSwitchTo(TopTransactionContext);
	kept = lappend(kept, segment);
	MemoryContextSwitchTo(caller);
	/* a savepoint that is rolled back does not take it away from others */
	dsm_pin_mapping(segment);
	return segment;
}

/* The end of the transaction that has kept them */
void
worker_let_go(void)
{
	ListCell   *cell;

	foreach(cell, kept)
		dsm_detach(lfirst(cell));
	kept = NIL;
}

/*
 * Cancel what a worker executes, if that is still this attempt; if it has not
 * begun it yet, it never will.
 */
void
worker_cancel(dsm_segment *segment, const pg_uuid_t *run_id, int attempt)
{
	SignOfLife *sign = dsm_segment_address(segment);
	HandSlot   *slot;

	SpinLockAcquire(&sign->mutex);
	slot = hand_find(sign, run_id, attempt);
	if (slot)
		slot->is_taken = true;
	if (sign->attempt == attempt && memcmp(&sign->run_id, run_id, sizeof(pg_uuid_t)) == 0)
	{
		sign->is_canceled = true;
		kill(sign->pid, SIGINT);
	}
	SpinLockRelease(&sign->mutex);
}

/*
 * How far has the worker named by token come with an attempt?  False when it does
 * not execute that, or has not said.
 */
bool
worker_read_progress(int64 token, const pg_uuid_t *run_id, int attempt, Progress *progress)
{
	bool		is_new;
	dsm_segment *segment = worker_attach(token, &is_new);
	SignOfLife *sign;
	bool		found;

	if (segment == NULL)
		return false;
	sign = dsm_segment_address(segment);
	SpinLockAcquire(&sign->mutex);
	found = sign->attempt == attempt && sign->progress.at != 0 &&
		memcmp(&sign->run_id, run_id, sizeof(pg_uuid_t)) == 0;
	if (found)
		*progress = sign->progress;
	SpinLockRelease(&sign->mutex);
	if (is_new)
		dsm_detach(segment);
	return found;
}

/* Has the worker been seen within this time?  We see ourselves. */
static bool
sign_is_silent(SignOfLife *sign, TimestampTz now, int64 max_silence_ms)
{
	return sign != my_sign &&
		TimestampDifferenceExceeds((TimestampTz) pg_atomic_read_u64(&sign->tick), now,
								   (int) Min(max_silence_ms, INT_MAX));
}

/*
 * Ask the worker named by token for an attempt that it has claimed.  It keeps what
 * it executes, unless it has been silent for max_silence_ms, and it gives what it
 * has in hand once it is busy with another attempt for long.
 */
WorkerAnswer
worker_take(int64 token, const pg_uuid_t *run_id, int attempt, int64 max_silence_ms)
{
	bool		is_new;
	dsm_segment *segment = worker_attach(token, &is_new);
	TimestampTz now = GetCurrentTimestamp();
	SignOfLife *sign;
	HandSlot   *slot;
	bool		is_silent;
	WorkerAnswer answer;

	if (segment == NULL)
		return WORKER_GONE;
	sign = dsm_segment_address(segment);
	SpinLockAcquire(&sign->mutex);
	slot = hand_find(sign, run_id, attempt);
	is_silent = sign_is_silent(sign, now, max_silence_ms);
	if (slot && slot->has_begun)
	{
		slot->is_taken |= is_silent;
		answer = is_silent ? WORKER_SILENT : WORKER_KEEPS;
	}
	else
	{
		if (slot && (is_silent ||
					 (sign->attempt != 0 && now - sign->began_at > IN_HAND_MS * INT64CONST(1000))))
			slot->is_taken = true;
		answer = slot == NULL || slot->is_taken ? WORKER_GIVES : WORKER_KEEPS;
	}
	SpinLockRelease(&sign->mutex);
	if (is_new)
		dsm_detach(segment);
	return answer;
}
