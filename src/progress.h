/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  How far runs have come.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_PROGRESS_H
#define TRIGGER_IDEM_PROGRESS_H

extern void progress_init(void);

#endif							/* TRIGGER_IDEM_PROGRESS_H */
