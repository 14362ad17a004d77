/*-------------------------------------------------------------------------
 *
 * limit.c
 *	  Limits that keep one user of the server from starving others: 54000
 *
 * What is too large or too much is refused before anything is done or stored, so
 * that nothing is lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "environment.h"
#include "limit.h"
#include "statement.h"
#include "store.h"
#include "task.h"

#define TAGS_MAX 1000

/* How long a count of runs is trusted while there is room */
#define COUNT_AGAIN_MS 1000

/* In kB, and numbers */
static int	max_payload_size = 10 * 1024;
static int	max_metadata_size = 256;
static int	max_output_size = 10 * 1024;
static int	max_tags = 10;
static int	max_steps = 10000;
static int	max_active_runs = 0;

/* Define the settings, when the library is loaded. */
void
limit_init(void)
{
	DefineCustomIntVariable("trigger_idem.max_payload_size",
							"Largest payload of a run.",
							NULL,
							&max_payload_size,
							10 * 1024, 1, MAX_KILOBYTES,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_metadata_size",
							"Largest metadata of a run.",
							NULL,
							&max_metadata_size,
							256, 1, MAX_KILOBYTES,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_output_size",
							"Largest output of a run, a step or a token, and largest error that an application gives.",
							NULL,
							&max_output_size,
							10 * 1024, 1, MAX_KILOBYTES,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_tags",
							"Most tags of a run.",
							NULL,
							&max_tags,
							10, 0, TAGS_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_steps",
							"Most steps of a run.",
							NULL,
							&max_steps,
							10000, 1, INT_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_active_runs",
							"Most unfinished runs of an environment; zero: no limit.",
							NULL,
							&max_active_runs,
							0, 0, INT_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
}

/* ---------- Sizes ---------- */

static void
limit_size(const char *what, NullableDatum value, const char *setting, int limit)
{
	if (!value.isnull && toast_raw_datum_size(value.value) > (Size) limit * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s is too large", what),
				 errdetail("It takes %lld bytes; trigger_idem.%s is %d kB.",
						   (long long) toast_raw_datum_size(value.value), setting, limit)));
}

void
limit_payload(NullableDatum payload)
{
	limit_size("payload", payload, "max_payload_size", max_payload_size);
}

void
limit_metadata(NullableDatum metadata)
{
	limit_size("metadata", metadata, "max_metadata_size", max_metadata_size);
}

/* what: an output, or an error that an application gives */
void
limit_output(const char *what, NullableDatum output)
{
	limit_size(what, output, "max_output_size", max_output_size);
}

void
limit_tags(int count)
{
	if (count > max_tags)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many tags"),
				 errdetail("There are %d; trigger_idem.max_tags is %d.", count, max_tags)));
}

/* ---------- Steps ---------- */

/* May a run that has so many steps get another one? */
void
limit_steps(int64 steps)
{
	if (steps >= max_steps)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many steps"),
				 errdetail("The run has %lld; trigger_idem.max_steps is %d.",
						   (long long) steps, max_steps)));
}

static int64
count_steps(const pg_uuid_t *run_id)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreLookup lookup;
	int64		count = 0;
	bool		found;

	for (found = store_lookup(&lookup, STORE_STEP, UUIDPGetDatum(run_id), snapshot);
		 found; found = store_lookup_next(&lookup))
	{
		count++;
		CHECK_FOR_INTERRUPTS();
	}
	store_lookup_end(&lookup);
	UnregisterSnapshot(snapshot);
	return count;
}

/*
 * May an application's run, whose steps nobody has loaded, get another one?  They
 * are counted once for each run, and again before this says no: what other sessions
 * add in the meantime, and what was rolled back, may let it go a little beyond.
 */
void
limit_steps_of_run(const pg_uuid_t *run_id, bool adds_one)
{
	static pg_uuid_t counted;
	static int64 count = 0;

	if (memcmp(&counted, run_id, sizeof(pg_uuid_t)) != 0 || count >= max_steps)
	{
		count = count_steps(run_id);
		counted = *run_id;
	}
	limit_steps(count);
	if (adds_one)
		count++;
}

/* ---------- Active runs ---------- */

static Statement count_active = {
	.sql = "SELECT pg_catalog.count(*) FROM (SELECT FROM trigger_idem.queue_entry e"
	"  WHERE e.environment OPERATOR(pg_catalog.=) $1 LIMIT $2) v",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID, INT8OID}
};

/* How many runs of an environment are not final?  No more than the limit counts. */
static int64
count_active_runs(const char *environment)
{
	OwnerScope	scope;
	Datum		values[2] = {CStringGetTextDatum(environment), Int64GetDatum(max_active_runs)};
	int64		count;

	owner_begin(&scope);
	scope_see_latest(&scope);
	statement_run(&count_active, values, NULL);
	count = DatumGetInt64(statement_value(0, 1, NULL));
	owner_end(&scope);
	return count;
}

/*
 * May an environment get so many more runs?  There is no index for counting them,
 * which every trigger would pay for.  So a session counts them once a second, adds
 * its own, and counts again before it says no: others may go beyond the limit by what
 * they trigger in a second.  Nothing is between this and the insertion of the runs.
 */
void
limit_active_runs(const char *environment, int64 more)
{
	static char counted[IDENTIFIER_MAX_BYTES + 1];
	static int64 count;
	static TimestampTz counted_at = 0;

	if (max_active_runs == 0)
		return;
	if (strcmp(counted, environment) != 0 || count + more > max_active_runs ||
		TimestampDifferenceExceeds(counted_at, GetCurrentTimestamp(), COUNT_AGAIN_MS))
	{
		count = count_active_runs(environment);
		strlcpy(counted, environment, sizeof(counted));
		counted_at = GetCurrentTimestamp();
	}
	if (count + more > max_active_runs)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many unfinished runs in environment \"%s\"", environment),
				 errdetail("trigger_idem.max_active_runs is %d.", max_active_runs),
				 errhint("Try again when some of them have ended.")));
	count += more;
}
