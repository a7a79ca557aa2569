#ifndef SKEIN_TESTS_OPENAI_BODY_H
#define SKEIN_TESTS_OPENAI_BODY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "node/api/openai.h"

#define TEXT "\"model\":\"tiny\",\"prompt\":\"hi\""

enum status parse(enum request_kind kind, const char *json, struct openai_request *out,
                  struct api_error *error);
void accepted(enum request_kind kind, const char *json, struct openai_request *out);
void refused(enum request_kind kind, const char *json, int http, const char *param);

#endif
