/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  Telling workers that there is something to do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WAKE_H
#define TRIGGER_IDEM_WAKE_H

extern void wake_queue(const char *queue);

#endif							/* TRIGGER_IDEM_WAKE_H */
