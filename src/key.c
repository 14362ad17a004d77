/*-------------------------------------------------------------------------
 *
 * key.c
 *	  Idempotency keys: what they are hashed from, and the SQL functions.
 *
 * A key is the SHA-256 of a list of parts.  Every part stands behind its
 * length in bytes (four bytes, most significant first), so no two lists give
 * the same bytes; the first part names what is hashed, so no key of one kind is
 * a key of another; all text is UTF-8, whatever the database's encoding.
 * doc/keys.md has the encoding and test vectors for other languages, and
 * test/pgtap/keys.sql computes them again with pgcrypto.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef USE_OPENSSL
#include <openssl/evp.h>
#endif

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "current.h"
#include "key.h"

#define KEY_DOMAIN		"trigger_idem key v1"
#define KEY_ID_DOMAIN	"trigger_idem key id v1"
#define KEY_TICK_DOMAIN "trigger_idem tick v1"

/* Material up to this size is hashed in one go. */
#define MATERIAL_BUFFER 8192

static const char *const scope_names[] = {
	[KEY_SCOPE_RUN] = "run",
	[KEY_SCOPE_ATTEMPT] = "attempt",
	[KEY_SCOPE_GLOBAL] = "global",
};

PG_FUNCTION_INFO_V1(trigger_idem_idempotency_key_create);
PG_FUNCTION_INFO_V1(trigger_idem_idempotency_key_create_array);

KeyScope
key_scope_parse(const char *scope)
{
	for (size_t i = 0; i < lengthof(scope_names); i++)
		if (strcmp(scope, scope_names[i]) == 0)
			return (KeyScope) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown idempotency key scope \"%s\"", scope),
			 errhint("A scope is \"run\", \"attempt\" or \"global\".")));
}

const char *
key_scope_name(KeyScope scope)
{
	return scope_names[scope];
}

/* Length in characters of one element of a key, which must not be empty */
static int
key_text_chars(text *element)
{
	int			bytes = VARSIZE_ANY_EXHDR(element);

	if (bytes == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idempotency key must not be empty")));
	return pg_mbstrlen_with_len(VARDATA_ANY(element), bytes);
}

static void
key_check_chars(int64 chars)
{
	if (chars > KEY_MAX_CHARS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idempotency key is too long"),
				 errdetail("It has %lld characters; the limit is %d.",
						   (long long) chars, KEY_MAX_CHARS),
				 errhint("Hash what the key is made from, or use a shorter identifier.")));
}

pg_noreturn static void
key_null_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("idempotency key must not be null")));
}

/* The checks that every raw key must pass; NULL stands for SQL's null. */
void
key_check_text(text *key)
{
	if (key == NULL)
		key_null_error();
	key_check_chars(key_text_chars(key));
}

/*
 * SHA-256, one at a time.  Where the server has OpenSSL, its pg_cryptohash
 * functions look the algorithm up for every hash, which takes longer than to
 * hash a key; so there we call OpenSSL ourselves.
 */
#ifdef USE_OPENSSL

static EVP_MD_CTX *sha256 = NULL;

static bool
sha256_begin(void)
{
	if (sha256 == NULL)
		sha256 = EVP_MD_CTX_new();
	/* null is the algorithm of the last time */
	return sha256 != NULL &&
		EVP_DigestInit_ex(sha256, EVP_MD_CTX_md(sha256) ? NULL : EVP_sha256(), NULL) == 1;
}

static bool
sha256_update(const char *data, int length)
{
	return EVP_DigestUpdate(sha256, data, length) == 1;
}

static bool
sha256_end(uint8 *digest)
{
	return EVP_DigestFinal_ex(sha256, digest, NULL) == 1;
}

#else

static pg_cryptohash_ctx *sha256 = NULL;

static bool
sha256_begin(void)
{
	if (sha256 == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		sha256 = pg_cryptohash_create(PG_SHA256);
		MemoryContextSwitchTo(caller);
	}
	return sha256 != NULL && pg_cryptohash_init(sha256) == 0;
}

static bool
sha256_update(const char *data, int length)
{
	return pg_cryptohash_update(sha256, (const uint8 *) data, length) == 0;
}

static bool
sha256_end(uint8 *digest)
{
	return pg_cryptohash_final(sha256, digest, PG_SHA256_DIGEST_LENGTH) == 0;
}

#endif

pg_noreturn static void
sha256_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("could not compute SHA-256")));
}

/* Bytes that stand without their length: only where they end by themselves */
void
key_material_raw(KeyMaterial *material, const void *data, int length)
{
	if (material->buffer.len + length > MATERIAL_BUFFER)
	{
		if (!(material->is_hashing || sha256_begin()) ||
			!sha256_update(material->buffer.data, material->buffer.len))
			sha256_error();
		material->is_hashing = true;
		resetStringInfo(&material->buffer);
	}
	if (length > 0)
		appendBinaryStringInfo(&material->buffer, data, length);
}

void
key_material_number(KeyMaterial *material, uint32 number)
{
	uint32		bytes = pg_hton32(number);

	key_material_raw(material, &bytes, sizeof(bytes));
}

void
key_material_bytes(KeyMaterial *material, const void *data, int length)
{
	key_material_number(material, length);
	key_material_raw(material, data, length);
}

/* Text in the database's encoding, hashed as UTF-8 */
void
key_material_text(KeyMaterial *material, const char *data, int length)
{
	char	   *utf8 = pg_server_to_any(data, length, PG_UTF8);

	key_material_bytes(material, utf8, utf8 == data ? length : (int) strlen(utf8));
	if (utf8 != data)
		pfree(utf8);
}

void
key_material_cstring(KeyMaterial *material, const char *string)
{
	key_material_text(material, string, (int) strlen(string));
}

void
key_material_begin(KeyMaterial *material, const char *domain)
{
	initStringInfo(&material->buffer);
	material->is_hashing = false;
	key_material_cstring(material, domain);
}

/* Hash and free the material */
void
key_material_hash(KeyMaterial *material, Key *key)
{
	StaticAssertStmt(KEY_BYTES == PG_SHA256_DIGEST_LENGTH, "a key is a SHA-256");
	if (!(material->is_hashing || sha256_begin()) ||
		!sha256_update(material->buffer.data, material->buffer.len) ||
		!sha256_end(key->bytes))
		sha256_error();
	pfree(material->buffer.data);
}

/*
 * Hash the elements of a key.  A run id must be given for the scopes run and
 * attempt, an attempt number for the scope attempt.
 */
static void
key_hash(text **elements, int count, KeyScope scope, const pg_uuid_t *run_id, int attempt,
		 Key *result)
{
	KeyMaterial material;
	int64		chars = 0;

	for (int i = 0; i < count; i++)
		chars += key_text_chars(elements[i]);
	key_check_chars(chars);

	key_material_begin(&material, KEY_DOMAIN);
	key_material_cstring(&material, scope_names[scope]);
	if (scope != KEY_SCOPE_GLOBAL)
		key_material_bytes(&material, run_id->data, UUID_LEN);
	if (scope == KEY_SCOPE_ATTEMPT)
	{
		uint32		number = pg_hton32((uint32) attempt);

		key_material_bytes(&material, &number, sizeof(number));
	}
	for (int i = 0; i < count; i++)
		key_material_text(&material, VARDATA_ANY(elements[i]),
						  VARSIZE_ANY_EXHDR(elements[i]));
	key_material_hash(&material, result);
}

/*
 * The key that idempotency_key_create(key, scope) gives here: without a
 * current run every scope is the global one.  The scope that was used is
 * returned in effective.
 */
void
key_from_text(text *key, KeyScope scope, Key *result, KeyScope *effective)
{
	const CurrentRun *run = current_run();

	key_check_text(key);
	*effective = run ? scope : KEY_SCOPE_GLOBAL;
	key_hash(&key, 1, *effective, run ? &run->run_id : NULL,
			 run ? run->steady_attempt : 0, result);
}

/* The global key of several texts */
void
key_from_parts(text **parts, int count, Key *result)
{
	key_hash(parts, count, KEY_SCOPE_GLOBAL, NULL, 0, result);
}

/* ---------- What was hashed, for those who look at it later ---------- */

/* A key that idempotency_key_create() made in this session */
typedef struct KnownKey
{
	Key			key;			/* hash key */
	text	   *typed;
	const char *scope;
} KnownKey;

/* Forget all when they take this much memory. */
#define KNOWN_KEYS_MAX_BYTES ((Size) 4 * 1024 * 1024)

static HTAB *known_keys = NULL;
static MemoryContext known_keys_context = NULL;

static void
known_keys_reset(void)
{
	HASHCTL		info = {.keysize = sizeof(Key),.entrysize = sizeof(KnownKey)};

	known_keys = NULL;
	if (known_keys_context)
		MemoryContextDelete(known_keys_context);
	/* making another one may fail */
	known_keys_context = NULL;
	known_keys_context = AllocSetContextCreate(TopMemoryContext, "trigger_idem known keys",
											   ALLOCSET_DEFAULT_SIZES);
	info.hcxt = known_keys_context;
	known_keys = hash_create("trigger_idem known keys", 64, &info,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Remember what a key was made from, for views to show. */
static void
key_remember(const Key *key, text *typed, KeyScope scope)
{
	KnownKey   *known;
	bool		found;

	if (known_keys == NULL ||
		MemoryContextMemAllocated(known_keys_context, true) > KNOWN_KEYS_MAX_BYTES)
		known_keys_reset();
	known = hash_search(known_keys, key, HASH_FIND, NULL);
	if (known == NULL)
	{
		/* the copy first: no entry may be left without it */
		MemoryContext caller = MemoryContextSwitchTo(known_keys_context);
		text	   *copy = DatumGetTextPCopy(PointerGetDatum(typed));

		MemoryContextSwitchTo(caller);
		known = hash_search(known_keys, key, HASH_ENTER, &found);
		known->typed = copy;
		known->scope = scope_names[scope];
	}
}

/* What a key was made from, and its scope; NULL: not known */
text *
key_recall(const Key *key, const char **scope)
{
	KnownKey   *known = known_keys ? hash_search(known_keys, key, HASH_FIND, NULL) : NULL;

	*scope = known ? known->scope : NULL;
	return known ? known->typed : NULL;
}

/* ---------- Forms of a key ---------- */

/* Is it a key in its 64-digit form?  Then parse it. */
bool
key_parse_hex(text *key, Key *result)
{
	const char *digits = VARDATA_ANY(key);

	if (VARSIZE_ANY_EXHDR(key) != KEY_HEX_LENGTH)
		return false;
	for (int i = 0; i < KEY_HEX_LENGTH; i++)
		if (!((digits[i] >= '0' && digits[i] <= '9') || (digits[i] >= 'a' && digits[i] <= 'f')))
			return false;
	hex_decode(digits, KEY_HEX_LENGTH, (char *) result->bytes);
	return true;
}

/* A key as users see it */
text *
key_to_hex(const Key *key)
{
	text	   *hex = palloc(VARHDRSZ + KEY_HEX_LENGTH);

	SET_VARSIZE(hex, VARHDRSZ + KEY_HEX_LENGTH);
	hex_encode((const char *) key->bytes, KEY_BYTES, VARDATA(hex));
	return hex;
}

/* A key as it is stored */
Datum
key_to_bytea(const Key *key)
{
	bytea	   *bytes = palloc(VARHDRSZ + KEY_BYTES);

	SET_VARSIZE(bytes, VARHDRSZ + KEY_BYTES);
	memcpy(VARDATA(bytes), key->bytes, KEY_BYTES);
	return PointerGetDatum(bytes);
}

void
key_from_bytea(Datum stored, Key *key)
{
	bytea	   *bytes = DatumGetByteaPP(stored);

	if (VARSIZE_ANY_EXHDR(bytes) != KEY_BYTES)
		elog(ERROR, "a stored key has a wrong length");
	memcpy(key->bytes, VARDATA_ANY(bytes), KEY_BYTES);
}

/* What key_id() says, for a key that belongs to something of any kind */
static void
key_id_of(const Key *key, const char *environment, const char *kind, const char *name,
		  pg_uuid_t *id)
{
	KeyMaterial material;
	Key			hash;

	key_material_begin(&material, KEY_ID_DOMAIN);
	key_material_cstring(&material, environment);
	key_material_cstring(&material, kind);
	key_material_cstring(&material, name);
	key_material_bytes(&material, key->bytes, KEY_BYTES);
	key_material_hash(&material, &hash);
	memcpy(id->data, hash.bytes, UUID_LEN);
}

/*
 * The primary key of the row that holds a key: keys belong to an environment
 * and to a task or, when group is not NULL, a group of tasks.
 */
void
key_id(const Key *key, const char *environment, const char *task_id, const char *group,
	   pg_uuid_t *id)
{
	key_id_of(key, environment, group ? "group" : "task", group ? group : task_id, id);
}

/*
 * The key of a schedule's tick, and the primary key of its row.  It does not depend
 * on the task: a schedule that is given another one keeps one run a tick.
 */
void
key_of_tick(const char *environment, const char *schedule_id, TimestampTz tick, Key *key,
			pg_uuid_t *id)
{
	KeyMaterial material;

	key_material_begin(&material, KEY_TICK_DOMAIN);
	key_material_cstring(&material, environment);
	key_material_cstring(&material, schedule_id);
	key_material_cstring(&material,
						 psprintf(INT64_FORMAT, tick + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
								  USECS_PER_DAY));
	key_material_hash(&material, key);
	key_id_of(key, environment, "schedule", schedule_id, id);
}

/*
 * What both forms of idempotency_key_create do; typed is what users see of the
 * elements.  Scope, run id and attempt are the arguments, then the current run's.
 */
static Datum
key_create(text **elements, int count, text *typed, FunctionCallInfo fcinfo)
{
	const CurrentRun *run = current_run();
	const pg_uuid_t *run_id = NULL;
	int			attempt = 0;
	KeyScope	scope;
	Key			key;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idempotency key scope must not be null")));
	scope = key_scope_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (!PG_ARGISNULL(2))
		run_id = PG_GETARG_UUID_P(2);
	if (!PG_ARGISNULL(3))
	{
		attempt = PG_GETARG_INT32(3);
		if (attempt < 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("attempt must be at least 1")));
	}
	if (attempt != 0 && run_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an attempt was given without its run id")));
	if (run_id != NULL && attempt == 0 && scope == KEY_SCOPE_ATTEMPT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a run id was given without its attempt"),
				 errhint("Scope \"attempt\" needs both, or neither inside a run.")));

	if (run_id == NULL && run != NULL)
	{
		run_id = &run->run_id;
		attempt = run->steady_attempt;
	}
	if (run_id == NULL)
		scope = KEY_SCOPE_GLOBAL;
	key_hash(elements, count, scope, run_id, attempt, &key);
	key_remember(&key, typed, scope);
	PG_RETURN_TEXT_P(key_to_hex(&key));
}

/* The key of several texts in the current run, for views as that array */
text *
key_of_run(text **parts, int count)
{
	Datum	   *values = palloc(count * sizeof(Datum));
	ArrayType  *array;
	Key			key;

	for (int i = 0; i < count; i++)
		values[i] = PointerGetDatum(parts[i]);
	array = construct_array(values, count, TEXTOID, -1, false, TYPALIGN_INT);
	key_hash(parts, count, KEY_SCOPE_RUN, &current_run()->run_id, 0, &key);
	key_remember(&key, cstring_to_text(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array))),
				 KEY_SCOPE_RUN);
	return key_to_hex(&key);
}

/* idempotency_key_create(key text, scope text, run_id uuid, attempt int) */
Datum
trigger_idem_idempotency_key_create(PG_FUNCTION_ARGS)
{
	text	   *key;

	if (PG_ARGISNULL(0))
		key_null_error();
	key = PG_GETARG_TEXT_PP(0);
	return key_create(&key, 1, key, fcinfo);
}

/* idempotency_key_create(key text[], scope text, run_id uuid, attempt int) */
Datum
trigger_idem_idempotency_key_create_array(PG_FUNCTION_ARGS)
{
	ArrayType  *array;
	Datum	   *values;
	bool	   *nulls;
	text	  **elements;
	text	   *typed;
	int			count;

	if (PG_ARGISNULL(0))
		key_null_error();
	array = PG_GETARG_ARRAYTYPE_P(0);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idempotency key must be an array of one dimension")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idempotency key must not be an empty array")));
	elements = palloc(count * sizeof(text *));
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			key_null_error();
		elements[i] = DatumGetTextPP(values[i]);
	}
	typed = count == 1 ? elements[0] :
		cstring_to_text(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array)));
	return key_create(elements, count, typed, fcinfo);
}
