/*-------------------------------------------------------------------------
 *
 * interrupt.c
 *	  What interrupts a handler: its time is over, or the worker is to stop.
 *
 * Both cancel it as a user would, while it runs and at no other time: what we do
 * before and after is short, and is not to be lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "interrupt.h"

/* A handler that goes on after its time is cancelled again and again. */
#define CANCEL_AGAIN_MS 1000

/* See interrupt.h. */
volatile sig_atomic_t work_stop = false;
volatile sig_atomic_t duration_is_over = false;

/* Code of a user is running, and may be cancelled. */
static volatile sig_atomic_t handler_is_running = false;

static TimeoutId duration_timeout = MAX_TIMEOUTS;

/* ---------- Its time is over ---------- */

/* Runs in a signal handler */
static void
duration_over(void)
{
	duration_is_over = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* From now on an attempt of this task may take so long. */
static void
duration_begin(const Task *task)
{
	TimestampTz end;

	if (task->max_duration == NULL)
		return;
	if (duration_timeout == MAX_TIMEOUTS)
		duration_timeout = RegisterTimeout(USER_TIMEOUT, duration_over);
	end = timestamp_plus(GetCurrentTimestamp(), task->max_duration);
	enable_timeout_every(duration_timeout, end, CANCEL_AGAIN_MS);
}

static void
duration_end(void)
{
	if (duration_timeout != MAX_TIMEOUTS && get_timeout_active(duration_timeout))
		disable_timeout(duration_timeout, false);
	if (duration_is_over)
		QueryCancelPending = false;
}

/* ---------- The worker is to stop ---------- */

/* Runs in a signal handler */
void
work_request_stop(void)
{
	work_stop = true;
	if (handler_is_running)
	{
		QueryCancelPending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
}

/* ---------- The handler ---------- */

/* Its code, or what it has asked for, which takes no time of a task: NULL */
void
handler_begins(const Task *task)
{
	handler_is_running = true;
	if (work_stop)
		work_request_stop();
	if (task)
		duration_begin(task);
}

void
handler_ends(void)
{
	handler_is_running = false;
	duration_end();
	if (work_stop)
		QueryCancelPending = false;
}
