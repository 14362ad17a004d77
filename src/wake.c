/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  Telling workers that there is something to do.
 *
 * With the setting trigger_idem.notify, NOTIFY tells those outside the database,
 * when the transaction commits: once for each queue in which it made a run
 * runnable.  What becomes due later, by the clock, tells nobody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/async.h"

#include "trigger_idem.h"
#include "wake.h"

/* A run in this queue is runnable from the commit of this transaction on. */
void
wake_queue(const char *queue)
{
	if (trigger_idem_notify)
		Async_Notify(EXTENSION_NAME, queue);
}
