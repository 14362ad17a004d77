/*-------------------------------------------------------------------------
 *
 * key.h
 *	  Idempotency keys: what they are hashed from.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_KEY_H
#define TRIGGER_IDEM_KEY_H

#include "lib/stringinfo.h"

#include "trigger_idem.h"

#define KEY_BYTES		32
#define KEY_HEX_LENGTH	64		/* twice that */
#define KEY_MAX_CHARS	2048

/* What views call the scope of a schedule's key, which no state of a run frees */
#define KEY_SCOPE_TICK	"schedule"

typedef enum KeyScope
{
	KEY_SCOPE_RUN,
	KEY_SCOPE_ATTEMPT,
	KEY_SCOPE_GLOBAL,
} KeyScope;

typedef struct Key
{
	uint8		bytes[KEY_BYTES];
} Key;

extern KeyScope key_scope_parse(const char *scope);
extern const char *key_scope_name(KeyScope scope);
extern void key_check_text(text *key);

/* The material of a hash, appended part by part; of one hash at a time */
typedef struct KeyMaterial
{
	StringInfoData buffer;		/* not hashed yet */
	bool		is_hashing;		/* something was hashed already */
} KeyMaterial;

extern void key_material_begin(KeyMaterial *material, const char *domain);
extern void key_material_raw(KeyMaterial *material, const void *data, int length);
extern void key_material_number(KeyMaterial *material, uint32 number);
extern void key_material_bytes(KeyMaterial *material, const void *data, int length);
extern void key_material_text(KeyMaterial *material, const char *data, int length);
extern void key_material_cstring(KeyMaterial *material, const char *string);
extern void key_material_hash(KeyMaterial *material, Key *key);

extern void key_from_text(text *key, KeyScope scope, Key *result, KeyScope *effective);
extern void key_from_parts(text **parts, int count, Key *result);
extern text *key_of_run(text **parts, int count);
extern bool key_parse_hex(text *key, Key *result);
extern text *key_recall(const Key *key, const char **scope);
extern text *key_to_hex(const Key *key);
extern Datum key_to_bytea(const Key *key);
extern void key_from_bytea(Datum stored, Key *key);
extern void key_id(const Key *key, const char *environment, const char *task_id,
				   const char *group, pg_uuid_t *id);
extern void key_of_tick(const char *environment, const char *schedule_id, TimestampTz tick,
						Key *key, pg_uuid_t *id);

#endif							/* TRIGGER_IDEM_KEY_H */
