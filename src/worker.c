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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/dsm.h"
#include "utils/timeout.h"

#include "worker.h"

#define SIGN_MAGIC UINT64CONST(0x747269676465616c)

typedef struct SignOfLife
{
	uint64		magic;
	Oid			database;
	int64		token;
	pg_atomic_uint64 tick;		/* a TimestampTz */
} SignOfLife;

static dsm_segment *my_segment = NULL;
static SignOfLife *volatile my_sign = NULL;
static TimeoutId tick_timeout = MAX_TIMEOUTS;

/* Runs in a signal handler */
static void
worker_tick(void)
{
	if (my_sign)
		pg_atomic_write_u64(&my_sign->tick, (uint64) GetCurrentTimestamp());
}

/*
 * The segment is about to go, perhaps because the session ends: the timer may
 * tick once more, but no longer there.
 */
static void
worker_detached(dsm_segment *segment, Datum arg)
{
	my_sign = NULL;
}

/*
 * Begin to show a sign of life, until worker_end() or the end of the session.
 * Returns the token that names it.
 */
int64
worker_begin(void)
{
	SignOfLife *sign;

	Assert(my_segment == NULL);
	my_segment = dsm_create(sizeof(SignOfLife), 0);
	dsm_pin_mapping(my_segment);

	sign = dsm_segment_address(my_segment);
	sign->magic = SIGN_MAGIC;
	sign->database = MyDatabaseId;
	sign->token = (int64) (((uint64) dsm_segment_handle(my_segment) << 32) |
						   pg_prng_uint32(&pg_global_prng_state));
	pg_atomic_init_u64(&sign->tick, (uint64) GetCurrentTimestamp());
	on_dsm_detach(my_segment, worker_detached, (Datum) 0);
	my_sign = sign;

	if (tick_timeout == MAX_TIMEOUTS)
		tick_timeout = RegisterTimeout(USER_TIMEOUT, worker_tick);
	return sign->token;
}

/*
 * Begin an attempt with this lease: show life now, and then three times in each
 * lease.  Not more often, for each tick interrupts what the handler waits for.
 */
void
worker_begin_lease(int64 lease_ms)
{
	int			interval = (int) Min(lease_ms / 3, INT_MAX / 2);

	worker_tick();
	enable_timeout_every(tick_timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), interval), interval);
}

/* The attempt is over. */
void
worker_end_lease(void)
{
	disable_timeout(tick_timeout, false);
}

/* Stop showing it; called on error too. */
void
worker_end(void)
{
	if (my_segment == NULL)
		return;
	worker_end_lease();
	dsm_detach(my_segment);
	my_segment = NULL;
}

/* Has the worker named by token been seen within max_silence_ms? */
bool
worker_is_alive(int64 token, int64 max_silence_ms)
{
	dsm_handle	handle = (dsm_handle) ((uint64) token >> 32);
	dsm_segment *segment;
	bool		alive = false;

	if (my_sign && my_sign->token == token)
		return true;
	if (my_segment && dsm_segment_handle(my_segment) == handle)
		return false;			/* an old token, the handle is ours now */

	segment = dsm_attach(handle);
	if (segment == NULL)
		return false;
	if (dsm_segment_map_length(segment) >= sizeof(SignOfLife))
	{
		SignOfLife *sign = dsm_segment_address(segment);

		alive = sign->magic == SIGN_MAGIC && sign->token == token &&
			sign->database == MyDatabaseId &&
			!TimestampDifferenceExceeds((TimestampTz) pg_atomic_read_u64(&sign->tick),
										GetCurrentTimestamp(),
										(int) Min(max_silence_ms, INT_MAX));
	}
	dsm_detach(segment);
	return alive;
}
