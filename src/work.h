/*-------------------------------------------------------------------------
 *
 * work.h
 *	  Working runs in this session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WORK_H
#define TRIGGER_IDEM_WORK_H

extern int	work_everything(const char *worker_id);

#endif							/* TRIGGER_IDEM_WORK_H */
