/*-------------------------------------------------------------------------
 *
 * cron.h
 *	  pg_cron's expressions, and the ticks that they stand for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_CRON_H
#define TRIGGER_IDEM_CRON_H

#include "pgtime.h"
#include "utils/timestamp.h"

/* An expression: either of the first two, or sets, with a bit for each member */
typedef struct Cron
{
	bool		at_start;		/* once, when the server starts */
	int			seconds;		/* every so many seconds; 0: not of that kind */
	uint64		minutes;		/* 0 to 59 */
	uint64		hours;			/* 0 to 23 */
	uint64		days;			/* 1 to 31 */
	uint64		months;			/* 1 to 12 */
	uint64		weekdays;		/* 0, Sunday, to 6 */
	bool		is_last_day;	/* the last day of the month, too */
	bool		needs_both;		/* a day must be in days and in weekdays, else
								 * one of them is enough */
	pg_tz	   *zone;
} Cron;

extern const char *cron_setting(const char *name);
extern bool cron_parse(const char *expression, Cron *cron);
extern void cron_require(const char *expression, Cron *cron);
extern bool cron_next_tick(const Cron *cron, TimestampTz after, TimestampTz *tick);
extern bool cron_previous_tick(const Cron *cron, TimestampTz at, TimestampTz *tick);

#endif							/* TRIGGER_IDEM_CRON_H */
