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

#include "current.h"
#include "key.h"

#define KEY_DOMAIN		"trigger_idem key v1"
#define KEY_ID_DOMAIN	"trigger_idem key id v1"

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

void
key_material_bytes(StringInfo material, const void *data, int length)
{
	uint32		prefix = pg_hton32((uint32) length);

	appendBinaryStringInfo(material, (const char *) &prefix, sizeof(prefix));
	appendBinaryStringInfo(material, data, length);
}

/* Text in the database's encoding, hashed as UTF-8 */
void
key_material_text(StringInfo material, const char *data, int length)
{
	char	   *utf8 = pg_server_to_any(data, length, PG_UTF8);

	key_material_bytes(material, utf8, utf8 == data ? length : (int) strlen(utf8));
}

void
key_material_cstring(StringInfo material, const char *string)
{
	key_material_text(material, string, strlen(string));
}

void
key_material_begin(StringInfo material, const char *domain)
{
	initStringInfo(material);
	key_material_cstring(material, domain);
}

/*
 * SHA-256.  Where the server has OpenSSL, its pg_cryptohash functions look the
 * algorithm up for every hash, which takes longer than to hash a key; so there
 * we call OpenSSL ourselves.
 */
#ifdef USE_OPENSSL

static void
sha256(const char *data, int length, uint8 *digest)
{
	static EVP_MD_CTX *context = NULL;

	if (context == NULL)
		context = EVP_MD_CTX_new();
	/* null is the algorithm of the last time */
	if (context == NULL ||
		EVP_DigestInit_ex(context, EVP_MD_CTX_md(context) ? NULL : EVP_sha256(), NULL) != 1 ||
		EVP_DigestUpdate(context, data, length) != 1 ||
		EVP_DigestFinal_ex(context, digest, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not compute SHA-256")));
}

#else

static void
sha256(const char *data, int length, uint8 *digest)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (context == NULL || pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, (const uint8 *) data, length) < 0 ||
		pg_cryptohash_final(context, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not compute SHA-256")));
	pg_cryptohash_free(context);
}

#endif

/* Hash and free the material */
void
key_material_hash(StringInfo material, Key *key)
{
	StaticAssertStmt(KEY_BYTES == PG_SHA256_DIGEST_LENGTH, "a key is a SHA-256");
	sha256(material->data, material->len, key->bytes);
	pfree(material->data);
}

/*
 * Hash the elements of a key.  A run id must be given for the scopes run and
 * attempt, an attempt number for the scope attempt.
 */
static void
key_hash(text **elements, int count, KeyScope scope, const pg_uuid_t *run_id, int attempt,
		 Key *result)
{
	StringInfoData material;
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

/*
 * The primary key of the row that holds a key: keys belong to an environment
 * and to a task or, when group is not NULL, a group of tasks.
 */
void
key_id(const Key *key, const char *environment, const char *task_id, const char *group,
	   pg_uuid_t *id)
{
	StringInfoData material;
	Key			hash;

	key_material_begin(&material, KEY_ID_DOMAIN);
	key_material_cstring(&material, environment);
	key_material_cstring(&material, group ? "group" : "task");
	key_material_cstring(&material, group ? group : task_id);
	key_material_bytes(&material, key->bytes, KEY_BYTES);
	key_material_hash(&material, &hash);
	memcpy(id->data, hash.bytes, UUID_LEN);
}

/*
 * What both forms of idempotency_key_create do, from their arguments scope,
 * run_id and attempt: those given count, then those of the current run.
 */
static Datum
key_create(text **elements, int count, FunctionCallInfo fcinfo)
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
	PG_RETURN_TEXT_P(key_to_hex(&key));
}

/* idempotency_key_create(key text, scope text, run_id uuid, attempt int) */
Datum
trigger_idem_idempotency_key_create(PG_FUNCTION_ARGS)
{
	text	   *key;

	if (PG_ARGISNULL(0))
		key_null_error();
	key = PG_GETARG_TEXT_PP(0);
	return key_create(&key, 1, fcinfo);
}

/* idempotency_key_create(key text[], scope text, run_id uuid, attempt int) */
Datum
trigger_idem_idempotency_key_create_array(PG_FUNCTION_ARGS)
{
	ArrayType  *array;
	Datum	   *values;
	bool	   *nulls;
	text	  **elements;
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
	return key_create(elements, count, fcinfo);
}
