/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  Counting what happens.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_STATS_H
#define TRIGGER_IDEM_STATS_H

#include "run.h"
#include "trigger_idem.h"

typedef enum Stat
{
	STAT_TRIGGERS,
	STAT_HITS,
	STAT_STEPS_DONE,
	STAT_STEPS_REPLAYED,
} Stat;

/* What takes time */
typedef enum StatLatency
{
	STAT_CLAIM,					/* from when a run is due to its attempt */
	STAT_WAKEUP,				/* from a commit to the worker that it wakes */
} StatLatency;

extern void stats_init(void);
extern void stats_count(Stat stat);
extern void stats_count_end(RunStatus status);
extern void stats_count_latency(StatLatency what, TimestampTz since, TimestampTz until);
extern void stats_count_wakeup_now(TimestampTz since);

#endif							/* TRIGGER_IDEM_STATS_H */
