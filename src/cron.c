/*-------------------------------------------------------------------------
 *
 * cron.c
 *	  pg_cron's expressions, and the ticks that they stand for.
 *
 * pg_cron tells its jobs nothing of the tick they were started for, so ticks are
 * computed here from the same expression, by the same clock: a tick is a minute
 * whose local time, in pg_cron's time zone, is in all the sets of the expression.
 * A local time that a change of the clocks skips is no tick, and one that comes
 * twice is two.  pg_cron may fire a job at other times in few cases ('$' near a
 * change of the clocks, ranges that run backwards): those are no ticks of ours, and
 * such a firing finds the tick before.
 *
 * What every version of pg_cron accepts is accepted, with the same lenience: what
 * stands behind the last field is ignored, and so is, up to the next blank, what
 * stands behind a number.  Where versions differ ('$', '30 seconds', steps beyond a
 * field's end), all is accepted here: whether the version at hand takes it, pg_cron
 * itself says when the job is made.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "pgtime.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/formatting.h"
#include "utils/guc.h"

#include "cron.h"

/* pg_cron refuses longer ones. */
#define EXPRESSION_MAX_BYTES 999

#define MINUTES_PER_DAY		(HOURS_PER_DAY * MINS_PER_HOUR)
#define UNIX_DAYS			(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

/* Instead of a minute */
#define NO_MINUTE			PG_INT64_MIN

/*
 * How far to look for a tick: a 29th of February that is a given day of the week
 * comes again after at most 40 years.
 */
#define HORIZON_MINUTES		(INT64CONST(41) * 366 * MINUTES_PER_DAY)

PG_FUNCTION_INFO_V1(trigger_idem_cron_next_tick);

/*
 * A setting of pg_cron; NULL where it is not loaded, or does not have it.  What
 * somebody has only set under that name is none.
 */
const char *
cron_setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value && (GetConfigOptionFlags(name, true) & GUC_CUSTOM_PLACEHOLDER) == 0 ? value : NULL;
}

/* The time zone of pg_cron: GMT where it has no setting for it */
static pg_tz *
cron_time_zone(void)
{
	const char *name = cron_setting("cron.timezone");
	pg_tz	   *zone = name && *name ? pg_tzset(name) : NULL;

	return zone ? zone : pg_tzset("GMT");
}

/* ---------- Parsing ---------- */

static const char *const month_names[] = {
	"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", NULL
};

static const char *const weekday_names[] = {
	"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL
};

/* One of the five fields: its bounds, and names for what begins with the lower one */
typedef struct CronField
{
	int			low;
	int			high;
	const char *const *names;
} CronField;

static const CronField minute_field = {0, 59, NULL};
static const CronField hour_field = {0, 23, NULL};
static const CronField day_field = {1, 31, NULL};
static const CronField month_field = {1, 12, month_names};
static const CronField weekday_field = {0, 7, weekday_names};

/* Names for whole expressions */
static const struct
{
	const char *name;
	const char *expression;
}			nicknames[] = {
	{"yearly", "0 0 1 1 *"},
	{"annually", "0 0 1 1 *"},
	{"monthly", "0 0 1 * *"},
	{"weekly", "0 0 * * 0"},
	{"daily", "0 0 * * *"},
	{"midnight", "0 0 * * *"},
	{"hourly", "0 * * * *"},
};

/* Each of these reads on from a place, and returns the next one; NULL: refused. */

static const char *
skip_blanks(const char *at)
{
	return at + strspn(at, " \t");
}

/* Empty lines and comments in front of the expression */
static const char *
skip_comments(const char *at)
{
	for (at = skip_blanks(at); *at == '\n' || *at == '#'; at = skip_blanks(at + 1))
	{
		at = strchr(at, '\n');
		if (at == NULL)
			return NULL;
	}
	return at;
}

/* A number, or one of the names */
static const char *
parse_number(const char *at, const CronField *names_of, int *number)
{
	char		word[EXPRESSION_MAX_BYTES + 1];
	int			length = 0;

	for (; isalnum((unsigned char) *at); at++)
		word[length++] = *at;
	word[length] = '\0';
	for (int i = 0; names_of && names_of->names && names_of->names[i]; i++)
		if (pg_strcasecmp(word, names_of->names[i]) == 0)
		{
			*number = names_of->low + i;
			return at;
		}
	if (length == 0 || strspn(word, "0123456789") != (size_t) length)
		return NULL;
	/* as pg_cron has it, what is too large comes out as anything */
	*number = (int) strtol(word, NULL, 10);
	return at;
}

/* *, a number, or a range, and the step that may follow all but a number */
static const char *
parse_range(const char *at, const CronField *field, uint64 *set)
{
	int			first = field->low;
	int			last = field->high;
	int			step = 1;

	if (*at == '*')
		at++;
	else
	{
		at = parse_number(at, field, &first);
		if (at == NULL || *at == '/')
			return NULL;
		last = first;
		if (*at == '-' && (at = parse_number(at + 1, field, &last)) == NULL)
			return NULL;
	}
	if (*at == '/' && ((at = parse_number(at + 1, NULL, &step)) == NULL || step <= 0))
		return NULL;
	if (first < field->low || first > field->high || last < field->low || last > field->high)
		return NULL;
	for (int64 member = first; member <= last; member += step)
		*set |= UINT64CONST(1) << member;
	return at;
}

/* A list of ranges, and the blanks behind it */
static const char *
parse_field(const char *at, const CronField *field, uint64 *set)
{
	*set = 0;
	while ((at = parse_range(at, field, set)) != NULL && *at == ',')
		at++;
	return at ? skip_blanks(at + strcspn(at, " \t\n")) : NULL;
}

/* The days of the month: a field, or '$' for the last one */
static const char *
parse_days(const char *at, Cron *cron)
{
	if (*at != '$')
		return parse_field(at, &day_field, &cron->days);
	cron->is_last_day = true;
	return at[1] == ' ' || at[1] == '\t' ? skip_blanks(at + 1) : NULL;
}

static bool
parse_fields(const char *at, Cron *cron)
{
	const char *always_needs_both = cron_setting("cron.match_dom_and_dow");

	if ((at = parse_field(at, &minute_field, &cron->minutes)) == NULL ||
		(at = parse_field(at, &hour_field, &cron->hours)) == NULL)
		return false;
	cron->needs_both = *at == '*';
	if ((at = parse_days(at, cron)) == NULL ||
		(at = parse_field(at, &month_field, &cron->months)) == NULL)
		return false;
	cron->needs_both |= *at == '*';
	if (parse_field(at, &weekday_field, &cron->weekdays) == NULL)
		return false;
	/* Sunday has two numbers */
	cron->weekdays |= cron->weekdays >> 7;
	cron->needs_both |= always_needs_both && strcmp(always_needs_both, "on") == 0;
	return true;
}

/* What follows an '@' */
static bool
parse_nickname(const char *at, Cron *cron)
{
	char	   *name = pnstrdup(at, strcspn(at, " \t\n"));

	cron->at_start = strcmp(name, "reboot") == 0 || strcmp(name, "restart") == 0;
	if (cron->at_start)
		return true;
	for (size_t i = 0; i < lengthof(nicknames); i++)
		if (strcmp(name, nicknames[i].name) == 0)
			return parse_fields(nicknames[i].expression, cron);
	return false;
}

/* '30 seconds', less than a minute */
static bool
parse_seconds(const char *expression, Cron *cron)
{
	char	   *rest = asc_tolower(expression, strlen(expression));
	unsigned int seconds;
	int			end = 0;

	/* pg_cron's own format; NOLINTNEXTLINE(cert-err34-c) */
	(void) sscanf(rest, " %u second%n", &seconds, &end);
	if (end == 0 || seconds == 0 || seconds >= SECS_PER_MINUTE)
		return false;
	cron->seconds = (int) seconds;
	rest += end;
	/* white space is accepted behind the plural only */
	return *rest == '\0' || (*rest == 's' && rest[1 + strspn(rest + 1, " \t\n\v\f\r")] == '\0');
}

/* Parse an expression; false when pg_cron would refuse it. */
bool
cron_parse(const char *expression, Cron *cron)
{
	const char *at = strlen(expression) > EXPRESSION_MAX_BYTES ? NULL : skip_comments(expression);

	memset(cron, 0, sizeof(*cron));
	cron->zone = cron_time_zone();
	if (at && (*at == '@' ? parse_nickname(at + 1, cron) : parse_fields(at, cron)))
		return true;
	cron->at_start = false;
	return parse_seconds(expression, cron);
}

/* The same, but 22023 */
void
cron_require(const char *expression, Cron *cron)
{
	if (!cron_parse(expression, cron))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid cron expression \"%s\"", expression),
				 errhint("It has five fields: minute, hour, day of the month, month, day of the week.")));
}

/* ---------- Days and minutes, in local time ---------- */

#define HAS(set, member) (((set) & (UINT64CONST(1) << (member))) != 0)

/* Is a day, counted from 1970 on, in the sets? */
static bool
day_matches(const Cron *cron, int64 day)
{
	int			julian = (int) day + UNIX_EPOCH_JDATE;
	int			year;
	int			month;
	int			mday;
	bool		in_days;
	bool		in_weekdays;

	j2date(julian, &year, &month, &mday);
	if (!HAS(cron->months, month))
		return false;
	in_days = HAS(cron->days, mday) ||
		(cron->is_last_day && mday == day_tab[isleap(year)][month - 1]);
	in_weekdays = HAS(cron->weekdays, j2day(julian));
	return cron->needs_both ? in_days && in_weekdays : in_days || in_weekdays;
}

/* The first minute of the day, from one on, that is in the sets; -1: none */
static int
first_minute(const Cron *cron, int from)
{
	for (int hour = from / MINS_PER_HOUR; hour < HOURS_PER_DAY; hour++)
	{
		int			skipped = Max(from - hour * MINS_PER_HOUR, 0);
		uint64		left = cron->minutes >> skipped;

		if (HAS(cron->hours, hour) && left != 0)
			return hour * MINS_PER_HOUR + skipped + pg_rightmost_one_pos64(left);
	}
	return -1;
}

/* The last minute of the day, up to one, that is in the sets; -1: none */
static int
last_minute(const Cron *cron, int to)
{
	for (int hour = to / MINS_PER_HOUR; hour >= 0; hour--)
	{
		int			last = Min(to - hour * MINS_PER_HOUR, MINS_PER_HOUR - 1);
		uint64		left = cron->minutes & (~UINT64CONST(0) >> (63 - last));

		if (HAS(cron->hours, hour) && left != 0)
			return hour * MINS_PER_HOUR + pg_leftmost_one_pos64(left);
	}
	return -1;
}

/* Division that rounds down */
static int64
floor_divide(int64 dividend, int64 divisor)
{
	return dividend / divisor - (dividend % divisor < 0);
}

/*
 * The first or the last local minute from one to before another that is in the
 * sets, or NO_MINUTE.  Minutes, like days, are counted from 1970 on.
 */
static int64
search_minutes(const Cron *cron, int64 from, int64 before, bool backward)
{
	int64		first_day = floor_divide(from, MINUTES_PER_DAY);
	int64		last_day = floor_divide(before - 1, MINUTES_PER_DAY);

	for (int64 i = 0; i <= last_day - first_day; i++)
	{
		int64		day = backward ? last_day - i : first_day + i;
		int64		midnight = day * MINUTES_PER_DAY;
		int			minute;

		if (!day_matches(cron, day))
			continue;
		minute = backward ? last_minute(cron, (int) Min(before - 1 - midnight, MINUTES_PER_DAY - 1)) :
			first_minute(cron, (int) Max(from - midnight, 0));
		if (minute >= 0 && midnight + minute >= from && midnight + minute < before)
			return midnight + minute;
	}
	return NO_MINUTE;
}

/* ---------- Ticks ---------- */

/*
 * Between two changes of the clocks local time is the other time plus a constant.
 * Find how many minutes that is, and the minute of the next change, or before if
 * that comes first.
 */
static int64
stretch_end(int64 minute, int64 before, pg_tz *zone, int64 *offset)
{
	pg_time_t	time = minute * SECS_PER_MINUTE;
	pg_time_t	change;
	long int	gmtoff;
	long int	gmtoff_after;
	int			isdst;
	int			isdst_after;
	int			found;

	found = pg_next_dst_boundary(&time, &gmtoff, &isdst, &change, &gmtoff_after, &isdst_after, zone);
	if (found < 0)
		elog(ERROR, "could not determine the time zone's offset");
	*offset = floor_divide(gmtoff, SECS_PER_MINUTE);
	return found == 0 ? before : Min(before, -floor_divide(-change, SECS_PER_MINUTE));
}

/* The first or the last tick from one minute to before another, or NO_MINUTE */
static int64
search_ticks(const Cron *cron, int64 from, int64 before, bool backward)
{
	int64		found = NO_MINUTE;

	while (from < before && (backward || found == NO_MINUTE))
	{
		int64		offset;
		int64		end = stretch_end(from, before, cron->zone, &offset);
		int64		local = search_minutes(cron, from + offset, end + offset, backward);

		if (local != NO_MINUTE)
			found = local - offset;
		from = end;
	}
	return found;
}

/* A time in seconds or minutes since 1970, rounded down, and back */
static int64
time_to_units(TimestampTz time, int64 usecs)
{
	return floor_divide(time, usecs) + UNIX_DAYS * (USECS_PER_DAY / usecs);
}

static TimestampTz
units_to_time(int64 units, int64 usecs)
{
	return (units - UNIX_DAYS * (USECS_PER_DAY / usecs)) * usecs;
}

/* The first tick after a time; false when there is none */
bool
cron_next_tick(const Cron *cron, TimestampTz after, TimestampTz *tick)
{
	int64		minute;

	if (cron->at_start || TIMESTAMP_NOT_FINITE(after))
		return false;
	if (cron->seconds > 0)
	{
		*tick = units_to_time((floor_divide(time_to_units(after, USECS_PER_SEC), cron->seconds) + 1) *
							  cron->seconds, USECS_PER_SEC);
		return *tick < END_TIMESTAMP;
	}
	minute = Max(time_to_units(after, USECS_PER_MINUTE) + 1, 0);
	minute = search_ticks(cron, minute,
						  Min(minute + HORIZON_MINUTES,
							  time_to_units(END_TIMESTAMP - 1, USECS_PER_MINUTE)), false);
	if (minute == NO_MINUTE)
		return false;
	*tick = units_to_time(minute, USECS_PER_MINUTE);
	return true;
}

/* The last tick at a time or before; false when there is none since 1970 */
bool
cron_previous_tick(const Cron *cron, TimestampTz at, TimestampTz *tick)
{
	int64		minute = NO_MINUTE;
	int64		before;

	if (TIMESTAMP_NOT_FINITE(at))
		return false;
	if (cron->at_start)
	{
		*tick = PgStartTime;
		return PgStartTime <= at;
	}
	if (cron->seconds > 0)
	{
		*tick = units_to_time(floor_divide(time_to_units(at, USECS_PER_SEC), cron->seconds) *
							  cron->seconds, USECS_PER_SEC);
		return true;
	}
	/* most are near: look farther and farther */
	before = time_to_units(at, USECS_PER_MINUTE) + 1;
	for (int64 range = MINUTES_PER_DAY;
		 minute == NO_MINUTE && before > 0 && range < 8 * HORIZON_MINUTES; range *= 8)
	{
		minute = search_ticks(cron, Max(before - range, 0), before, true);
		before -= range;
	}
	if (minute == NO_MINUTE)
		return false;
	*tick = units_to_time(minute, USECS_PER_MINUTE);
	return true;
}

/*
 * cron_next_tick(cron text, after timestamptz, timezone text): the first tick after
 * a time, in pg_cron's time zone if no other is given
 */
Datum
trigger_idem_cron_next_tick(PG_FUNCTION_ARGS)
{
	Cron		cron;
	TimestampTz tick;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	cron_require(text_to_cstring(PG_GETARG_TEXT_PP(0)), &cron);
	if (!PG_ARGISNULL(2))
	{
		char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(2));

		cron.zone = pg_tzset(name);
		if (cron.zone == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("time zone \"%s\" not recognized", name)));
	}
	if (!cron_next_tick(&cron, PG_GETARG_TIMESTAMPTZ(1), &tick))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(tick);
}
