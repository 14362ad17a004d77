/*-------------------------------------------------------------------------
 *
 * token.h
 *	  Tokens: what runs can wait for and others complete.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_TOKEN_H
#define TRIGGER_IDEM_TOKEN_H

#include "utils/snapshot.h"

#include "trigger_idem.h"

extern bool token_is_over(const Datum *values, const bool *nulls);
extern bool token_has_ended(const pg_uuid_t *token);
extern bool token_is_completed(const pg_uuid_t *token, Snapshot snapshot);

#endif							/* TRIGGER_IDEM_TOKEN_H */
