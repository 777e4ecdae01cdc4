/* The flow's messages for people: they say what happened, whether anything was lost and what to do. No secret. */
#ifndef FLOW_MESSAGES_H
#define FLOW_MESSAGES_H

#include "flow.h"

/* Somebody else writes the record whenever it is to be saved. */
extern const char message_keeps_changing[];

/* Tokens have come, and cannot be put into a record. */
extern const char message_no_memory_to_write[];

/* For failures that left the storage alone. */
extern const char message_kept[];

/* A failure of the server or of the way to it: `what` went wrong, what is `safe`, and the advice that goes with the
 * code. */
void message_explain(char out[FLOW_MESSAGE], const struct flow_settings *settings, enum code code, const char *what,
                     const char *safe);

/* A sentence more, if it fits. */
void message_add(char message[FLOW_MESSAGE], const char *sentence);

/* The record says that the stored tokens are of another `app` than this client. */
void message_name_app(char message[FLOW_MESSAGE], const struct flow_settings *settings, const char *app);

/* The first letter. */
void message_capitalize(char *sentence);

/* A setting that only a refresh needs; NULL: all are there. Static text. */
const char *message_missing_setting(const struct flow_settings *settings);

/* The stored record cannot be used. */
void message_damaged(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void message_empty(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void message_grantless(char out[FLOW_MESSAGE], const struct flow_settings *settings);

/* A login is not stored: there is a grant that lives (`known`), or may live; its refresh token is in doubt,
 * or spent; its access token has ended, and there is nothing else; it could not be saved, `why`. */
void message_living(char out[FLOW_MESSAGE], const struct flow_settings *settings, bool known);
void message_given_is_in_doubt(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void message_given_is_spent(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void message_given_is_expired(char out[FLOW_MESSAGE]);
void message_not_stored(char out[FLOW_MESSAGE], const char *why);

/* The tokens are of another `server`. */
void message_foreign(char out[FLOW_MESSAGE], const struct flow_settings *settings, const char *server);

/* The configured refresh token is not to be sent: the server, or this storage, knows it as spent. */
void message_used_before(char out[FLOW_MESSAGE], const struct flow_settings *settings, bool instead);

/* The stored refresh token was spent before: the storage was set back. */
void message_set_back(char out[FLOW_MESSAGE], const struct flow_settings *settings);

/* A storage of the program's own did not give back what was saved: `fault` says how. */
void message_not_kept(char out[FLOW_MESSAGE], const struct flow_settings *settings, const char *fault);

/* It has done the same to the new tokens. */
void message_not_shown(char out[FLOW_MESSAGE], const struct flow_settings *settings);

/* A refresh may still be under way under a lock that is gone. */
void message_owner_may_live(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark);

/* No trusted authority vouches for the server. */
extern const char message_distrusted[];

/* Added where the introspection endpoint refuses to answer. */
extern const char message_no_introspection[];

/* The newest tokens are in this process alone, `why`. */
void message_unsaved(char out[FLOW_MESSAGE], const char *why);

/* A rotation is lost; `why`: the reply instead of the answer, empty when another process sent the request. */
void message_lost(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark,
                  const char *why);

/* Another process has held the lock for so long; `mark`: of the refresh that it has begun, NULL: it has not. */
void message_lock_held(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark,
                       double seconds);

/* And the time of this call was over before that. */
void message_lock_waited_for(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark);

#endif
