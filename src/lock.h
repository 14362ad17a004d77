/*-------------------------------------------------------------------------
 *
 * lock.h
 *	  Heavyweight locks of our own.
 *
 * They are advisory locks to the server, of kinds that SQL's functions, which
 * have 1 and 2, cannot take.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_LOCK_H
#define TRIGGER_IDEM_LOCK_H

#include "miscadmin.h"
#include "storage/lock.h"

#include "key.h"

typedef enum LockKind
{
	LOCK_GLOBAL_STEP = 0x5449,
	LOCK_CONCURRENCY,
	LOCK_WAITS,
	LOCK_ENVIRONMENT,
} LockKind;

/* The lock for what a hash names; two that share one only wait more. */
static inline LOCKTAG
lock_tag(LockKind kind, const Key *key)
{
	LOCKTAG		tag;
	uint32		words[2];

	memcpy(words, key->bytes, sizeof(words));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, words[0], words[1], kind);
	return tag;
}

#endif							/* TRIGGER_IDEM_LOCK_H */
