/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * libcriu-core: checkpoint a running process tree to image files, and restore it.
 *
 *   criu_core_options *options = criu_core_options_new();
 *   criu_core_error *error = NULL;
 *   criu_core_options_set(options, "tree", "4711", &error);
 *   criu_core_options_set(options, "images-dir", "/var/tmp/checkpoint", &error);
 *   if (criu_core_dump(options, &error) != 0) {
 *     fprintf(stderr, "%s\n", criu_core_error_text(error));
 *     criu_core_error_free(error);
 *   }
 *   criu_core_options_free(options);
 *
 * Options have the names that the command line and configuration files know (`criu-cli --help`), without the dashes.
 *
 * Errors: a function that takes `criu_core_error **` sets it on failure if the pointer is not null; the caller frees
 * it. An error that is already there is not replaced, so that several calls can be checked at once, as above.
 *
 * Threads: a handle belongs to one thread at a time. The log is the process's; one command runs at a time.
 */
#ifndef CRIU_CORE_H
#define CRIU_CORE_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CRIU_CORE_API __attribute__((visibility("default")))
#else
#define CRIU_CORE_API
#endif

typedef struct criu_core_options criu_core_options;
typedef struct criu_core_error criu_core_error;

/* The version of CRIU whose images and command line this library speaks: "4.2". */
CRIU_CORE_API const char* criu_core_version(void);

/* ---- errors ------------------------------------------------------------------------------------------------------ */

enum criu_core_error_kind {
  CRIU_CORE_FAILED = 1,    /* something was in the way */
  CRIU_CORE_USAGE = 2,     /* the request makes no sense as it is written */
  CRIU_CORE_PRIVILEGE = 3, /* the caller lacks rights; the text is several lines for a terminal */
  CRIU_CORE_POST_DUMP = 4  /* the checkpoint is complete, but a script vetoed its end: the tree goes on */
};

CRIU_CORE_API enum criu_core_error_kind criu_core_error_get_kind(const criu_core_error* error);
/* The whole in one line: operation, object, errno, hint. Never null, like the next three; they live with the error. */
CRIU_CORE_API const char* criu_core_error_text(const criu_core_error* error);
CRIU_CORE_API const char* criu_core_error_operation(const criu_core_error* error);
CRIU_CORE_API const char* criu_core_error_object(const criu_core_error* error);
CRIU_CORE_API const char* criu_core_error_hint(const criu_core_error* error);
/* errno, or 0 when the kernel was not asked. */
CRIU_CORE_API int criu_core_error_errno(const criu_core_error* error);
CRIU_CORE_API void criu_core_error_free(criu_core_error* error);

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Null when there is no memory. */
CRIU_CORE_API criu_core_options* criu_core_options_new(void);
CRIU_CORE_API criu_core_options* criu_core_options_copy(const criu_core_options* options);
CRIU_CORE_API void criu_core_options_free(criu_core_options* options);

/* Sets one by its long name, also "no-NAME" where the option has that form; `value` is null without one. 0 or -1. */
CRIU_CORE_API int criu_core_options_set(criu_core_options* options, const char* name, const char* value,
                                        criu_core_error** error);
/* The same; messages call it what the user wrote ("-t"). */
CRIU_CORE_API int criu_core_options_set_as(criu_core_options* options, const char* name, const char* value,
                                           const char* spelled, criu_core_error** error);
/* Applies a configuration file. One that is not there changes nothing and is no error. 0 or -1. */
CRIU_CORE_API int criu_core_options_load(criu_core_options* options, const char* file, criu_core_error** error);
/*
 * Applies the files that stand for all programs: the system's and the user's (not with `skip_defaults`, or with an
 * explicit file), that of $CRIU_CONFIG_FILE, then `file` if it is not null; and variables that stand for options.
 */
CRIU_CORE_API int criu_core_options_load_defaults(criu_core_options* options, int skip_defaults, const char* file,
                                                  criu_core_error** error);
CRIU_CORE_API int criu_core_options_verbosity(const criu_core_options* options);
CRIU_CORE_API int criu_core_options_detached(const criu_core_options* options);
CRIU_CORE_API int criu_core_options_exec_cmd(const criu_core_options* options);

/* What options there are, to build a command line from. */
enum criu_core_argument { CRIU_CORE_NO_ARGUMENT = 0, CRIU_CORE_ARGUMENT = 1, CRIU_CORE_OPTIONAL_ARGUMENT = 2 };

struct criu_core_option {
  const char* name;
  const char* value_name; /* null without an argument */
  const char* group;      /* a heading to list it under */
  const char* help;
  char letter;       /* 0: none */
  int argument;      /* enum criu_core_argument */
  int negatable;     /* has a --no- form */
  int supported;     /* 0: belongs to a feature that is not there yet; asking for it is refused by name */
  int of_the_reader; /* for who reads the request (help, version, config): set_* does nothing with it or refuses */
};

/* Entry `index` from 0; null behind the last. The result is valid for ever. */
CRIU_CORE_API const struct criu_core_option* criu_core_option_at(size_t index);

/* ---- a command with a process to itself -------------------------------------------------------------------------- */

enum criu_core_command {
  CRIU_CORE_DUMP = 1,
  CRIU_CORE_PRE_DUMP = 2,
  CRIU_CORE_RESTORE = 4,
  CRIU_CORE_CHECK = 8,
  CRIU_CORE_SERVICE = 64
};

/*
 * For a program that is a front end of the library, in this order; a program that checkpoints others beside its own
 * work needs none of them.
 *
 * hold_log keeps log lines until it is known where to; release_log sends what is still held to stderr. check_privileges
 * says whether this process may do the work at all. start makes sure of the image directory, goes to the work
 * directory, opens the log there and checks that the options fit the command. 0 or -1.
 */
CRIU_CORE_API void criu_core_hold_log(void);
CRIU_CORE_API void criu_core_release_log(const criu_core_options* options);
CRIU_CORE_API int criu_core_check_privileges(const criu_core_options* options, criu_core_error** error);
CRIU_CORE_API int criu_core_start(criu_core_options* options, enum criu_core_command command, criu_core_error** error);

/* ---- the work ---------------------------------------------------------------------------------------------------- */

/*
 * Where the log goes when there is no `start`: a descriptor that stays the caller's, from this level down (0 messages,
 * 1 errors, 2 warnings, 3 information, 4 debugging). Without it: stderr, level 2.
 */
CRIU_CORE_API void criu_core_log_to(int fd, int level);
/* Whether the log is, or will be if nothing else is said, what a person sees on stderr. */
CRIU_CORE_API int criu_core_log_is_stderr(void);
/* Every line of the log also goes here, without its newline; null ends that. Restored tasks do not call it. */
CRIU_CORE_API void criu_core_log_listen(void (*listener)(int level, const char* line, void* context), void* context);

/*
 * Saves the tree of option "tree" into "images-dir". 0, or -1: then the tree goes on as if nothing had happened, and
 * the directory is no checkpoint (but see CRIU_CORE_POST_DUMP).
 */
CRIU_CORE_API int criu_core_dump(const criu_core_options* options, criu_core_error** error);

/*
 * Copies the memory of the tree of option "tree" into "images-dir", and lets it go on. The directory is no checkpoint:
 * it can be what the option "prev-images-dir" of a later one names. 0, or -1.
 */
CRIU_CORE_API int criu_core_pre_dump(const criu_core_options* options, criu_core_error** error);

/*
 * Restores the checkpoint in "images-dir". The pid of the root task, a child of this process (or its sibling, with
 * "restore-sibling") that the caller waits for; -1: nothing of it is left.
 */
CRIU_CORE_API pid_t criu_core_restore(const criu_core_options* options, criu_core_error** error);

/*
 * Whether this kernel can do the work. What is worth telling goes to `say`, a line a call, which may be null.
 * 1 yes; 0 no, or not for every tree; -1 an error. With option "feature": that one alone. With option "tree": whether
 * that tree can be dumped, a line for each thing in the way; no task is stopped for it.
 */
CRIU_CORE_API int criu_core_check(const criu_core_options* options, void (*say)(const char* line, void* context),
                                  void* context, criu_core_error** error);
/* A kernel feature by its name in `check --feature`: 1 there, 0 not there, -1 unknown name. Probed once. */
CRIU_CORE_API int criu_core_feature(const char* name);
/* Their names from index 0; null behind the last. */
CRIU_CORE_API const char* criu_core_feature_at(size_t index);

/* ---- the RPC ----------------------------------------------------------------------------------------------------- */

/*
 * Serves the requests of the client at the other end of this socket, which becomes the library's. `options` hold for
 * all of them. A process does this once and then ends, with the status that is returned; -1: not even that.
 */
CRIU_CORE_API int criu_core_serve(const criu_core_options* options, int fd, criu_core_error** error);
/*
 * Listens at "address" and has each client served by a process of its own, to which none of the options apply; in the
 * background with "daemon". Comes back only with an error: -1.
 */
CRIU_CORE_API int criu_core_service(const criu_core_options* options, criu_core_error** error);

#ifdef __cplusplus
}
#endif

#endif /* CRIU_CORE_H */
