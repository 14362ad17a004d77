/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  batch_trigger_task(): many triggers of a task in one call.
 *
 * Every item is checked before the first key is touched.  Keys are then
 * acquired in the order of their ids, so that two batches never wait for each
 * other; of items with the same key the first one in the batch makes the run.
 * Runs and queue entries are inserted last, many at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "acquire.h"
#include "batch.h"
#include "compat.h"
#include "environment.h"
#include "limit.h"
#include "payload.h"
#include "stats.h"
#include "store.h"
#include "trigger.h"
#include "wait.h"

PG_FUNCTION_INFO_V1(trigger_idem_batch_trigger_task);

/* ---------- The options of an item ---------- */

/* What an option is in JSON */
typedef enum OptionType
{
	OPTION_IS_TEXT,
	OPTION_IS_INTERVAL,
	OPTION_IS_TIMESTAMP,
	OPTION_IS_INTEGER,
	OPTION_IS_TEXTS,
	OPTION_IS_JSON,
} OptionType;

static const struct
{
	const char *name;
	TriggerOption option;
	OptionType	type;
}			item_options[] = {
	{"idempotency_key", OPTION_IDEMPOTENCY_KEY, OPTION_IS_TEXT},
	{"idempotency_key_ttl", OPTION_IDEMPOTENCY_KEY_TTL, OPTION_IS_INTERVAL},
	{"idempotency_key_scope", OPTION_IDEMPOTENCY_KEY_SCOPE, OPTION_IS_TEXT},
	{"delay", OPTION_DELAY, OPTION_IS_INTERVAL},
	{"run_at", OPTION_RUN_AT, OPTION_IS_TIMESTAMP},
	{"ttl", OPTION_TTL, OPTION_IS_INTERVAL},
	{"priority", OPTION_PRIORITY, OPTION_IS_INTEGER},
	{"queue", OPTION_QUEUE, OPTION_IS_TEXT},
	{"concurrency_key", OPTION_CONCURRENCY_KEY, OPTION_IS_TEXT},
	{"max_attempts", OPTION_MAX_ATTEMPTS, OPTION_IS_INTEGER},
	{"tags", OPTION_TAGS, OPTION_IS_TEXTS},
	{"metadata", OPTION_METADATA, OPTION_IS_JSON},
};

/* Where in the batch we are, for messages */
typedef struct ItemPosition
{
	int			index;
	const char *option;			/* or NULL */
} ItemPosition;

/*
 * What goes wrong with an item says which one it was.  A text that is not what
 * its option needs is a bad option, whatever the type's own code for that is.
 */
static void
item_error_callback(void *arg)
{
	const ItemPosition *position = arg;

	if (position->option)
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
			errcode(ERRCODE_INVALID_PARAMETER_VALUE);
		errcontext("option \"%s\" of item %d of the batch", position->option, position->index);
	}
	else
		errcontext("item %d of the batch", position->index);
}

pg_noreturn static void
item_error(int index, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("item %d of the batch is malformed", index),
			 errdetail_internal("%s", detail),
			 errhint("An item is {\"payload\": ..., \"options\": {...}}.")));
}

pg_noreturn static void
option_type_error(const ItemPosition *position, const char *type)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" of item %d of the batch must be %s", position->option,
					position->index, type)));
}

static text *
string_text(const JsonbValue *value)
{
	return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
}

static char *
string_option(const JsonbValue *value, const ItemPosition *position)
{
	if (value->type != jbvString)
		option_type_error(position, "a string");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static Datum
integer_option(const JsonbValue *value, const ItemPosition *position)
{
	Datum		number;
	Datum		integer;

	if (value->type != jbvNumeric)
		option_type_error(position, "an integer");
	number = NumericGetDatum(value->val.numeric);
	integer = DirectFunctionCall1(numeric_int4, number);
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, number,
										  DirectFunctionCall1(int4_numeric, integer))))
		option_type_error(position, "an integer");
	return integer;
}

static Datum
texts_option(const JsonbValue *value, const ItemPosition *position)
{
	JsonbIterator *iterator;
	JsonbValue	element;
	Datum	   *texts;
	int			count;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		option_type_error(position, "an array of strings");
	iterator = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &element, true);
	count = element.val.array.nElems;
	texts = palloc(Max(count, 1) * sizeof(Datum));
	for (int i = 0; i < count; i++)
	{
		(void) JsonbIteratorNext(&iterator, &element, true);
		if (element.type != jbvString)
			option_type_error(position, "an array of strings");
		texts[i] = PointerGetDatum(string_text(&element));
	}
	return PointerGetDatum(construct_array(texts, count, TEXTOID, -1, false, TYPALIGN_INT));
}

static Datum
option_value(JsonbValue *value, OptionType type, const ItemPosition *position)
{
	switch (type)
	{
		case OPTION_IS_TEXT:
			return CStringGetTextDatum(string_option(value, position));
		case OPTION_IS_INTERVAL:
			return DirectFunctionCall3(interval_in,
									   CStringGetDatum(string_option(value, position)),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case OPTION_IS_TIMESTAMP:
			return DirectFunctionCall3(timestamptz_in,
									   CStringGetDatum(string_option(value, position)),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case OPTION_IS_INTEGER:
			return integer_option(value, position);
		case OPTION_IS_TEXTS:
			return texts_option(value, position);
		case OPTION_IS_JSON:
			return JsonbPGetDatum(JsonbValueToJsonb(value));
	}
	pg_unreachable();
}

static void
read_option(const JsonbValue *name, JsonbValue *value, NullableDatum *options,
			ItemPosition *position)
{
	for (size_t i = 0; i < lengthof(item_options); i++)
		if (strlen(item_options[i].name) == (size_t) name->val.string.len &&
			memcmp(item_options[i].name, name->val.string.val, name->val.string.len) == 0)
		{
			if (value->type == jbvNull)
				return;
			position->option = item_options[i].name;
			options[item_options[i].option].value =
				option_value(value, item_options[i].type, position);
			options[item_options[i].option].isnull = false;
			position->option = NULL;
			return;
		}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown option \"%.*s\" of item %d of the batch",
					pg_mbcliplen(name->val.string.val, name->val.string.len, NAMEDATALEN - 1),
					name->val.string.val, position->index),
			 errhint("Options are named as the arguments of trigger_task(); the environment is the batch's.")));
}

static void
read_options(JsonbContainer *object, NullableDatum *options, ItemPosition *position)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbValue	name,
				value;

	(void) JsonbIteratorNext(&iterator, &name, true);
	while (JsonbIteratorNext(&iterator, &name, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		read_option(&name, &value, options, position);
	}
}

static bool
string_is(const JsonbValue *string, const char *other)
{
	return string->val.string.len == (int) strlen(other) &&
		memcmp(string->val.string.val, other, string->val.string.len) == 0;
}

/* Read an item into options. */
static void
read_item(JsonbValue *item, NullableDatum *options, ItemPosition *position)
{
	JsonbIterator *iterator;
	JsonbValue	name,
				value;

	if (item->type != jbvBinary || !JsonContainerIsObject(item->val.binary.data))
		item_error(position->index, _("It is not an object."));
	iterator = JsonbIteratorInit(item->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &name, true);
	while (JsonbIteratorNext(&iterator, &name, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (string_is(&name, "payload"))
		{
			options[OPTION_PAYLOAD].value = JsonbPGetDatum(JsonbValueToJsonb(&value));
			options[OPTION_PAYLOAD].isnull = false;
		}
		else if (!string_is(&name, "options"))
			item_error(position->index, _("It has something besides payload and options."));
		else if (value.type == jbvBinary && JsonContainerIsObject(value.val.binary.data))
			read_options(value.val.binary.data, options, position);
		else if (value.type != jbvNull)
			item_error(position->index, _("Its options are not an object."));
	}
}

/* ---------- The batch ---------- */

/*
 * The key of an item that has none of its own: that of the batch and the item's
 * index.  Returns what users see of it.
 */
static text *
item_default_key(text *batch_key, int index, NullableDatum *option)
{
	text	   *parts[2] = {batch_key, cstring_to_text(psprintf("%d", index))};
	Datum		values[2] = {PointerGetDatum(parts[0]), PointerGetDatum(parts[1])};
	ArrayType  *array = construct_array(values, 2, TEXTOID, -1, false, TYPALIGN_INT);
	Key			key;

	key_from_parts(parts, lengthof(parts), &key);
	option->value = PointerGetDatum(key_to_hex(&key));
	option->isnull = false;
	return cstring_to_text(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array)));
}

/* Read and check all items. */
static BatchItem *
batch_read(const NullableDatum *arguments, Jsonb *items, int *count)
{
	text	   *batch_key = arguments[BATCH_IDEMPOTENCY_KEY].isnull ? NULL :
		DatumGetTextPP(arguments[BATCH_IDEMPOTENCY_KEY].value);
	JsonbIterator *iterator = JsonbIteratorInit(&items->root);
	JsonbValue	item;
	BatchItem  *batch;
	ItemPosition position = {0};
	ErrorContextCallback callback = {error_context_stack, item_error_callback, &position};

	(void) JsonbIteratorNext(&iterator, &item, true);
	*count = item.val.array.nElems;
	batch = palloc_extended(Max(*count, 1) * sizeof(BatchItem), MCXT_ALLOC_HUGE);
	error_context_stack = &callback;
	for (int i = 0; i < *count; i++)
	{
		NullableDatum options[TRIGGER_OPTIONS];
		text	   *default_key = NULL;

		CHECK_FOR_INTERRUPTS();
		for (int option = 0; option < TRIGGER_OPTIONS; option++)
			options[option].isnull = true;
		options[OPTION_TASK_ID] = arguments[BATCH_TASK_ID];
		options[OPTION_ENVIRONMENT] = arguments[BATCH_ENVIRONMENT];
		options[OPTION_IDEMPOTENCY_KEY_SCOPE].value = CStringGetTextDatum("global");
		options[OPTION_IDEMPOTENCY_KEY_SCOPE].isnull = false;

		position.index = batch[i].index = i;
		batch[i].is_settled = false;
		(void) JsonbIteratorNext(&iterator, &item, true);
		read_item(&item, options, &position);
		if (batch_key && options[OPTION_IDEMPOTENCY_KEY].isnull)
			default_key = item_default_key(batch_key, i, &options[OPTION_IDEMPOTENCY_KEY]);
		trigger_prepare(options, TRIGGER_CALL, &batch[i].trigger);
		if (default_key)
		{
			batch[i].trigger.key_typed = default_key;
			batch[i].trigger.key_scope = key_scope_name(KEY_SCOPE_GLOBAL);
		}
	}
	error_context_stack = callback.previous;
	return batch;
}

/* Check the arguments and all items; nothing is written. */
BatchItem *
batch_prepare(const NullableDatum *arguments, int *count)
{
	Jsonb	   *items;
	const Task *task;

	wait_check_not_begun();
	/* checked here too, for a batch may be empty */
	if (arguments[BATCH_TASK_ID].isnull)
		identifier_check("task", NULL);
	task = task_require(TextDatumGetCString(arguments[BATCH_TASK_ID].value));
	access_require(ACCESS_TRIGGER, task);
	(void) environment_choose(arguments[BATCH_ENVIRONMENT].isnull ? NULL :
							  DatumGetTextPP(arguments[BATCH_ENVIRONMENT].value), task);
	if (!arguments[BATCH_IDEMPOTENCY_KEY].isnull)
		key_check_text(DatumGetTextPP(arguments[BATCH_IDEMPOTENCY_KEY].value));
	if (arguments[BATCH_ITEMS].isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("items must not be null")));
	items = DatumGetJsonbP(arguments[BATCH_ITEMS].value);
	if (!JB_ROOT_IS_ARRAY(items) || JB_ROOT_IS_SCALAR(items))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("items must be a JSON array")));
	return batch_read(arguments, items, count);
}

/* By the ids of keys; items without a key come first */
static int
compare_by_key(const void *one, const void *other)
{
	const BatchItem *a = *(BatchItem *const *) one;
	const BatchItem *b = *(BatchItem *const *) other;
	int			order = 0;

	if (a->trigger.has_key != b->trigger.has_key)
		return a->trigger.has_key ? 1 : -1;
	if (a->trigger.has_key)
		order = memcmp(a->trigger.key_id.data, b->trigger.key_id.data, UUID_LEN);
	return order != 0 ? order : a->index - b->index;
}

/* An item whose key an item before it has */
static void
item_repeat(BatchItem *item, const BatchItem *first)
{
	if (item->trigger.task->compares_payloads)
	{
		char	   *where = payload_difference(first->trigger.payload, item->trigger.payload);

		if (where)
			key_mismatch_error(&first->result.run_id, where);
	}
	item->result = first->result;
	item->result.is_cached = true;
	stats_count(STAT_HITS);
}

/* Acquire the keys, in the order of their ids. */
static void
batch_acquire(BatchItem *batch, int count, MemoryContext item_context, ItemPosition *position)
{
	BatchItem **ordered = palloc_extended(Max(count, 1) * sizeof(BatchItem *), MCXT_ALLOC_HUGE);
	TimestampTz waited_until = DT_NOBEGIN;

	for (int i = 0; i < count; i++)
		ordered[i] = &batch[i];
	qsort(ordered, count, sizeof(BatchItem *), compare_by_key);
	MemoryContextSwitchTo(item_context);
	for (int i = 0; i < count; i++)
	{
		BatchItem  *item = ordered[i];
		BatchItem  *before = i > 0 ? ordered[i - 1] : NULL;

		CHECK_FOR_INTERRUPTS();
		position->index = item->index;
		if (item->is_settled)
			continue;
		/* after one with a key, all have one */
		if (before && before->trigger.has_key &&
			memcmp(&before->trigger.key_id, &item->trigger.key_id, UUID_LEN) == 0)
			item_repeat(item, before);
		else
		{
			TimestampTz prepared = Max(item->trigger.now, waited_until);

			trigger_set_now(&item->trigger, prepared);
			trigger_acquire(&item->trigger, &item->result);
			if (item->trigger.now > prepared)
				waited_until = item->trigger.now;
		}
		MemoryContextReset(item_context);
	}
}

/* Is an item to be a new run? */
static bool
item_is_new(const BatchItem *item)
{
	return !item->is_settled && !item->result.is_cached;
}

/* All runs of a batch are of one environment. */
static void
batch_limit_runs(const BatchItem *batch, int count)
{
	int			new_runs = 0;

	for (int i = 0; i < count; i++)
		if (item_is_new(&batch[i]))
			new_runs++;
	if (new_runs > 0)
		limit_active_runs(batch[0].trigger.environment, new_runs);
}

/* Insert the new runs, in the order of the items. */
static void
batch_insert(BatchItem *batch, int count, MemoryContext item_context, ItemPosition *position)
{
	StoreWriter runs;
	StoreWriter entries;
	Datum		values[STORE_MAX_COLUMNS];
	bool		nulls[STORE_MAX_COLUMNS];
	int			inserted = -1;

	batch_limit_runs(batch, count);
	for (int i = 0; i < count; i++)
	{
		BatchItem  *item = &batch[i];

		CHECK_FOR_INTERRUPTS();
		if (!item_is_new(item))
			continue;
		position->index = i;
		if (inserted < 0)
		{
			store_writer_begin(&runs, STORE_RUN);
			store_writer_begin(&entries, STORE_QUEUE_ENTRY);
		}
		inserted = i;
		MemoryContextSwitchTo(item_context);
		trigger_run_row(&item->trigger, &item->result.run_id, values, nulls);
		store_writer_insert(&runs, values, nulls);
		trigger_entry_row(&item->trigger, &item->result.run_id, values, nulls);
		store_writer_insert(&entries, values, nulls);
		trigger_inserted(&item->trigger, &item->result);
		MemoryContextReset(item_context);
	}
	if (inserted < 0)
		return;
	store_writer_end(&runs);
	store_writer_end(&entries);
	trigger_finish(&batch[inserted].trigger);
}

/* Do what a batch asks for. */
void
batch_run(BatchItem *batch, int count)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext item_context = AllocSetContextCreate(caller, "trigger_idem batch item",
													   ALLOCSET_DEFAULT_SIZES);
	ItemPosition position = {0};
	ErrorContextCallback callback = {error_context_stack, item_error_callback, &position};

	error_context_stack = &callback;
	batch_acquire(batch, count, item_context, &position);
	MemoryContextSwitchTo(caller);
	batch_insert(batch, count, item_context, &position);
	MemoryContextSwitchTo(caller);
	error_context_stack = callback.previous;
	MemoryContextDelete(item_context);
}

/* batch_trigger_task(task_id text, items jsonb, idempotency_key text, environment text) */
Datum
trigger_idem_batch_trigger_task(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *answer = (ReturnSetInfo *) fcinfo->resultinfo;
	BatchItem  *batch;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	batch = batch_prepare(fcinfo->args, &count);
	batch_run(batch, count);
	for (int i = 0; i < count; i++)
	{
		Datum		values[4];
		bool		nulls[4] = {false, false, false, false};

		values[0] = Int32GetDatum(i);
		values[1] = UUIDPGetDatum(&batch[i].result.run_id);
		values[2] = BoolGetDatum(batch[i].result.is_cached);
		values[3] = ObjectIdGetDatum(run_status_oid(batch[i].result.status));
		tuplestore_putvalues(answer->setResult, answer->setDesc, values, nulls);
	}
	return (Datum) 0;
}
