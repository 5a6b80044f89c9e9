/* SPDX-License-Identifier: GPL-2.0-only */
/* The C API, seen by a C program: the header is C, and every error is a value. */
#include <criu/core.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(condition)                                     \
  do {                                                        \
    if (!(condition)) {                                       \
      fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      exit(1);                                                \
    }                                                         \
  } while (0)

static int heard;

static void listener(int level, const char* line, void* context) {
  EXPECT(context == &heard);
  EXPECT(level == 1);
  EXPECT(strchr(line, '\n') == NULL);
  ++heard;
}

static void test_options(void) {
  criu_core_error* error = NULL;
  criu_core_options* options = criu_core_options_new();
  EXPECT(criu_core_options_set(options, "tree", "7", &error) == 0 && error == NULL);
  EXPECT(criu_core_options_set(options, "bogus", NULL, &error) == -1);
  EXPECT(criu_core_error_get_kind(error) == CRIU_CORE_USAGE);
  EXPECT(strcmp(criu_core_error_text(error), "unrecognized option '--bogus'") == 0);
  /* The first error stays. */
  EXPECT(criu_core_options_set(options, "tree", "x", &error) == -1);
  EXPECT(criu_core_error_get_kind(error) == CRIU_CORE_USAGE);
  criu_core_error_free(error);
  EXPECT(criu_core_options_set(options, "tree", "x", NULL) == -1);

  EXPECT(criu_core_options_load(options, "/nowhere", NULL) == 0);
  EXPECT(criu_core_options_set(options, "verbosity", "4", NULL) == 0);
  criu_core_options* copy = criu_core_options_copy(options);
  EXPECT(criu_core_options_verbosity(copy) == 4);
  criu_core_options_free(copy);
  criu_core_options_free(options);
  criu_core_options_free(NULL);
}

static void test_errors(void) {
  criu_core_error* error = NULL;
  criu_core_options* options = criu_core_options_new();
  EXPECT(criu_core_dump(options, &error) == -1);
  EXPECT(strcmp(criu_core_error_operation(error), "pid not specified") == 0);
  EXPECT(*criu_core_error_hint(error) != '\0' && *criu_core_error_object(error) == '\0');
  EXPECT(criu_core_error_errno(error) == 0);
  criu_core_error_free(error);
  error = NULL;
  criu_core_options_set(options, "images-dir", "/nowhere/at/all", NULL);
  EXPECT(criu_core_restore(options, &error) == -1);
  EXPECT(criu_core_error_get_kind(error) == CRIU_CORE_FAILED);
  EXPECT(criu_core_error_errno(error) == ENOENT);
  EXPECT(strstr(criu_core_error_text(error), "/nowhere/at/all") != NULL);
  criu_core_error_free(error);
  criu_core_options_free(options);
}

static void test_table(void) {
  size_t options = 0, features = 0;
  while (criu_core_option_at(options) != NULL) {
    ++options;
  }
  while (criu_core_feature_at(features) != NULL) {
    ++features;
  }
  EXPECT(options == 87 && features == 45);
  EXPECT(criu_core_feature("nonsense") == -1);
  EXPECT(criu_core_feature("external_net_ns") == 1);
}

int main(void) {
  EXPECT(strcmp(criu_core_version(), "4.2") == 0);
  criu_core_log_listen(listener, &heard);
  criu_core_log_to(2, 1);
  test_options();
  test_errors();
  EXPECT(heard > 0);
  criu_core_log_listen(NULL, NULL);
  test_table();
  return 0;
}
