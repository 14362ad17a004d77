/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Many triggers of a task in one call.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_BATCH_H
#define TRIGGER_IDEM_BATCH_H

#include "trigger.h"

/* The arguments of batch_trigger_task(), in their order */
typedef enum BatchArgument
{
	BATCH_TASK_ID,
	BATCH_ITEMS,
	BATCH_IDEMPOTENCY_KEY,
	BATCH_ENVIRONMENT,
} BatchArgument;

#define BATCH_ARGUMENTS (BATCH_ENVIRONMENT + 1)

typedef struct BatchItem
{
	int			index;
	TriggerCall trigger;
	TriggerResult result;
	bool		is_settled;		/* the result is given: nothing is triggered */
} BatchItem;

extern BatchItem *batch_prepare(const NullableDatum *arguments, int *count);
extern void batch_run(BatchItem *batch, int count);

#endif							/* TRIGGER_IDEM_BATCH_H */
