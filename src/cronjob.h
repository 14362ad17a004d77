/*-------------------------------------------------------------------------
 *
 * cronjob.h
 *	  Jobs of pg_cron.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_CRONJOB_H
#define TRIGGER_IDEM_CRONJOB_H

/* The kinds of jobs: what their names begin with */
#define CRONJOB_SCHEDULE	"schedule"
#define CRONJOB_WORK		"work"

/* A job: of each name, a role has one. */
typedef struct CronJob
{
	const char *kind;			/* CRONJOB_... */
	const char *subject;		/* of that kind, or NULL */
	const char *cron;
	const char *command;
} CronJob;

extern void cronjob_require_extension(const CronJob *job);
extern void cronjob_create(const CronJob *job, Oid role);
extern void cronjob_drop(const CronJob *job, const char *owner);

#endif							/* TRIGGER_IDEM_CRONJOB_H */
