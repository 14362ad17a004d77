/*-------------------------------------------------------------------------
 *
 * payload.h
 *	  Payloads: what they are hashed from, and where two of them differ.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_PAYLOAD_H
#define TRIGGER_IDEM_PAYLOAD_H

#include "utils/jsonb.h"

#include "key.h"

extern void payload_digest(NullableDatum payload, Key *digest);
extern char *payload_difference(NullableDatum one, NullableDatum other);

#endif							/* TRIGGER_IDEM_PAYLOAD_H */
