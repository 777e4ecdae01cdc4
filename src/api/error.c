#include "error.h"

#include "../base/quote.h"

#include <stdarg.h>
#include <stdio.h>

void error_set(lucidauth_error *error, lucidauth_code code, const char *format, ...)
{
  if (!error)
    return;
  va_list arguments;
  va_start(arguments, format);
  error->code = code;
  char message[sizeof error->message];
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  /* paths, names of accounts, what a storage says of itself: none of it may forge a line or drive a terminal */
  quote_escape(error->message, sizeof error->message, message);
}
