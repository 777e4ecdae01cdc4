#include "error.h"

#include <stdarg.h>
#include <stdio.h>

void error_set(lucidauth_error *error, lucidauth_code code, const char *format, ...)
{
  if (!error)
    return;
  va_list arguments;
  va_start(arguments, format);
  error->code = code;
  vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
}
