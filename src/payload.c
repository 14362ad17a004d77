/*-------------------------------------------------------------------------
 *
 * payload.c
 *	  Payloads: what they are hashed from, and where two of them differ.
 *
 * Payloads that are equal as jsonb have the same digest, all others another.
 * The material is the payload's tree, written depth first: a letter for the
 * kind of each value, then
 *
 *	n t f	null, true, false	nothing
 *	d		number				<integer>e<exponent>, as a part
 *	s		string				its UTF-8, as a part
 *	a		array				how many elements (four bytes), the elements
 *	o		object				how many members (four bytes), then key, as a part,
 *								and value of each
 *
 * where a part is preceded by its length, as in keys.  A number's integer has
 * no zeros at its end, zero is 0e0.  Members are ordered by the length of their
 * keys in UTF-8, keys of one length by their bytes.  doc/keys.md has test vectors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "payload.h"

#define PAYLOAD_DOMAIN "trigger_idem payload v1"

/* A path that is longer is cut. */
#define PATH_MAX_BYTES 1000

PG_FUNCTION_INFO_V1(trigger_idem_idempotency_key_from_payload);

/* ---------- Values ---------- */

/* A member of an object; its key is in UTF-8 */
typedef struct Member
{
	char	   *key;
	int			key_length;
	JsonbValue	value;
} Member;

static int
member_compare(const void *one, const void *other)
{
	const Member *a = one;
	const Member *b = other;

	if (a->key_length != b->key_length)
		return a->key_length < b->key_length ? -1 : 1;
	return memcmp(a->key, b->key, a->key_length);
}

/* The members of an object, in their order */
static Member *
object_members(JsonbContainer *object, int *count)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbValue	value;
	Member	   *members;
	bool		converted = false;

	(void) JsonbIteratorNext(&iterator, &value, true);
	*count = value.val.object.nPairs;
	members = palloc(Max(*count, 1) * sizeof(Member));
	for (int i = 0; i < *count; i++)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		members[i].key = pg_server_to_any(value.val.string.val, value.val.string.len, PG_UTF8);
		members[i].key_length = value.val.string.len;
		if (members[i].key != value.val.string.val)
		{
			members[i].key_length = (int) strlen(members[i].key);
			converted = true;
		}
		(void) JsonbIteratorNext(&iterator, &members[i].value, true);
	}
	/* jsonb has the same order, but by the bytes of the database's encoding */
	if (converted)
		qsort(members, *count, sizeof(Member), member_compare);
	return members;
}

/* The value that a container stands for: a document may be a single scalar. */
static void
container_value(JsonbContainer *container, JsonbValue *value)
{
	if (JsonContainerIsScalar(container))
		(void) JsonbExtractScalar(container, value);
	else
	{
		value->type = jbvBinary;
		value->val.binary.data = container;
		value->val.binary.len = 0;
	}
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

/* ---------- The digest ---------- */

static uint16
read_uint16(const char *bytes)
{
	uint16		number;

	memcpy(&number, bytes, sizeof(number));
	return pg_ntoh16(number);
}

/*
 * A number as <integer>e<exponent>.  numeric_send() gives its digits to the
 * base of 10000 without zeros at either end: their count, the exponent of the
 * first one, the sign, a scale that we leave out, and the digits.
 */
static void
number_material(KeyMaterial *material, Numeric number)
{
	bytea	   *sent = DatumGetByteaP(DirectFunctionCall1(numeric_send, NumericGetDatum(number)));
	const char *header = VARDATA(sent);
	int			count = read_uint16(header);
	int			exponent = ((int16) read_uint16(header + 2) - (count - 1)) * 4;
	bool		is_negative = read_uint16(header + 4) != 0;
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < count; i++)
		appendStringInfo(&text, i == 0 ? "%d" : "%04d", read_uint16(header + 8 + i * sizeof(uint16)));
	while (text.len > 0 && text.data[text.len - 1] == '0')
	{
		text.		data[--text.len] = '\0';

		exponent++;
	}
	if (text.len == 0)
	{
		appendStringInfoChar(&text, '0');
		exponent = 0;
	}
	appendStringInfo(&text, "e%d", exponent);
	key_material_number(material, text.len + (is_negative ? 1 : 0));
	if (is_negative)
		key_material_raw(material, "-", 1);
	key_material_raw(material, text.data, text.len);
	pfree(text.data);
	pfree(sent);
}

static void
value_material(KeyMaterial *material, JsonbValue *value)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	switch (value->type)
	{
		case jbvNull:
			key_material_raw(material, "n", 1);
			break;
		case jbvBool:
			key_material_raw(material, value->val.boolean ? "t" : "f", 1);
			break;
		case jbvNumeric:
			key_material_raw(material, "d", 1);
			number_material(material, value->val.numeric);
			break;
		case jbvString:
			key_material_raw(material, "s", 1);
			key_material_text(material, value->val.string.val, value->val.string.len);
			break;
		case jbvBinary:
			if (is_object(value))
			{
				int			count;
				Member	   *members = object_members(value->val.binary.data, &count);

				key_material_raw(material, "o", 1);
				key_material_number(material, count);
				for (int i = 0; i < count; i++)
				{
					key_material_bytes(material, members[i].key, members[i].key_length);
					value_material(material, &members[i].value);
				}
				pfree(members);
			}
			else
			{
				JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
				JsonbValue	element;

				(void) JsonbIteratorNext(&iterator, &element, true);
				key_material_raw(material, "a", 1);
				key_material_number(material, element.val.array.nElems);
				while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM)
					value_material(material, &element);
			}
			break;
		default:
			elog(ERROR, "unexpected jsonb value of type %d", value->type);
	}
}

/* The digest of a payload; SQL's null has one too, which no jsonb has. */
void
payload_digest(NullableDatum payload, Key *digest)
{
	KeyMaterial material;

	key_material_begin(&material, PAYLOAD_DOMAIN);
	if (!payload.isnull)
	{
		JsonbValue	value;

		container_value(&DatumGetJsonbP(payload.value)->root, &value);
		value_material(&material, &value);
	}
	key_material_hash(&material, digest);
}

/* idempotency_key_from_payload(payload jsonb) */
Datum
trigger_idem_idempotency_key_from_payload(PG_FUNCTION_ARGS)
{
	Key			key;

	/* a null key would be no key, and the task triggered every time */
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payload of an idempotency key must not be null"),
				 errhint("JSON's null is one.")));
	payload_digest(fcinfo->args[0], &key);
	PG_RETURN_TEXT_P(key_to_hex(&key));
}

/* ---------- The first difference ---------- */

/* May a key stand in a JSON path without quotes?  Only what surely may. */
static bool
is_plain_key(const char *key)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";

	return key[0] != '\0' && strchr(letters, key[0]) != NULL &&
		key[strspn(key, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")] == '\0';
}

static void
path_add_key(StringInfo path, const char *key, int length)
{
	char	   *copy = pnstrdup(key, length);
	char	   *name = pg_any_to_server(copy, length, PG_UTF8);

	appendStringInfoChar(path, '.');
	if (is_plain_key(name))
		appendStringInfoString(path, name);
	else
		escape_json(path, name);
}

static bool
scalars_are_equal(const JsonbValue *one, const JsonbValue *other)
{
	if (one->type != other->type)
		return false;
	switch (one->type)
	{
		case jbvNull:
			return true;
		case jbvBool:
			return one->val.boolean == other->val.boolean;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(one->val.numeric),
													NumericGetDatum(other->val.numeric)));
		case jbvString:
			return one->val.string.len == other->val.string.len &&
				memcmp(one->val.string.val, other->val.string.val, one->val.string.len) == 0;
		default:
			return false;
	}
}

static bool values_differ(JsonbValue *one, JsonbValue *other, StringInfo path);

static bool
objects_differ(JsonbContainer *one, JsonbContainer *other, StringInfo path)
{
	int			count,
				other_count;
	Member	   *members = object_members(one, &count);
	Member	   *other_members = object_members(other, &other_count);
	int			length = path->len;

	for (int i = 0; i < Max(count, other_count); i++)
	{
		int			order = i >= count ? 1 : i >= other_count ? -1 :
			member_compare(&members[i], &other_members[i]);
		Member	   *first = order <= 0 ? &members[i] : &other_members[i];

		path_add_key(path, first->key, first->key_length);
		if (order != 0 || values_differ(&members[i].value, &other_members[i].value, path))
			return true;
		path->len = length;
		path->data[length] = '\0';
	}
	return false;
}

static bool
arrays_differ(JsonbContainer *one, JsonbContainer *other, StringInfo path)
{
	JsonbIterator *iterator = JsonbIteratorInit(one);
	JsonbIterator *other_iterator = JsonbIteratorInit(other);
	JsonbValue	value,
				other_value;
	int			length = path->len;

	(void) JsonbIteratorNext(&iterator, &value, true);
	(void) JsonbIteratorNext(&other_iterator, &other_value, true);
	for (int i = 0;; i++)
	{
		bool		more = JsonbIteratorNext(&iterator, &value, true) == WJB_ELEM;
		bool		other_more = JsonbIteratorNext(&other_iterator, &other_value, true) == WJB_ELEM;

		if (!more && !other_more)
			return false;
		appendStringInfo(path, "[%d]", i);
		if (more != other_more || values_differ(&value, &other_value, path))
			return true;
		path->len = length;
		path->data[length] = '\0';
	}
}

/* Do two values differ?  If so, path is made to lead to where. */
static bool
values_differ(JsonbValue *one, JsonbValue *other, StringInfo path)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (is_object(one) && is_object(other))
		return objects_differ(one->val.binary.data, other->val.binary.data, path);
	if (is_array(one) && is_array(other))
		return arrays_differ(one->val.binary.data, other->val.binary.data, path);
	return !scalars_are_equal(one, other);
}

/* Where two payloads first differ, as a JSON path; NULL: nowhere */
char *
payload_difference(NullableDatum one, NullableDatum other)
{
	StringInfoData path;
	JsonbValue	value,
				other_value;

	initStringInfo(&path);
	appendStringInfoChar(&path, '$');
	if (one.isnull || other.isnull)
		return one.isnull == other.isnull ? NULL : path.data;
	container_value(&DatumGetJsonbP(one.value)->root, &value);
	container_value(&DatumGetJsonbP(other.value)->root, &other_value);
	if (!values_differ(&value, &other_value, &path))
		return NULL;
	if (path.len > PATH_MAX_BYTES)
	{
		path.len = pg_mbcliplen(path.data, path.len, PATH_MAX_BYTES);
		path.data[path.len] = '\0';
		appendStringInfoString(&path, "...");
	}
	return path.data;
}
