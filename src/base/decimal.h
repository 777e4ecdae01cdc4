/* Decimal numbers in text, the same in every locale: printf and strtod go by the decimal point of the process's
 * locale. */
#ifndef BASE_DECIMAL_H
#define BASE_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>

enum { DECIMAL_DIGITS = 40, DECIMAL_TEXT = 64 };

/* digits * 10^exponent. Digits after the first DECIMAL_DIGITS are dropped; if one of them is not 0, the last digit kept
 * is not 0. */
struct decimal {
  bool negative;
  bool json; /* the text is a number by JSON's grammar, too */
  int count; /* of digits, without zeros at either end; 0 for zero */
  long exponent;
  char digits[DECIMAL_DIGITS + 1]; /* NUL-terminated */
};

/* Read a number at `text`: JSON's grammar, with zeros in front and a point behind tolerated. Returns its end, or
 * `text` if there is none. */
const char *decimal_read(const char *text, const char *end, struct decimal *decimal);

/* The nearest double; infinite when there is none. */
double decimal_value(const struct decimal *decimal);

/* Whether the nearest double is written as this very number again. */
bool decimal_survives(const struct decimal *decimal);

/* The whole of a string as a number, white space around it allowed. False if it is none. */
bool decimal_parse(const char *text, double *value);

/* Write a finite number, by JSON's grammar, with as few digits as give this very double back. Returns the length. */
size_t decimal_write(double value, char text[DECIMAL_TEXT]);

#endif
