/*-------------------------------------------------------------------------
 *
 * trigger_idem.c
 *	  Loading the library, and its settings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "access.h"
#include "application.h"
#include "background.h"
#include "control.h"
#include "current.h"
#include "limit.h"
#include "memo.h"
#include "progress.h"
#include "routine.h"
#include "settings.h"
#include "stats.h"
#include "step.h"
#include "store.h"
#include "task.h"
#include "trigger_idem.h"
#include "wait.h"
#include "wake.h"

#define SHARD_MAX 1023

PG_MODULE_MAGIC;

int			trigger_idem_shard = 0;
bool		trigger_idem_notify = false;
int			trigger_idem_runs_per_commit = 1;
static char *environment_setting = NULL;

void		_PG_init(void);

/* The setting trigger_idem.environment */
const char *
trigger_idem_environment(void)
{
	return environment_setting;
}

void
_PG_init(void)
{
	DefineCustomStringVariable("trigger_idem.environment",
							   "Environment of triggers and steps that do not name one.",
							   NULL,
							   &environment_setting,
							   "default",
							   PGC_USERSET, 0,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.shard",
							"Number of this database among several, carried by the ids of its runs.",
							NULL,
							&trigger_idem_shard,
							0, 0, SHARD_MAX,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.runs_per_commit",
							"How many runs a session or background worker works in one transaction.",
							"Those whose handlers are functions, and as long as all of them succeed.",
							&trigger_idem_runs_per_commit,
							1, 1, 1000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("trigger_idem.notify",
							 "Tell workers outside the database by NOTIFY when a run is runnable.",
							 NULL,
							 &trigger_idem_notify,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	limit_init();
	store_init();
	access_init();
	task_init();
	background_init();
	wake_init();
	stats_init();
	/* of callbacks, the one that came last is called first: the fence */
	control_init();
	progress_init();
	application_init();
	current_init();
	routine_init();
	settings_init();
	memo_init();
	step_init();
	wait_init();
	MarkGUCPrefixReserved("trigger_idem");
}
