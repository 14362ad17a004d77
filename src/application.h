/*-------------------------------------------------------------------------
 *
 * application.h
 *	  Workers outside the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_APPLICATION_H
#define TRIGGER_IDEM_APPLICATION_H

struct WaitRequest;

extern void application_init(void);
extern void application_wait(struct WaitRequest *request);
extern void application_pass(struct WaitRequest *request, bool was_over);

#endif							/* TRIGGER_IDEM_APPLICATION_H */
