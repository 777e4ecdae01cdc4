/* The flow's messages for people: they say what happened, whether anything was lost and what to do. No secret. */
#ifndef FLOW_WORDS_H
#define FLOW_WORDS_H

#include "flow.h"

/* Somebody else writes the record whenever it is to be saved. */
extern const char words_keeps_changing[];

/* Tokens have come, and cannot be put into a record. */
extern const char words_no_memory_to_write[];

/* For failures that left the storage alone. */
extern const char words_kept[];

/* A failure of the server or of the way to it: `what` went wrong, what is `safe`, and the advice that goes with the
 * code. */
void words_explain(char out[FLOW_MESSAGE], const struct flow_settings *settings, enum code code, const char *what,
                   const char *safe);

/* A sentence more, if it fits. */
void words_add(char message[FLOW_MESSAGE], const char *sentence);

/* The record says that the stored tokens are of another `app` than this client. */
void words_name_app(char message[FLOW_MESSAGE], const struct flow_settings *settings, const char *app);

/* The first letter. */
void words_capitalize(char *sentence);

/* A setting that only a refresh needs; NULL: all are there. Static text. */
const char *words_missing_setting(const struct flow_settings *settings);

/* The stored record cannot be used. */
void words_damaged(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void words_empty(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void words_grantless(char out[FLOW_MESSAGE], const struct flow_settings *settings);

/* A login is not stored: there is a grant that lives (`known`), or may live; its refresh token is in doubt,
 * or spent; its access token has ended, and there is nothing else; it could not be saved, `why`. */
void words_living(char out[FLOW_MESSAGE], const struct flow_settings *settings, bool known);
void words_given_is_in_doubt(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void words_given_is_spent(char out[FLOW_MESSAGE], const struct flow_settings *settings);
void words_given_is_expired(char out[FLOW_MESSAGE]);
void words_not_stored(char out[FLOW_MESSAGE], const char *why);

/* The tokens are of another `server`. */
void words_foreign(char out[FLOW_MESSAGE], const struct flow_settings *settings, const char *server);

/* The configured refresh token is not to be sent: the server, or this storage, knows it as spent. */
void words_used_before(char out[FLOW_MESSAGE], const struct flow_settings *settings, bool instead);

/* The stored refresh token was spent before: the storage was set back. */
void words_set_back(char out[FLOW_MESSAGE], const struct flow_settings *settings);

/* A storage of the program's own did not give back what was saved: `fault` says how. */
void words_not_kept(char out[FLOW_MESSAGE], const struct flow_settings *settings, const char *fault);

/* It has done the same to the new tokens. */
void words_not_shown(char out[FLOW_MESSAGE], const struct flow_settings *settings);

/* A refresh may still be under way under a lock that is gone. */
void words_owner_may_live(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark);

/* No trusted authority vouches for the server. */
extern const char words_distrusted[];

/* Added where the introspection endpoint refuses to answer. */
extern const char words_no_introspection[];

/* The newest tokens are in this process alone, `why`. */
void words_unsaved(char out[FLOW_MESSAGE], const char *why);

/* A rotation is lost; `why`: the reply instead of the answer, empty when another process sent the request. */
void words_lost(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark,
                const char *why);

/* Another process has held the lock for so long; `mark`: of the refresh that it has begun, NULL: it has not. */
void words_lock_held(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark,
                     double seconds);

/* And the time of this call was over before that. */
void words_lock_waited_for(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark);

#endif
