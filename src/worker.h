/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The sign of life of a worker inside the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WORKER_H
#define TRIGGER_IDEM_WORKER_H

#include "trigger_idem.h"

extern int64 worker_begin(void);
extern void worker_end(void);
extern void worker_begin_lease(int64 lease_ms);
extern void worker_end_lease(void);
extern bool worker_is_alive(int64 token, int64 max_silence_ms);

#endif							/* TRIGGER_IDEM_WORKER_H */
