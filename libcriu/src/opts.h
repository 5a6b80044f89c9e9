/* SPDX-License-Identifier: LGPL-2.1-only */
/* What a set of options is. */
#ifndef LIBCRIU_OPTS_H
#define LIBCRIU_OPTS_H

#include <criu/criu.h>

struct criu_opts {
  CriuOpts* rpc;
  enum criu_service_comm comm;
  char* address; /* of the service */
  int fd;        /* of who is asked */
  char* binary;
  int (*notify)(char* action, criu_notify_arg_t arg);
};

/* The one of the functions that take none. */
extern criu_opts* criu_global;

#endif
