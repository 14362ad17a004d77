/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Tokens: what runs can wait for and others complete.
 *
 * A token with a key is named by a hash of environment, role and key, so that its
 * primary key is all it takes to have one token for each; one without has a random
 * id.  Whoever knows a token, and may use its environment, may complete it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "answer.h"
#include "await.h"
#include "environment.h"
#include "key.h"
#include "limit.h"
#include "store.h"
#include "task.h"
#include "token.h"
#include "wake.h"

#define TOKEN_DOMAIN "trigger_idem token v1"

PG_FUNCTION_INFO_V1(trigger_idem_wait_token_create);
PG_FUNCTION_INFO_V1(trigger_idem_wait_token_complete);
PG_FUNCTION_INFO_V1(trigger_idem_wait_for_token);

/* ---------- Creating ---------- */

/* The id of the token with a key: a UUIDv8 */
static void
token_identify(text *given, const char *environment, pg_uuid_t *token)
{
	KeyMaterial material;
	KeyScope	scope;
	Key			key;
	Key			hash;

	if (!key_parse_hex(given, &key))
		key_from_text(given, KEY_SCOPE_GLOBAL, &key, &scope);
	key_material_begin(&material, TOKEN_DOMAIN);
	key_material_cstring(&material, environment);
	key_material_cstring(&material, GetUserNameFromId(GetUserId(), false));
	key_material_bytes(&material, key.bytes, KEY_BYTES);
	key_material_hash(&material, &hash);
	memcpy(token->data, hash.bytes, UUID_LEN);
	token->data[6] = 0x80 | (token->data[6] & 0x0f);
	token->data[8] = 0x80 | (token->data[8] & 0x3f);
}

static bool
token_exists(const pg_uuid_t *token)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreLookup lookup;
	bool		exists = store_lookup(&lookup, STORE_WAIT_TOKEN, UUIDPGetDatum(token), snapshot);

	store_lookup_end(&lookup);
	UnregisterSnapshot(snapshot);
	return exists;
}

/* Somebody has just inserted this token: wait until he commits, or not. */
static void
token_wait_for_holder(const pg_uuid_t *token)
{
	SnapshotData dirty;
	StoreLookup lookup;
	TransactionId xid = InvalidTransactionId;

	InitDirtySnapshot(dirty);
	if (store_lookup(&lookup, STORE_WAIT_TOKEN, UUIDPGetDatum(token), &dirty))
		xid = dirty.xmin;
	store_lookup_end(&lookup);
	if (TransactionIdIsValid(xid))
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
}

/* wait_token_create(idempotency_key text, timeout interval, environment text) */
Datum
trigger_idem_wait_token_create(PG_FUNCTION_ARGS)
{
	text	   *key = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	const char *environment;
	TimestampTz now = GetCurrentTimestamp();
	pg_uuid_t	token;
	Datum		values[WAIT_TOKEN_COLUMNS];
	bool		nulls[WAIT_TOKEN_COLUMNS];
	bool		is_cached;

	wait_check_not_begun();
	access_require_for_any(ACCESS_TRIGGER, "wait_token_create()");
	if (key)
		key_check_text(key);
	if (!PG_ARGISNULL(1))
		interval_check("timeout", PG_GETARG_INTERVAL_P(1), 1);
	environment = environment_choose(PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2), NULL);
	if (key)
		token_identify(key, environment, &token);
	else
		run_id_generate(&token, now);

	is_cached = key && token_exists(&token);
	if (!is_cached)
	{
		PreventCommandDuringRecovery("wait_token_create()");
		PreventCommandIfReadOnly("wait_token_create()");
		memset(nulls, true, sizeof(nulls));
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
		SET(WAIT_TOKEN_TOKEN, UUIDPGetDatum(&token));
		SET(WAIT_TOKEN_ENVIRONMENT, CStringGetTextDatum(environment));
		SET(WAIT_TOKEN_CREATED_BY, CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)));
		SET(WAIT_TOKEN_CREATED_AT, TimestampTzGetDatum(now));
		if (!PG_ARGISNULL(1))
			SET(WAIT_TOKEN_EXPIRES_AT,
				TimestampTzGetDatum(timestamp_plus(now, PG_GETARG_INTERVAL_P(1))));
		if (key)
			SET(WAIT_TOKEN_IDEMPOTENCY_KEY, PointerGetDatum(key));
#undef SET
		while (!store_insert_new(STORE_WAIT_TOKEN, values, nulls))
		{
			CHECK_FOR_INTERRUPTS();
			token_wait_for_holder(&token);
			if ((is_cached = token_exists(&token)))
				break;
		}
		environment_keep(environment, NULL);
		CommandCounterIncrement();
	}

	values[0] = UUIDPGetDatum(&token);
	values[1] = BoolGetDatum(is_cached);
	nulls[0] = nulls[1] = false;
	PG_RETURN_DATUM(answer_row(fcinfo, values, nulls));
}

/* ---------- Completing ---------- */

/*
 * May the caller use a token, a row?  In an environment that is closed to him, his own
 * while he executes a run in it.
 */
static bool
token_may_be_used(const Datum *values)
{
	const char *environment = TextDatumGetCString(values[WAIT_TOKEN_ENVIRONMENT - 1]);

	return environment_is_open(environment) ||
		(environment_is_of_run(environment) &&
		 access_is_member(GetUserId(), TextDatumGetCString(values[WAIT_TOKEN_CREATED_BY - 1])));
}

/* The token argument, and its row; 42704 if it is none that the caller may use */
static void
token_argument(FunctionCallInfo fcinfo, const char *function, pg_uuid_t *token,
			   Datum *values, bool *nulls)
{
	Snapshot	snapshot;
	bool		found;

	wait_check_not_begun();
	access_require_for_any(ACCESS_TRIGGER, function);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("token must not be null")));
	*token = *PG_GETARG_UUID_P(0);
	snapshot = store_latest_snapshot();
	found = store_fetch(STORE_WAIT_TOKEN, UUIDPGetDatum(token), snapshot, values, nulls);
	UnregisterSnapshot(snapshot);
	if (!found || !token_may_be_used(values))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("token %s does not exist", run_id_text(token)),
				 errhint("wait_token_create() creates one.")));
}

/* Is a token, a row, completed, or its time over? */
bool
token_is_over(const Datum *values, const bool *nulls)
{
	return !nulls[WAIT_TOKEN_COMPLETED_AT - 1] ||
		(!nulls[WAIT_TOKEN_EXPIRES_AT - 1] &&
		 DatumGetTimestampTz(values[WAIT_TOKEN_EXPIRES_AT - 1]) <= GetCurrentTimestamp());
}

/* Was it completed, before its time was over? */
bool
token_is_completed(const pg_uuid_t *token, Snapshot snapshot)
{
	Datum		values[WAIT_TOKEN_COLUMNS];
	bool		nulls[WAIT_TOKEN_COLUMNS];

	return store_fetch(STORE_WAIT_TOKEN, UUIDPGetDatum(token), snapshot, values, nulls) &&
		!nulls[WAIT_TOKEN_COMPLETED_AT - 1];
}

/* wait_token_complete(token uuid, output jsonb) */
Datum
trigger_idem_wait_token_complete(PG_FUNCTION_ARGS)
{
	pg_uuid_t	token;
	Datum		values[WAIT_TOKEN_COLUMNS];
	bool		nulls[WAIT_TOKEN_COLUMNS];
	StoreRow	row;
	bool		is_first;

	PreventCommandDuringRecovery("wait_token_complete()");
	PreventCommandIfReadOnly("wait_token_complete()");
	store_pin();
	token_argument(fcinfo, "wait_token_complete()", &token, values, nulls);
	limit_output("output of the token", fcinfo->args[1]);
	if (token_is_over(values, nulls))
		PG_RETURN_BOOL(false);
	if (store_row_lock(&row, STORE_WAIT_TOKEN, UUIDPGetDatum(&token), LockWaitBlock) != STORE_LOCKED)
		PG_RETURN_BOOL(false);
	store_row_read(&row, values, nulls);
	is_first = !token_is_over(values, nulls);
	if (is_first)
	{
		values[WAIT_TOKEN_COMPLETED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		nulls[WAIT_TOKEN_COMPLETED_AT - 1] = false;
		nulls[WAIT_TOKEN_OUTPUT - 1] = PG_ARGISNULL(1);
		values[WAIT_TOKEN_OUTPUT - 1] = PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1);
		store_row_update(&row, values, nulls);
	}
	store_row_end(&row);
	if (is_first)
	{
		CommandCounterIncrement();
		awaited_ended(&token);
		wake_watchers(&token);
	}
	PG_RETURN_BOOL(is_first);
}

/* ---------- Waiting ---------- */

bool
token_has_ended(const pg_uuid_t *token)
{
	Snapshot	snapshot = store_latest_snapshot();
	Datum		values[WAIT_TOKEN_COLUMNS];
	bool		nulls[WAIT_TOKEN_COLUMNS];
	bool		ended = !store_fetch(STORE_WAIT_TOKEN, UUIDPGetDatum(token), snapshot, values, nulls) ||
		token_is_over(values, nulls);

	UnregisterSnapshot(snapshot);
	return ended;
}

/* The answer of a token; timed_out: whatever has become of it since */
static Datum
token_answer(FunctionCallInfo fcinfo, const pg_uuid_t *token, bool timed_out)
{
	Snapshot	snapshot = store_latest_snapshot();
	Datum		row[WAIT_TOKEN_COLUMNS];
	bool		row_nulls[WAIT_TOKEN_COLUMNS];
	Datum		values[2] = {BoolGetDatum(false)};
	bool		nulls[2] = {false, true};

	if (store_fetch(STORE_WAIT_TOKEN, UUIDPGetDatum(token), snapshot, row, row_nulls))
	{
		/* not over: an application is told that it waits */
		nulls[0] = !token_is_over(row, row_nulls);
		if (!timed_out && !row_nulls[WAIT_TOKEN_COMPLETED_AT - 1])
		{
			values[0] = BoolGetDatum(true);
			values[1] = row[WAIT_TOKEN_OUTPUT - 1];
			nulls[1] = row_nulls[WAIT_TOKEN_OUTPUT - 1];
		}
	}
	UnregisterSnapshot(snapshot);
	return answer_row(fcinfo, values, nulls);
}

/* wait_for_token(token uuid) */
Datum
trigger_idem_wait_for_token(PG_FUNCTION_ARGS)
{
	CurrentRun *run = current_run();
	pg_uuid_t	token;
	Datum		values[WAIT_TOKEN_COLUMNS];
	bool		nulls[WAIT_TOKEN_COLUMNS];
	TimestampTz until;
	WaitRequest *request;
	WaitAnswer	answer;
	WaitTarget	target = {.is_cached = true,.has_ended = true};

	token_argument(fcinfo, "wait_for_token()", &token, values, nulls);
	until = nulls[WAIT_TOKEN_EXPIRES_AT - 1] ? DT_NOEND :
		DatumGetTimestampTz(values[WAIT_TOKEN_EXPIRES_AT - 1]);
	if (run == NULL)
	{
		if (!token_is_over(values, nulls))
		{
			await_refuse_own(STORE_WAIT_TOKEN, &token, "token");
			await_end(&token, token_has_ended, until);
		}
		return token_answer(fcinfo, &token, false);
	}

	request = wait_request(WAIT_FOR_TOKEN, token.data, UUID_LEN, false,
						   cstring_to_text(run_id_text(&token)));
	if (wait_find_answer(request, &answer))
		return token_answer(fcinfo, &token, answer.timed_out);
	target.id = token;
	if (token_is_over(values, nulls))
	{
		request->timed_out = nulls[WAIT_TOKEN_COMPLETED_AT - 1];
		wait_remember(request, &target, 1);
		return token_answer(fcinfo, &token, request->timed_out);
	}
	await_refuse_own(STORE_WAIT_TOKEN, &token, "token");
	request->until = until;
	request->targets = MemoryContextAllocZero(run->context, sizeof(WaitTarget));
	request->targets[0].id = token;
	request->count = 1;
	wait_begin(request);
	return token_answer(fcinfo, &token, false);
}
