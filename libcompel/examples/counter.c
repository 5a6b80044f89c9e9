/* SPDX-License-Identifier: LGPL-2.1-only */
/* A resident parasite that counts for its master, from C: counter PID TIMES */
#include <compel/compel.h>
#include <stdio.h>
#include <stdlib.h>

#include "counter_blob.h"

static int failed(void) {
  fprintf(stderr, "counter: %s\n", compel_last_error()->text);
  return 1;
}

int main(int argc, char** argv) {
  compel_tree* tree = NULL;
  compel_parasite* parasite = NULL;
  char log[4096];
  if (argc != 3) {
    fprintf(stderr, "usage: counter PID TIMES\n");
    return 2;
  }
  if (compel_seize(atoi(argv[1]), NULL, &tree) < 0) {
    return failed();
  }
  if (compel_load(compel_tree_task(tree, 0), &counter_blob, sizeof(long), &parasite) < 0 ||
      compel_start(parasite) < 0) {
    return failed(); /* and the task goes on, because we end */
  }
  for (long i = 1; i <= atol(argv[2]); ++i) {
    long sum = 0;
    *(long*)compel_data(parasite) = i;
    if (compel_call(parasite, "count", 0, &sum) < 0) {
      return failed();
    }
    printf("%ld\n", sum);
  }
  fwrite(log, 1, (size_t)compel_log(parasite, log, sizeof log), stdout);
  return compel_unload(parasite) < 0 || compel_release(tree, COMPEL_RESUME) < 0 ? failed() : 0;
}
